"""Export the synthetic world as SNLI-VE: every hypothesis has three images: entailment, neutral and contradiction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from vlbench.world.language.captions import PER_SCENE, caption_scene
from vlbench.world.language.hypotheses import (
    ENTAILMENT_LABELS,
    EntailmentLabel,
    Hypothesis,
    HypothesisKind,
    draw_hypothesis,
    label_hypothesis,
    phrase_hypothesis,
)
from vlbench.world.output import ProgressCallback, with_progress, write_text
from vlbench.world.rng import below, deal, shuffled, stream
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import Photograph, collect_photographs
from vlbench.world.scenes.scene import Scenes, Split

TASK = "snli_ve"
TASK_SPLITS: dict[Split, str] = {"train": "train", "dev": "dev", "test1": "test"}
"""The official names; `test2` is not exported."""
SHARES: dict[HypothesisKind, int] = {"colour": 26, "shape": 22, "size": 16, "place": 12, "relation": 12, "count": 12}
"""Percent of the hypotheses: more of the kinds that one match of word and thing decides."""
PER_PHOTOGRAPH: dict[Split, float] = {"train": 0.8, "dev": 0.3, "test1": 0.95}
"""Hypotheses per photograph; each has three lines in the file."""

_DRAWS, _TRIES = 100, 200


@dataclass(frozen=True, slots=True)
class HypothesisTriple:
    """A hypothesis, its sentence, and a photograph for each label."""

    hypothesis: Hypothesis
    sentence: str
    photographs: Mapping[EntailmentLabel, Photograph]


def make_triples(split: Split, photos: Sequence[Photograph], seed: int) -> Iterator[HypothesisTriple]:
    """Yield the hypotheses of a split, each kind with its share; all photographs have equal probability."""
    count = round(PER_PHOTOGRAPH[split] * len(photos))
    for number, kind in enumerate(deal(stream(seed, TASK, split), SHARES, count)):
        triple = _make_triple(kind, photos, stream(seed, TASK, split, number))
        if triple is not None:
            yield triple


def _make_triple(kind: HypothesisKind, photos: Sequence[Photograph], rng: Random) -> HypothesisTriple | None:
    """Draw hypotheses until one has a photograph for each label; None if `_DRAWS` attempts find none."""
    for _ in range(_DRAWS):
        hypothesis = draw_hypothesis(kind, rng)
        by_label: dict[EntailmentLabel, Photograph] = {}
        for _ in range(_TRIES):
            photograph = photos[below(rng, len(photos))]
            label = label_hypothesis(hypothesis, photograph.scene)
            if label is not None:
                by_label.setdefault(label, photograph)
            if len(by_label) == len(ENTAILMENT_LABELS):
                return HypothesisTriple(hypothesis, phrase_hypothesis(hypothesis, rng), by_label)
    return None


def export(folder: Path, scenes: Scenes, seed: int, plan: ImagePlan, progress: ProgressCallback) -> dict[str, int]:
    """Write the task's files to its folder; return the number of examples per split, under the task card's names."""
    counts = {}
    photos = collect_photographs("flickr30k", scenes, seed)
    for split, name in TASK_SPLITS.items():
        total = round(PER_PHOTOGRAPH[split] * len(photos[split]))
        triples = with_progress(
            make_triples(split, photos[split], seed), total, f"hypotheses of {TASK}, {name}", progress
        )
        lines = [json.dumps(line) + "\n" for line in _lines(triples, seed)]
        write_text(folder / f"snli_ve_{name}.jsonl", "".join(lines))
        counts[name] = len(lines)
    return counts


def _lines(triples: Iterator[HypothesisTriple], seed: int) -> Iterator[dict[str, object]]:
    """Yield three lines per hypothesis, the labels in random order."""
    numbers: Counter[str] = Counter()
    for triple in triples:
        for gold in shuffled(stream(seed, TASK, triple.sentence, len(numbers)), ENTAILMENT_LABELS):
            photograph = triple.photographs[gold]
            numbers[photograph.name] += 1
            yield _line(triple, gold, photograph, numbers[photograph.name], seed)


def _line(
    triple: HypothesisTriple, gold: EntailmentLabel, photograph: Photograph, number: int, seed: int
) -> dict[str, object]:
    place = number % PER_SCENE
    premise = caption_scene(photograph.scene, stream(seed, "captions", photograph.name))[place][1]
    caption = f"{photograph.name}.jpg#{place}"
    return {
        "Flickr30K_ID": photograph.name,
        "annotator_labels": [gold],
        "captionID": caption,
        "gold_label": gold,
        "pairID": f"{caption}r{number}{gold[0]}",
        "sentence1": premise,
        "sentence1_binary_parse": _nested(premise),
        "sentence1_parse": _flat(premise),
        "sentence2": triple.sentence,
        "sentence2_binary_parse": _nested(triple.sentence),
        "sentence2_parse": _flat(triple.sentence),
        "kind": triple.hypothesis.kind,
    }


def _nested(sentence: str) -> str:
    """The sentence as a right-branching binary tree: the format of a parse, without a grammar."""
    *before, last = sentence.split()
    return " ".join(f"( {word}" for word in before) + f" {last}" + " )" * len(before)


def _flat(sentence: str) -> str:
    return f"(ROOT (S {sentence}))"
