"""The head of given weights is matched to the task's answers by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlbench.core.backbone import PretrainedWeights
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.record import LoadReport
from vlbench.engine.learner import Learner
from vlbench.engine.weights.answer_vocabulary import answerable, match_spelling
from vlbench.engine.weights.files import holds_linear
from vlbench.engine.weights.pretrained_loading import load_pretrained
from vlbench.heads.classify import ClassifyHead, classifier

GIVEN = ("Yes", "no", "two")


class WithHead(nn.Module):
    """A backbone that comes with a classifier over three answers."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.theirs = classifier(4, 8, 3, HeadLayout())

    def load_pretrained(self) -> PretrainedWeights:
        head: dict[str, Tensor] = {f"classifier.{name}": value for name, value in self.theirs.state_dict().items()}
        return PretrainedWeights(LoadReport(matched=5, missing=0, unexpected=0), head)


def learner(labels: tuple[str, ...]) -> Any:
    return Learner(WithHead(), ClassifyHead(4, labels, HeadLayout()))  # type: ignore[arg-type]


def test_rows_are_matched_to_answers() -> None:
    ours = learner(("two", "maybe", "yes"))
    report = load_pretrained(ours, ours.head.labels, GIVEN, with_head=False, name="m")
    own, theirs = ours.head.classifier, ours.backbone.theirs
    assert torch.equal(own[3].weight[0], theirs[3].weight[2]) and torch.equal(own[3].weight[2], theirs[3].weight[0])
    assert not own[3].weight[1].any() and own[3].bias[1] == 0
    assert torch.equal(own[0].weight, theirs[0].weight)
    assert (report.matched, report.missing, report.unmatched_answers) == (5 + 6, 0, 1)


@pytest.mark.parametrize("given", [(), ("left", "right", "up")])
def test_rows_of_other_answers_are_not_used(given: tuple[str, ...]) -> None:
    ours = learner(("yes", "no"))
    before = {name: value.clone() for name, value in ours.head.state_dict().items()}
    report = load_pretrained(ours, ours.head.labels, given, with_head=False, name="m")
    assert all(torch.equal(value, before[name]) for name, value in ours.head.state_dict().items())
    assert (report.matched, report.missing) == (5, 6)
    with pytest.raises(VlbenchError, match="the head of m is not the one its") as caught:
        load_pretrained(ours, ours.head.labels, given, with_head=True, name="m")
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_a_model_without_weights() -> None:
    bare = Learner(nn.Linear(1, 1), ClassifyHead(4, ("a", "b"), HeadLayout()))  # type: ignore[arg-type]
    with pytest.raises(VlbenchError, match="m has no weights of its own"):
        load_pretrained(bare, (), (), with_head=False, name="m")


def test_spelling() -> None:
    assert match_spelling(["yes", "NO", "three"], GIVEN) == ["Yes", "no", "three"]
    assert match_spelling(["yes", "Yes"], ["Yes", "yes"]) == ["yes", "Yes"]  # where both are there, each is itself


def test_answers_that_a_head_can_give() -> None:
    kept, notes = answerable(("yes", "no", "three"), GIVEN, "m")
    assert kept == ("yes", "no")
    assert notes == (
        "1 of 3 answers have no row in the head: three",
        "1 of the head's 3 rows stand for no answer here: two",
    )
    assert answerable(("no", "yes"), ("yes", "no"), "m") == (("no", "yes"), ())


@pytest.mark.parametrize(
    ("given", "says"), [(GIVEN, "its rows stand for Yes, no, two"), ((), "its config.json names no answers")]
)
def test_a_head_for_something_else(given: tuple[str, ...], says: str) -> None:
    with pytest.raises(VlbenchError, match=f"the head of m answers 0 of the task's 2 answers.*{says}") as caught:
        answerable(("entailment", "neutral"), given, "m")
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_a_linear_head_is_recognised_by_its_names(tmp_path: Path) -> None:
    for name, hidden in (("linear", 0), ("deep", 8)):
        layers = classifier(4, hidden, 2, HeadLayout()).state_dict()
        save_file({f"head.classifier.{key}": value for key, value in layers.items()}, tmp_path / f"{name}.safetensors")
    save_file({"head.score.weight": torch.zeros(1, 4)}, tmp_path / "rank.safetensors")
    found = [holds_linear(tmp_path / f"{name}.safetensors") for name in ("linear", "deep", "rank")]
    assert found == [True, False, False] and not holds_linear(tmp_path / "x.bin")
