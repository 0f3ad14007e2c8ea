import pytest

from vlbench.core.errors import CoverageError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.results import Prediction
from vlbench.metrics.accuracy import accuracy, consistency


def example(name, label, group):
    return Example(name, Query((), "text"), Label(label), group)


EXAMPLES = [
    example("a0", "True", "a"),
    example("a1", "False", "a"),
    example("b0", "True", "b"),
    example("b1", "True", "b"),
    example("c0", "False", "c"),
]
PREDICTIONS = [
    Prediction("c0", "false"),
    Prediction("b1", "False"),
    Prediction("b0", "TRUE"),
    Prediction("a1", "False"),
    Prediction("a0", "true"),
]


def test_accuracy_counts_examples():
    score = accuracy(PREDICTIONS, EXAMPLES)
    assert (score.name, score.value, score.n) == ("accuracy", 80.0, 5)
    assert score.per_example == {"a0": 1, "a1": 1, "b0": 1, "b1": 0, "c0": 1}
    assert score.ci95 is not None and score.ci95[0] < 80 < score.ci95[1]
    assert "3 groups" in score.method


def test_consistency_counts_groups_that_are_right_throughout():
    score = consistency(PREDICTIONS, EXAMPLES)
    assert (score.value, score.n) == (pytest.approx(200 / 3), 3)
    assert score.per_example == {"a": 1, "b": 0, "c": 1}


def test_a_failed_prediction_is_wrong_whatever_it_says():
    failed = [*PREDICTIONS[:-1], Prediction("a0", "True", status="error")]
    assert accuracy(failed, EXAMPLES).value == 60.0
    assert consistency(failed, EXAMPLES).per_example["a"] == 0


def test_order_does_not_matter():
    assert accuracy(PREDICTIONS[::-1], EXAMPLES[::-1]) == accuracy(PREDICTIONS, EXAMPLES)
    assert consistency(PREDICTIONS[::-1], EXAMPLES[::-1]) == consistency(PREDICTIONS, EXAMPLES)


def test_one_group_has_no_interval():
    score = accuracy(PREDICTIONS[3:], EXAMPLES[:2])
    assert (score.value, score.stderr, score.ci95, score.method) == (100.0, None, None, "")


@pytest.mark.parametrize("metric", [accuracy, consistency])
@pytest.mark.parametrize("predictions", [PREDICTIONS[1:], [*PREDICTIONS, PREDICTIONS[0]]])
def test_ids_must_match(metric, predictions):
    with pytest.raises(CoverageError):
        metric(predictions, EXAMPLES)


def test_the_example_in_the_text():
    import doctest

    from vlbench.metrics import accuracy as module

    result = doctest.testmod(module)
    assert result.attempted and not result.failed
