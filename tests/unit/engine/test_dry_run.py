"""The amounts of a dry run; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.cli.dry_run import dry_run_text, duration
from vlbench.core.cards import Recipe
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.engine.dry_run import Phase, dry_run
from vlbench.engine.job import plan


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No larger batches are tried than the first."""
    monkeypatch.setattr("vlbench.engine.dry_run.ENOUGH", 1e-9)


def spec(world: Path, output: Path, **fields: object) -> RunSpec:
    values = {"task": "nlvr2", "model": "fake", "data_root": world, "output_path": output}
    return RunSpec.model_validate({**values, **fields})


def amounts(phases: tuple[Phase, ...]) -> list[tuple[str, int, str]]:
    return [(phase.name, phase.amount, phase.unit) for phase in phases]


def test_examples(tiny_world: Path, tmp_path: Path) -> None:
    run = spec(tiny_world, tmp_path / "runs", train=Recipe(steps=6, batch_size=8, evaluations=2), limit=10)
    estimate = dry_run(run, Silent())
    assert amounts(estimate.phases) == [
        ("finetune", 6 * 8, "examples"),
        ("select", 2 * 2 * 96, "examples"),  # plain weights and averaged ones
        ("report", 10, "examples"),
    ]
    assert estimate.job.fingerprint == plan(run, Silent()).fingerprint
    assert estimate.splits == (("train", "train", 192), ("select", "dev", 96), ("report", "test-p", 10))
    assert all(phase.rate > 0 for phase in estimate.phases)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("k", "per_query"), [(None, None), (2, 2)])
def test_pairs(k: int | None, per_query: int | None, tiny_world: Path, tmp_path: Path) -> None:
    run = spec(tiny_world, tmp_path, task="coco_retrieval", rerank_k=k, select_on="none", train=Recipe(steps=2))
    estimate = dry_run(run, Silent(), processes=4)
    images = len({example.reference.image for example in estimate.job.report})
    texts = len(estimate.job.report)
    expected = images * texts if per_query is None else 2 * (images + texts)
    assert amounts(estimate.phases)[-1] == ("report", expected, "pairs")
    last = estimate.phases[-1]
    assert last.seconds == pytest.approx(expected / last.rate / 4)


def test_a_generative_model(tiny_world: Path, tmp_path: Path) -> None:
    estimate = dry_run(spec(tiny_world, tmp_path, mode="zero-shot", answer_by="text"), Silent())
    assert amounts(estimate.phases) == [("report", 96, "examples")]


def test_the_text_names_splits_controls_and_fingerprint(tiny_world: Path, tmp_path: Path) -> None:
    estimate = dry_run(spec(tiny_world, tmp_path, train=Recipe(steps=6, batch_size=8), controls=("blind",)), Silent())
    text = dry_run_text(estimate)
    for part in (estimate.job.fingerprint, "train, 192 examples", "test-p, 96 examples", "fake-tiny", "control run"):
        assert part in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 seconds"), (119, "119.0 seconds"), (120, "2.0 minutes"), (9000, "2.5 hours"), (2e6, "23.1 days")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
