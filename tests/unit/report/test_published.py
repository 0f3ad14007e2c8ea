from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vlbench import __version__, catalog
from vlbench.core.cards import Recipe
from vlbench.core.record import LoadReport
from vlbench.records.collect import collect
from vlbench.records.folder import RunFolder, read_run
from vlbench.report.published.pages import TASKS, pages, reproduce_page
from vlbench.report.published.reproduction import expectations
from vlbench.report.published.results import PublishedRow, complexity, published, published_models
from vlbench.report.published.text import published_table
from vlbench.report.submit import SERVERS

DOCS = Path(__file__).resolve().parents[3] / "docs"


def figure(model: str, variant: str, task: str, split: str, metric: str) -> float:
    (value,) = {
        one.metrics[metric]
        for one in published(task, (split,))
        if (one.model.model, one.row.variant, one.row.protocol) == (model, variant, "finetune")
        and metric in one.metrics
    }
    return value


def test_figures_that_everybody_knows() -> None:
    assert figure("CVLP", "averaged weights", "nlvr2", "test-p", "accuracy") == 76.81
    assert figure("ViLT-B/32", "released checkpoints", "vqa2", "test-dev", "vqa_accuracy") == 71.32
    assert figure("UNITER", "base", "coco_retrieval", "test", "ir_r10") == 87.2
    assert {one.model: one.milliseconds for one in complexity().rows}["ViLT-B/32"] == 15


def test_every_figure_has_a_source_and_lies_where_it_can() -> None:
    for model in published_models():
        for row in model.rows:
            assert row.source and model.paper
            for task, splits in row.scores.items():
                card = catalog.task_card(task)
                for metrics in splits.values():
                    assert metrics.keys() <= card.metrics.keys(), (model.model, task)
                    assert all(0 < value <= 100 for value in metrics.values())


def test_recalls_rise_with_the_number_of_candidates() -> None:
    for task in ("coco_retrieval", "flickr30k_retrieval"):
        for one in published(task):
            for way in ("tr", "ir"):
                known = [one.metrics[f"{way}_r{k}"] for k in (1, 5, 10) if f"{way}_r{k}" in one.metrics]
                assert known == sorted(known), one.name


def test_no_figure_stands_twice_for_one_rerun() -> None:
    for task in TASKS:
        places = [
            (one.row.rerun.model, one.row.rerun.size, one.row.rerun.mode, one.split)
            for one in published(task)
            if one.row.rerun
        ]
        assert len(places) == len(set(places))
        for model, size, _, _ in places:
            assert model.startswith("hf:") or size in catalog.model_card(model).sizes


def test_committed_pages_are_what_the_files_say() -> None:
    for path, text in pages().items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, (
            f"{path}: run python -m vlbench.report.published.pages"
        )


def test_the_schema_names_faults() -> None:
    for changed in ({"confidence": "sure"}, {"scores": {"nlvr2": {"dev": "high"}}}, {"score": {}}):
        with pytest.raises(ValidationError):
            PublishedRow.model_validate({"variant": "", "source": "s", "confidence": "read", "scores": {}} | changed)


@pytest.mark.parametrize("markup", ["md", "html", "latex"])
def test_unverified_figures_are_marked(markup: Any) -> None:
    text = published_table("snli_ve", (), markup)
    assert "84.95 ?" in text and "78.28 ?" not in text and "78.28" in text


