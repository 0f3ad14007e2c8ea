"""Generated answers: one prompt for all images of an example, unparsed where the rule finds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from vlbench import catalog
from vlbench.core.backbone import Generator, Tensors
from vlbench.core.cards import TaskCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Prompt, Query
from vlbench.core.progress import Silent
from vlbench.core.results import Prediction
from vlbench.engine.evaluators.generation import ModelBackend, generate
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.heads.generate import LONGEST, GenerateHead


class FakeGenerator:
    """Generates the texts that it is given."""

    width = 1

    def __init__(self, *texts: str, likelihoods: Tensor | None = None) -> None:
        self.generated, self.likelihoods = list(texts), likelihoods

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        return {}

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        assert longest == LONGEST
        return self.generated

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        assert self.likelihoods is not None
        return self.likelihoods

    def nll(self, answered: Tensors) -> Tensor:
        return torch.zeros(0)

    def states(self, prompts: Tensors) -> Tensor:
        return torch.zeros(0, 1)


def card(**changes: object) -> TaskCard:
    return catalog.task_card("vqa2").model_copy(update=changes)


def example(label: str, text: str = "Two dogs.") -> Example[Label]:
    images = tuple(ImageRef(Path(key), key) for key in ("left", "right"))
    return Example("a", Query(images, text), Label(label), "a")


def answers(head: GenerateHead, model: FakeGenerator, n: int) -> list[Prediction]:
    """The predictions for so many examples, named a, b, ..."""
    examples = [replace(example(""), id=name) for name in "abc"[:n]]
    pace = Pace(Accelerator(cpu=True), 4, 0, Silent(), Interrupt(), "predicting")
    return generate(ModelBackend(model, torch.device("cpu")), head, examples, pace)[0]


def test_a_generated_text_becomes_an_answer() -> None:
    model = FakeGenerator("Answer: Red.", " ")
    assert isinstance(model, Generator)
    first, second = answers(GenerateHead(card(extraction="short_answer")), model, 2)
    assert (first.example_id, first.answer, first.status, first.text) == ("a", "red", "ok", "Answer: Red.")
    assert (second.example_id, second.answer, second.status, second.text) == ("b", "", "unparsed", " ")


def test_candidates_are_ranked_by_likelihood() -> None:
    model = FakeGenerator(likelihoods=torch.tensor([[-3.0, -1.0, -2.0], [-1.0, -1.0, -9.0]]))
    first, second = answers(GenerateHead(card(), ("red", "blue", "2")), model, 2)
    assert (first.answer, list(first.scores)) == ("blue", ["blue", "2", "red"])
    assert sum(first.scores.values()) == pytest.approx(1)
    assert second.answer == "red" and second.text == ""


def test_an_example_with_a_nan_likelihood_is_named() -> None:
    model = FakeGenerator(likelihoods=torch.tensor([[float("nan"), 0.0]]))
    with pytest.raises(VlbenchError, match="'a'"):
        answers(GenerateHead(card(), ("x", "y")), model, 1)


def test_a_prompt_holds_all_images_and_the_shots() -> None:
    head = GenerateHead(card(prompt="{text} True or False?"), shots=[example("True", "One cat.")])
    prompt = head.inputs.prompt(example("False").query)
    assert prompt.query.text == "Two dogs. True or False?"
    assert [(shot.query.text, shot.answer) for shot in prompt.shots] == [("One cat. True or False?", "True")]
    assert [ref.key for ref in prompt.images] == ["left", "right", "left", "right"]


def test_the_learned_answer_is_the_consensus() -> None:
    assert GenerateHead(card()).target(example("True")) == "True"
    with pytest.raises(DataError, match="'a' has no answer to learn from"):
        GenerateHead(card()).target(example(""))
