"""Faults in cards and specs: all at once, with the near miss."""

from __future__ import annotations

import pytest

from vlbench.core.cards import Download
from vlbench.core.errors import VlbenchError, first_five, unknown
from vlbench.core.spec import RunSpec
from vlbench.core.validate import parse


def test_all_faults_in_one_sentence() -> None:
    with pytest.raises(VlbenchError) as caught:
        parse(
            RunSpec, {"task": "a", "model": "b", "sead": 1, "train": {"learning": 1, "lr": -1}, "limit": 0}, "run.yaml"
        )
    message = caught.value.message
    assert message.startswith("run.yaml: ")
    assert "unknown key 'sead', did you mean 'seed'?" in message
    assert "train.lr is -1" in message
    assert "limit is 0" in message
    assert "\n" not in message


def test_near_miss_below_the_top() -> None:
    with pytest.raises(VlbenchError, match=r"'train.epocs', did you mean 'epochs'"):
        parse(RunSpec, {"task": "a", "model": "b", "train": {"epocs": 1}}, "flags")


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ({"batchsize": 4}, "train.batch_size"),  # not eval_batch_size
        ({"weight_decay": 0.1}, "train.weight_decay"),
        ({"epoch": 1}, "train.epochs"),
        ({"train": {"seed": 1}}, "seed"),
        ({"train": {"lrr": 1}}, "lr"),
        ({"log": "wandb"}, "log_with"),
        ({"eval_batchsize": 4}, "eval_batch_size"),
    ],
)
def test_the_nearest_key_is_one_that_works(values: dict[str, object], near: str) -> None:
    with pytest.raises(VlbenchError, match=rf"did you mean '{near}'\?"):
        parse(RunSpec, {"task": "a", "model": "b", **values}, "run.yaml")


def test_a_key_like_no_other_has_no_near_miss() -> None:
    with pytest.raises(VlbenchError, match=r"unknown key 'zzzzzz'$"):
        parse(RunSpec, {"task": "a", "model": "b", "zzzzzz": 1}, "run.yaml")


def test_a_bound_is_named_with_the_remedy() -> None:
    with pytest.raises(VlbenchError) as caught:
        parse(RunSpec, {"task": "a", "model": "b", "train": {"lr": 0}, "save_every": 0}, "run.yaml")
    assert "train.lr is 0: expected a number above 0, give a larger one" in caught.value.message
    assert "save_every is 0: expected a number of at least 1, give a larger one" in caught.value.message


def test_a_rule_of_several_fields_says_only_the_rule() -> None:
    with pytest.raises(VlbenchError, match=": give a url, or say under by_hand") as caught:
        parse(Download, {"gives": ["a"], "to": "b"}, "downloads.yaml")
    assert "Value error" not in caught.value.message


def test_unknown_names_the_nearest() -> None:
    assert "did you mean 'nlvr2'" in unknown("task", "nlvr3", ["nlvr2", "vqa2"]).message
    assert "known: nlvr2, vqa2" in unknown("task", "zzz", ["vqa2", "nlvr2"]).message


def test_first_five() -> None:
    assert first_five(["b", "a"]) == "a, b"
    assert first_five(str(n) for n in range(8)) == "0, 1, 2, 3, 4 and 3 more"
