from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vlbench import __version__, catalog
from vlbench.records.collect import collect
from vlbench.records.folder import RunFolder, read_run
from vlbench.report.expect import expectations
from vlbench.report.pages import pages
from vlbench.report.published import PublishedRow, complexity, published, published_models
from vlbench.report.published_text import TASKS, published_table, reproduce_page

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
        assert (DOCS / path).read_text(encoding="utf-8") == text, f"{path}: run python -m vlbench.report.pages"


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

    def make(right: int, **spec: Any) -> Path:
        run = make_run(f"right{right}{len(spec)}", [1.0] * right + [0.0] * (5000 - right))
        record = read_run(run)
        changed = {
            "model": record.model.model_copy(update={"size": "base"}),
            "task": record.task.model_copy(update={"source": "real"}),
            "spec": record.spec.model_copy(update=spec),
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


def test_other_protocols_worlds_and_limits_are_not_judged(
    real: Callable[..., Path], make_run: Callable[..., Path]
) -> None:
    reasons = [
        expectations(collect([run]).runs, __version__, {})[0].reason
        for run in (make_run("world", [1.0, 0.0]), real(3840, mode="zero-shot"))
    ]
    assert reasons[0].startswith("measured on the built-in world")
    assert reasons[1].startswith("no published figure of this model")
    limited = real(3839)
    task = read_run(limited).task
    RunFolder(limited).write_record(
        read_run(limited).model_copy(update={"task": task.model_copy(update={"n_total": 6967, "limit": 5000.0})})
    )
    assert expectations(collect([limited]).runs, __version__, {})[0].reason.startswith("limited: 5,000 of 6,967")


def test_published_figures_stand_beside_and_never_inside(
    real: Callable[..., Path], vlbench: Callable[..., Any]
) -> None:
    run = real(3840)
    done = vlbench("leaderboard", run, "--published", "--expect")
    measured, _, rest = done.out.partition("**published")
    assert "76.80" in measured and "reproduced" in measured and "ViLT-B/32" not in measured and "ViLT-B/32" in rest
    assert vlbench("leaderboard", run, "--published", "--format", "json").code == 2
    assert json.loads(vlbench("leaderboard", run, "--format", "json").out)["rows"][0]["value"] == 76.8
