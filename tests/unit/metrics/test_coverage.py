import pytest

from vlbench.core.errors import CoverageError, ExitCode
from vlbench.core.examples import Example, Label, Query
from vlbench.core.record import Coverage
from vlbench.core.results import Prediction
from vlbench.metrics.coverage import leave_out, match

EXAMPLES = [Example(f"e{number}", Query((), ""), Label("True"), "g") for number in range(8)]
PREDICTIONS = [Prediction(example.id, "true") for example in EXAMPLES]


def test_full_coverage_is_counted():
    others = [Prediction("e7", "", status="error"), *(Prediction(f"e{n}", "", status="unparsed") for n in (5, 6))]
    counted = match([*PREDICTIONS[:-3], *others], EXAMPLES, ("False", "True"))
    assert counted == Coverage(expected=8, scored=8, errors=1, unparsed=2)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (PREDICTIONS[:2], r"8 examples one to one: 6 missing \(e2, e3, e4, e5, e6 and 1 more\)"),
        ([*PREDICTIONS, PREDICTIONS[3]], r"one to one: 1 duplicate \(e3\)"),
        ([*PREDICTIONS, Prediction("x", "true")], r"one to one: 1 extra \(x\)"),
        (
            [*PREDICTIONS[:-1], Prediction("e7", "maybe")],
            r"one to one: 1 answered with none of False, True \(e7: 'maybe'\)",
        ),
        (
            [*PREDICTIONS[1:], PREDICTIONS[1], Prediction("x", "")],
            r"1 missing \(e0\), 1 duplicate \(e1\), 1 extra \(x\), 1 answered with none of False, True \(x: ''\)",
        ),
    ],
)
def test_faults_are_named_and_counted(predictions, message):
    with pytest.raises(CoverageError, match=message) as caught:
        match(predictions, EXAMPLES, ("False", "True"))
    assert caught.value.exit_code == ExitCode.COVERAGE


def test_missing_ones_can_be_allowed_but_nothing_else():
    assert match(PREDICTIONS[2:], EXAMPLES, allow_missing=True) == Coverage(expected=8, scored=6, missing=2)
    with pytest.raises(CoverageError, match="1 duplicate"):
        match([*PREDICTIONS[2:], PREDICTIONS[2]], EXAMPLES, allow_missing=True)


def test_without_labels_any_answer_goes():
    assert match([Prediction(example.id, "a red bus") for example in EXAMPLES], EXAMPLES).scored == 8


def test_nothing_to_score_is_an_error():
    with pytest.raises(CoverageError, match="no examples"):
        match([], [])


def test_predictions_of_a_larger_split_are_left_out_and_others_stay():
    others = [Prediction(name, "true") for name in ("m1", "m2", "l1", "nowhere")]
    asked = []

    def larger():
        for split, ids in (("middle", {"e0", "m1", "m2"}), ("large", {"m1", "l1"}), ("largest", {"nothing"})):
            asked.append(split)
            yield split, ids

    kept, notes = leave_out([*PREDICTIONS, *others], EXAMPLES, larger())
    assert kept == [*PREDICTIONS, others[-1]]
    said = "were left out: they answer no example of this split"
    assert notes == (f"2 predictions of middle {said}", f"1 predictions of large {said}")
    with pytest.raises(CoverageError, match=r"1 extra \(nowhere\)"):
        match(kept, EXAMPLES)
    asked.clear()
    assert leave_out(PREDICTIONS[:3], EXAMPLES, larger()) == (PREDICTIONS[:3], ()) and asked == []
    leave_out([*PREDICTIONS, others[0]], EXAMPLES, larger())
    assert asked == ["middle"]
