"""Hypotheses: the solver knows every label, and no sentence says which it is."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

import pytest

from vlbench.world.exporters.snli_ve import SHARES, make_triples
from vlbench.world.language.hypotheses import (
    ENTAILMENT_LABELS,
    TEMPLATES,
    Hypothesis,
    draw_hypothesis,
    label_hypothesis,
    phrase_hypothesis,
)
from vlbench.world.language.statements import Look
from vlbench.world.rng import stream
from vlbench.world.scenes.pools import collect_photographs
from vlbench.world.scenes.scene import SPLITS, Scene, Thing, make_scenes

WORDS = set((resources.files("vlbench.world") / "vocab.txt").read_text().split())
SCENES = {split: make_scenes(split, 800, seed=3) for split in SPLITS}
TRIPLES = list(make_triples("train", collect_photographs("flickr30k", SCENES, 3)["train"], seed=3))
KEYS = {
    "Flickr30K_ID", "annotator_labels", "captionID", "gold_label", "pairID", "sentence1", "sentence1_parse",
    "sentence1_binary_parse", "sentence2", "sentence2_parse", "sentence2_binary_parse", "kind",
}  # fmt: skip


def thing(shape: str, colour: str, size: str, row: int, column: int) -> Thing:
    return Thing(shape, colour, size, (row, column), (0, 0, 8, 8))  # type: ignore[arg-type]


RED = [thing("circle", "red", "big", 0, 0), thing("circle", "red", "small", 1, 1)]
BLUE = [thing("square", "blue", "small", 2, 2)]


@pytest.mark.parametrize(
    ("hypothesis", "things", "expected"),
    [
        (Hypothesis("colour", Look(shape="circle"), trait=Look(colour="red")), RED + BLUE, "entailment"),
        (Hypothesis("colour", Look(shape="circle"), trait=Look(colour="blue")), RED + BLUE, "contradiction"),
        (Hypothesis("colour", Look(shape="triangle"), trait=Look(colour="blue")), RED + BLUE, "neutral"),
        (Hypothesis("size", Look(shape="circle"), trait=Look(size="big")), RED + BLUE, None),
        (Hypothesis("count", Look(colour="red"), number=2), RED + BLUE, "entailment"),
        (Hypothesis("count", Look(colour="red"), number=1), RED + BLUE, "contradiction"),
        (Hypothesis("count", Look(colour="green"), number=1), RED + BLUE, "neutral"),
        (Hypothesis("place", Look(shape="square"), place="bottom row"), RED + BLUE, "entailment"),
        (Hypothesis("place", Look(shape="circle"), place="centre"), RED + BLUE, None),
        (Hypothesis("relation", Look(shape="circle"), other=Look(colour="blue"), direction="above"), RED + BLUE,
         "entailment"),
        (Hypothesis("relation", Look(shape="circle"), other=Look(colour="blue"), direction="below"), RED + BLUE,
         "contradiction"),
        (Hypothesis("relation", Look(shape="circle"), other=Look(colour="green"), direction="below"), RED + BLUE,
         "neutral"),
    ],
)  # fmt: skip
def test_the_solver(hypothesis: Hypothesis, things: list[Thing], expected: str | None) -> None:
    assert label_hypothesis(hypothesis, Scene("s", tuple(things))) == expected


def test_the_solver_knows_every_label() -> None:
    for triple in TRIPLES:
        assert triple.photographs.keys() == set(ENTAILMENT_LABELS)
        assert {gold: label_hypothesis(triple.hypothesis, one.scene) for gold, one in triple.photographs.items()} == {
            gold: gold for gold in ENTAILMENT_LABELS
        }


def test_kinds_have_their_shares() -> None:
    counts = Counter(triple.hypothesis.kind for triple in TRIPLES)
    for kind, share in SHARES.items():
        assert counts[kind] == pytest.approx(share * len(TRIPLES) / 100, abs=2)


def test_words_and_wordings() -> None:
    rng = stream("test")
    for kind in TEMPLATES:
        assert len(TEMPLATES[kind]) >= 5
        for _ in range(200):
            sentence = phrase_hypothesis(draw_hypothesis(kind, rng), rng)
            assert set(re.findall(r"\w+|[^\w\s]", sentence.lower())) <= WORDS, sentence


def test_the_official_keys_and_an_exact_balance(tiny_world: Path) -> None:
    for split in ("train", "dev", "test"):
        lines = [
            json.loads(line) for line in (tiny_world / "snli_ve" / f"snli_ve_{split}.jsonl").read_text().splitlines()
        ]
        assert all(line.keys() == KEYS for line in lines)
        assert len({line["pairID"] for line in lines}) == len(lines)
        for line in lines:
            assert re.fullmatch(rf"{line['Flickr30K_ID']}\.jpg#[0-4]r\d+{line['gold_label'][0]}", line["pairID"])
            assert line["pairID"].startswith(line["captionID"])
        said: dict[str, Counter[str]] = defaultdict(Counter)
        for line in lines:
            said[line["sentence2"]][line["gold_label"]] += 1
        assert all(
            len(set(counts.values())) == 1 and counts.keys() == set(ENTAILMENT_LABELS) for counts in said.values()
        )
