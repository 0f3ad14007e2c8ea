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
