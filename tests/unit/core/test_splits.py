from __future__ import annotations

import json

import pytest

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.record import TrainInfo
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined, split_tuple
from vlbench.core.validate import parse


def spec(train_split: object) -> RunSpec:
    return parse(RunSpec, {"task": "vqa2", "model": "fake", "train_split": train_split}, "run")


@pytest.mark.parametrize(
    "given", ["train,nominival", " train , nominival ", ["train", "nominival"], ("train,nominival",)]
)
def test_several_splits_are_spelled_in_several_ways(given: object) -> None:
    found = spec(given)
    assert found.train_split == ("train", "nominival")
    assert json.loads(found.model_dump_json())["train_split"] == ["train", "nominival"]
    assert RunSpec.model_validate_json(found.model_dump_json()) == found
    assert joined(found.train_split) == "train+nominival"


@pytest.mark.parametrize("given", ["train", ["train"], " train "])
def test_one_split_is_a_text_as_in_older_records(given: object) -> None:
    assert json.loads(spec(given).model_dump_json())["train_split"] == "train"
    values = {"recipe": {}, "train_split": "train", "selected_on": "dev", "steps": 1, "effective_batch": 1,
              "best_step": 1, "weights": "plain", "seed": 0}  # fmt: skip
    assert TrainInfo.model_validate(values).train_split == "train"


def test_no_split() -> None:
    assert (spec(None).train_split, spec("none").train_split) == (None, "none")
    assert (split_tuple(None), split_tuple("none"), joined(None)) == ((), (), "none")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("train,", "and one is empty"), ("", "and one is empty"), ([], "and one is empty"),
        ("train,train", "each split once"),
        (["train", "none"], "none by itself alone"), (3, "expected the name of a split"),
        ([["train"]], "expected the name of a split"), ({"train": 1}, "expected the name of a split"),
    ],
)  # fmt: skip
def test_faults_are_one_sentence(given: object, said: str) -> None:
    with pytest.raises(VlbenchError, match=rf"^run: train_split is .*{said}[^;]*$"):
        spec(given)


def test_a_recipe_takes_the_same_spellings() -> None:
    for given in ("train,val", ["train", "val"]):
        assert Recipe.model_validate({"train_splits": given}).train_splits == ("train", "val")
    assert Recipe.model_validate({"train_splits": "train"}).train_splits == ("train",)
    assert Recipe(train_splits=("a",)).merged(Recipe(lr=1.0)).train_splits == ("a",)
