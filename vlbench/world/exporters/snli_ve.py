"""Export the world as SNLI-VE: every sentence goes with three pictures, entailed, neutral and contradicted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from vlbench.core.domain import Domain
from vlbench.world.language.captions import PER_SCENE, captions
from vlbench.world.language.hypotheses import LABELS, Hypothesis, Kind, Label, draw_hypothesis, label, say
from vlbench.world.progress import Progress, counted
from vlbench.world.rng import below, shuffled, stream
from vlbench.world.scenes.pools import Photograph, photographs
from vlbench.world.scenes.scene import Scene, Split

TASK = "snli_ve"
TASK_SPLITS: dict[Split, str] = {"train": "train", "dev": "dev", "test1": "test"}
"""The official names; what the world keeps in `test2` has no place in them."""
SHARES: dict[Kind, int] = {"colour": 26, "shape": 22, "size": 16, "place": 12, "relation": 12, "count": 12}
"""Percent of the sentences: more of what one match of word and thing decides."""
PER_PHOTOGRAPH: dict[Split, float] = {"train": 0.8, "dev": 0.3, "test1": 0.95}
"""Sentences, three lines each."""

_DRAWS, _TRIES = 100, 200


@dataclass(frozen=True, slots=True)
class Triple:
    """A hypothesis, its sentence, and a photograph for each label."""

    hypothesis: Hypothesis
    sentence: str
    photographs: Mapping[Label, Photograph]


def make_triples(split: Split, photos: Sequence[Photograph], seed: int) -> Iterator[Triple]:
    """The sentences of a split, each kind with its share; every photograph is as likely as the others."""
    count = round(PER_PHOTOGRAPH[split] * len(photos))
    deck = [kind for kind, share in SHARES.items() for _ in range(share)]
    kinds = shuffled(stream(seed, TASK, split), [deck[n * len(deck) // count] for n in range(count)])
    for number, kind in enumerate(kinds):
        triple = _make_triple(kind, photos, stream(seed, TASK, split, number))
        if triple is not None:
            yield triple


def _make_triple(kind: Kind, photos: Sequence[Photograph], rng: Random) -> Triple | None:
    """Draw hypotheses until one finds a photograph for each label; None where a few photographs have none."""
    for _ in range(_DRAWS):
        hypothesis = draw_hypothesis(kind, rng)
        found: dict[Label, Photograph] = {}
        for _ in range(_TRIES):
            photograph = photos[below(rng, len(photos))]
            said = label(hypothesis, photograph.scene)
            if said is not None:
                found.setdefault(said, photograph)
            if len(found) == len(LABELS):
                return Triple(hypothesis, say(hypothesis, rng), found)
    return None


def export(
    folder: Path, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> dict[str, int]:
    """Write the task's files to its folder; how many examples each split has, under the task card's names."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    photos = photographs("flickr30k", scenes, seed)
    for split, name in TASK_SPLITS.items():
        total = round(PER_PHOTOGRAPH[split] * len(photos[split]))
        triples = counted(make_triples(split, photos[split], seed), total, f"hypotheses of {TASK}, {name}", progress)
        lines = [json.dumps(line) + "\n" for line in _lines(triples, seed)]
        (folder / f"snli_ve_{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
        counts[name] = len(lines)
    return counts


def _lines(triples: Iterator[Triple], seed: int) -> Iterator[dict[str, object]]:
    """Three lines per sentence, the labels in an order that says nothing."""
    said_of: Counter[str] = Counter()
    for triple in triples:
        for gold in shuffled(stream(seed, TASK, triple.sentence, len(said_of)), LABELS):
            photograph = triple.photographs[gold]
            said_of[photograph.name] += 1
            yield _line(triple, gold, photograph, said_of[photograph.name], seed)


def _line(triple: Triple, gold: Label, photograph: Photograph, number: int, seed: int) -> dict[str, object]:
    place = number % PER_SCENE
    premise = captions(photograph.scene, stream(seed, "captions", photograph.name))[place][1]
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
    """The words in brackets two by two, from the right: the format's shape without a grammar."""
    *before, last = sentence.split()
    return " ".join(f"( {word}" for word in before) + f" {last}" + " )" * len(before)


def _flat(sentence: str) -> str:
    return f"(ROOT (S {sentence}))"
