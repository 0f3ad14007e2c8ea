"""The shots of a generative model, and when a model generates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.modes import Mode
from vlbench.core.spec import RunSpec
from vlbench.data.text.answers import write_answers
from vlbench.engine.capabilities import EvaluatorKind, evaluator_for
from vlbench.engine.job import Job
from vlbench.engine.limit import draw_shots


def examples(*labels: str) -> list[Example[Label]]:
    return [Example(str(row), Query((), "?"), Label(label), str(row)) for row, label in enumerate(labels)]


def spec(shots: int, seed: int = 0) -> RunSpec:
    return RunSpec(task="nlvr2", model="fake", num_fewshot=shots, seed=seed, train_split="train")


def test_shots_are_drawn_by_the_seed_among_those_with_an_answer() -> None:
    train = examples(*("yes" if row % 2 else "" for row in range(40)))
    drawn = [[shot.id for shot in draw_shots(spec(5, seed), train)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5 and all(int(id_) % 2 for id_ in drawn[0])
    assert draw_shots(spec(0), train) == ()


def test_too_few_answered_examples() -> None:
    with pytest.raises(VlbenchError, match="--num-fewshot 3 is more than the 2 examples of 'train' that have"):
        draw_shots(spec(3), examples("yes", "", "no"))


@pytest.mark.parametrize(
    ("outputs", "task", "mode", "generates"),
    [
        (("classify", "generate"), "vqa2", "zero-shot", True),
        (("classify", "generate"), "vqa2", "finetune", False),
        (("generate",), "vqa2", "finetune", True),
        (("generate",), "vqa2", "eval", True),
        (("generate",), "vqa2", "probe", False),
        (("rank", "generate"), "coco_retrieval", "eval", False),
    ],
)
def test_a_model_generates_where_no_head_of_its_own_answers(
    outputs: tuple[str, ...], task: str, mode: Mode, generates: bool
) -> None:
    card = catalog.model_card("fake").model_copy(update={"outputs": outputs})
    kind = evaluator_for(RunSpec(task=task, model="fake", mode=mode), card, catalog.task_card(task))
    assert isinstance(kind, EvaluatorKind) and kind.generates == generates


def test_a_linear_head_on_the_weights_answers_instead() -> None:
    card = catalog.model_card("fake").model_copy(update={"outputs": ("generate",)})
    spec, task = RunSpec(task="vqa2", model="fake", mode="eval"), catalog.task_card("vqa2")
    assert evaluator_for(spec, card, task) is EvaluatorKind.GENERATION
    assert evaluator_for(spec, card, task, linear_head=True) is EvaluatorKind.CLASSIFICATION


def test_shots_come_from_the_train_split_and_are_not_trained_on(make_job: Callable[..., Job]) -> None:
    job = make_job(model="fake", mode="zero-shot", num_fewshot=3)
    assert len(job.shots) == 3 and job.spec.train_split == "train" and not job.train
    known = {example.id for example in job.task.load("train")}
    assert {shot.id for shot in job.shots} <= known and job.spec.eval_batch_size == 8
    assert make_job(model="fake", mode="zero-shot").spec.train_split == "none"


@pytest.mark.parametrize(("model", "mode"), [("fake", "finetune"), ("cvlp", "finetune")])
def test_shots_are_for_untrained_generative_models(make_job: Callable[..., Job], model: str, mode: str) -> None:
    with pytest.raises(VlbenchError, match="--num-fewshot 2 is for a generative model zero-shot"):
        make_job(model=model, mode=mode, num_fewshot=2)


def test_shots_are_none_of_the_reported_examples(make_job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match=r"shares .* examples with 'train'"):
        make_job(model="fake", mode="zero-shot", num_fewshot=2, split="train")


def test_a_given_list_is_chosen_from(make_job: Callable[..., Job], tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.json", ("red", "blue"))
    fields = {"task": "vqa2", "model": "fake", "mode": "zero-shot"}
    job = make_job(**fields, answers=tmp_path / "answers.json")
    assert (job.spec.answer_by, job.labels) == ("candidates", ("red", "blue"))
    job = make_job(**fields)
    assert (job.spec.answer_by, job.labels) == ("text", ())
    with pytest.raises(VlbenchError, match=r"--answer-by text does not choose from a list, and --answers .* is one"):
        make_job(**fields, answers=tmp_path / "answers.json", answer_by="text")
