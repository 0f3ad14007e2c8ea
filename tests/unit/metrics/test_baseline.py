import pytest

from vlbench.core.errors import CoverageError
from vlbench.core.examples import Example, Label, Query
from vlbench.metrics.baseline import majority


def test_majority_is_the_share_of_the_most_frequent_label():
    labels = ["True", "False", "True", "True", "False"]
    examples = [Example(str(number), Query((), ""), Label(label), "") for number, label in enumerate(labels)]
    assert majority(examples) == 60.0


def test_no_examples_have_no_majority():
    with pytest.raises(CoverageError, match="no examples"):
        majority([])
