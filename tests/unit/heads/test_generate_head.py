"""Answers in words: one prompt for all pictures of an example, unparsed where the rule finds nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vlbench.core.backbone import Generator, Textual, Visual
from vlbench.core.errors import VlbenchError
from vlbench.heads.generate import LONGEST, GenerateHead


class Writer:
    """Writes what it is told to, and keeps what it was shown."""

    def __init__(self, *written: str, likelihoods: Tensor | None = None) -> None:
        self.written, self.likelihoods = list(written), likelihoods
        self.shown: list[tuple[Visual, Textual]] = []

    def generate(self, seen: Visual, read: Textual, longest: int) -> list[str]:
        assert longest == LONGEST
        self.shown.append((seen, read))
        return self.written

    def likelihood(self, seen: Visual, read: Textual, candidates: Sequence[str]) -> Tensor:
        self.shown.append((seen, read))
        assert self.likelihoods is not None
        return self.likelihoods


def shown(pairs: int) -> tuple[Visual, Textual]:
    """Two tokens of each picture and three of each text, told apart by their numbers."""
    seen = torch.arange(pairs * 2.0).reshape(pairs, 2, 1)
    read = torch.arange(pairs * 3.0).reshape(pairs, 3, 1)
    return Visual(seen, torch.ones(pairs, 2, dtype=torch.bool)), Textual(read, torch.ones(pairs, 3, dtype=torch.bool))


def test_what_is_written_becomes_an_answer() -> None:
    writer = Writer("Answer: Red.", " ")
    assert isinstance(writer, Generator)
    one, other = GenerateHead("short_answer", (), (), 1).answer(writer, *shown(2), ["a", "b"])
    assert (one.example_id, one.answer, one.status, one.text) == ("a", "red", "ok", "Answer: Red.")
    assert (other.example_id, other.answer, other.status, other.text) == ("b", "", "unparsed", " ")


def test_pictures_of_an_example_lie_side_by_side_under_one_text() -> None:
    writer = Writer("true", "false")
    GenerateHead("named_label", ("False", "True"), (), 2).answer(writer, *shown(4), ["a", "b"])
    ((seen, read),) = writer.shown
    assert seen.states[:, :, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and seen.mask.shape == (2, 4)
    assert read.states[:, :, 0].tolist() == [[0, 1, 2], [6, 7, 8]]


def test_candidates_are_ranked_by_likelihood() -> None:
    writer = Writer(likelihoods=torch.tensor([[-3.0, -1.0, -2.0], [-1.0, -1.0, -9.0]]))
    one, other = GenerateHead("verbatim", (), ("red", "blue", "2"), 1).answer(writer, *shown(2), ["a", "b"])
    assert (one.answer, list(one.scores)) == ("blue", ["blue", "2", "red"])
    assert sum(one.scores.values()) == pytest.approx(1)
    assert other.answer == "red" and other.text == ""


def test_a_likelihood_that_is_no_number_is_named() -> None:
    writer = Writer(likelihoods=torch.tensor([[float("nan"), 0.0]]))
    with pytest.raises(VlbenchError, match="'a'"):
        GenerateHead("verbatim", (), ("x", "y"), 1).answer(writer, *shown(1), ["a"])
