"""What a task card may say about its splits."""

import pytest

from vlbench.core.cards import TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.validate import parse

TEXTS = ("title", "description", "homepage", "licence", "citation")


def card(**within: str) -> TaskCard:
    splits = {name: {"files": {}, "within": within.get(name, "")} for name in ("train", "dev", "part", "piece")}
    values = {
        **dict.fromkeys(TEXTS, ""), "name": "toy", "version": 1, "output": "classify", "images_per_example": 1,
        "metrics": {"accuracy": "a:b"}, "main_metric": "accuracy", "splits": splits, "train_split": "train",
        "select_on": "dev", "report_split": "dev",
    }  # fmt: skip
    return parse(TaskCard, values, "the card")


def test_larger_splits_are_followed_to_the_largest():
    toy = card(part="dev", piece="part")
    assert toy.larger_splits("piece") == ("part", "dev")
    assert toy.larger_splits("part") == ("dev",) and toy.larger_splits("dev") == ()


@pytest.mark.parametrize(
    ("within", "message"),
    [
        ({"part": "nowhere"}, "split 'nowhere' is not among the card's splits"),
        ({"part": "part"}, "split 'part' is within itself"),
        ({"part": "piece", "piece": "part"}, "is within itself by way of"),
    ],
)
def test_a_larger_split_must_be_another_one_of_the_card(within, message):
    with pytest.raises(VlbenchError, match=message):
        card(**within)