@pytest.fixture
def real(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """A base CVLP on real NLVR2 with so much right of 5,000."""

    def make(right: int, train: dict[str, object] | None = None, **spec: Any) -> Path:
        run = make_run(f"right{right}{len(spec)}", [1.0] * right + [0.0] * (5000 - right))
        record = read_run(run)
        assert record.train
        changed = {
            "model": record.model.model_copy(update={"size": "base"}),
            "task": record.task.model_copy(update={"source": "real"}),
            "spec": record.spec.model_copy(update=spec),
            "train": record.train.model_copy(
                update={"recipe": catalog.model_card("cvlp").recipe("nlvr2", "base")} | (train or {})
            ),
        }
        RunFolder(run).write_record(record.model_copy(update=changed))
        return run

    return make


@pytest.mark.parametrize(("right", "judgement"), [(3840, "reproduced"), (3500, "below"), (4200, "above")])
def test_measured_against_published(real: Callable[..., Path], right: int, judgement: str) -> None:
    (found,) = expectations(collect([real(right)]).runs, __version__, {})
    assert (found.judgement, found.published, found.measured) == (judgement, 76.81, pytest.approx(right / 50))
    cards = {task: catalog.task_card(task) for task in TASKS}
    page = reproduce_page(cards, collect([real(right, seed=1)]).runs, __version__)
    assert f"accuracy {judgement}: {right / 50:.2f} [" in page
    assert page.count("not yet run") == reproduce_page(cards, (), __version__).count("not yet run") - 1


@pytest.mark.parametrize(
    ("ends", "judgement"),
    [((73.8, 76.9), "reproduced"), ((70.0, 76.8), "below"), ((76.0, 80.0), "reproduced"), ((76.82, 90.0), "above")],
)
def test_a_lopsided_interval_is_not_widened(
    real: Callable[..., Path], ends: tuple[float, float], judgement: str
) -> None:
    """Published is 76.81; measured is 76.5 or what the interval lets it be."""
    run = real(3840)
    (result,) = read_run(run).results
    changed = result.model_copy(update={"value": min(max(76.5, ends[0]), ends[1]), "ci95": ends})
    RunFolder(run).write_record(read_run(run).model_copy(update={"results": (changed,)}))
    (found,) = expectations(collect([run]).runs, __version__, {})
    assert (found.judgement, found.low, found.high) == (judgement, *ends)


def test_other_protocols_worlds_and_limits_are_not_judged(
    real: Callable[..., Path], make_run: Callable[..., Path]
) -> None:
    reasons = [
        expectations(collect([run]).runs, __version__, {})[0].reason
        for run in (make_run("world", [1.0, 0.0]), real(3840, mode="zero-shot"))
    ]
    assert reasons[0].startswith("measured on the built-in world")
    assert reasons[1].startswith("no published result of this model")
    limited = real(3839)
    task = read_run(limited).task
    RunFolder(limited).write_record(
        read_run(limited).model_copy(update={"task": task.model_copy(update={"n_total": 6967, "limit": 5000.0})})
    )
    assert expectations(collect([limited]).runs, __version__, {})[0].reason.startswith("limited: 5,000 of 6,967")


USUAL = catalog.model_card("cvlp").recipe("nlvr2", "base")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"train": {"train_split": "dev"}}, "trained on dev, published with train"),
        (
            {"train": {"recipe": USUAL.merged(Recipe(steps=5, lr=0.1))}},
            "trained with lr 0.1, steps 5, unlike its recipe",
        ),
        ({"train": {"recipe": USUAL.merged(Recipe(accumulation=4))}}, ""),
        ({"rerank_k": 16}, "re-ranked the best 16"),
        ({"num_fewshot": 2}, "prompted with 2 examples"),
    ],
)
def test_what_was_done_otherwise_is_no_reproduction(
    real: Callable[..., Path], changed: dict[str, Any], reason: str
) -> None:
    (found,) = expectations(collect([real(3840, **changed)]).runs, __version__, {})
    assert found.judgement == ("not comparable" if reason else "reproduced")
    assert found.reason.startswith(reason) and found.published == 76.81


@pytest.mark.parametrize(("converted", "judgement"), [(0, "not comparable"), (200, "reproduced")])
def test_weights_made_here_are_not_the_released_ones(real: Callable[..., Path], converted: int, judgement: str) -> None:
    run = real(3840)
    record = read_run(run)
    loaded = LoadReport(matched=200, missing=0, unexpected=0, converted=converted)
    model = record.model.model_copy(update={"load_report": loaded})
    RunFolder(run).write_record(record.model_copy(update={"model": model}))
    assert [one.judgement for one in expectations(collect([run]).runs, __version__, {})] == [judgement]


def test_commands_of_hidden_splits_end_at_their_server() -> None:
    """What the page says can be handed in is what the server takes."""
    lines = [line for line in (DOCS / "reproduce.md").read_text(encoding="utf-8").splitlines() if ", test-dev " in line]
    assert len(lines) == 5
    for line in lines:
        task, split, to = re.search(r"--task (\w+) .*--split (\S+) .*vlbench submit RUN --to ([\w-]+)`", line).groups()
        assert (task, split in SERVERS[to].splits) == (SERVERS[to].task, True)


def test_published_figures_stand_beside_and_never_inside(
    real: Callable[..., Path], vlbench: Callable[..., Any]
) -> None:
    run = real(3840)
    done = vlbench("leaderboard", run, "--published", "--expect")
    measured, _, rest = done.out.partition("**published")
    assert "76.80" in measured and "reproduced" in measured and "ViLT-B/32" not in measured and "ViLT-B/32" in rest
    assert vlbench("leaderboard", run, "--published", "--format", "json").code == 2
    assert json.loads(vlbench("leaderboard", run, "--format", "json").out)["rows"][0]["value"] == 76.8
