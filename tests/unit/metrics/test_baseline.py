from pathlib import Path

import pytest

from vlbench.core.errors import CoverageError
from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.metrics.accuracy import accuracy
from vlbench.metrics.baseline import majority, slice_majorities


def examples(*labels: str, kinds: str = "") -> list[Example[Label]]:
    tags = [{"kind": kind} for kind in kinds] or [{}] * len(labels)
    return [Example(str(row), Query((), ""), Label(label), "", tags[row]) for row, label in enumerate(labels)]


def test_majority_is_what_the_most_frequent_label_scores():
    assert majority(accuracy, examples("True", "False", "True", "True", "False")) == 60.0


def test_each_slice_has_a_majority_of_its_own():
    split = examples("a", "b", "b", "c", "c", "c", kinds="xxxyyy")
    assert slice_majorities(accuracy, ["kind", "absent"], split) == {"kind": {"x": pytest.approx(200 / 3), "y": 100.0}}


def test_a_tag_that_is_the_answer_has_no_majority():
    assert slice_majorities(accuracy, ["kind"], examples("a", "a", "b", kinds="aab")) == {}


def test_a_gallery_has_no_majority():
    caption = Example("1", Query((ImageRef(Path("a"), "a"),), "a cat"), Caption("a"), "a", {"kind": "x"})
    assert majority(accuracy, [caption]) is None
    assert slice_majorities(accuracy, ["kind"], [caption]) == {}


def test_no_examples_have_no_majority():
    with pytest.raises(CoverageError, match="no examples"):
        majority(accuracy, [])
