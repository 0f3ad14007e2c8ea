"""What is logged to trackers, and the errors where that is not possible."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState, tracking

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import PretrainSpec, RunSpec
from vlbench.engine.runtime.ranks import Ranks
from vlbench.engine.runtime.trackers import FOLDER, Trackers, check_trackers, hyperparameters, tracked


class Heard(tracking.GeneralTracker):
    """A tracker that records its calls, in order."""

    name = "heard"
    requires_logging_directory = False
    told: list[tuple[object, ...]] = []  # noqa: RUF012 - one list for the test, emptied by it

    def __init__(self, project: str) -> None:
        super().__init__()
        self.told.append(("made", project))

    @property
    def tracker(self) -> None:
        return None

    def start(self) -> None:
        self.told.append(("start",))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(("values", values))

    def log(self, values: dict[str, Any], step: int | None = None, **_: object) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append(("finish",))


class Failing(Heard):
    def start(self) -> None:
        raise RuntimeError("no\nlogin")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    PartialState(cpu=True)
    monkeypatch.setattr(Heard, "told", [])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "aim", Heard)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "dvclive", Failing)
    return Heard.told


def spec(*names: str) -> RunSpec:
    return RunSpec(task="nlvr2", model="cvlp", train=Recipe(lr=3e-5, betas=(0.9, 0.98)), seed=3, log_with=names)


def test_calls_of_a_tracker_during_a_run(heard: list[tuple[object, ...]], tmp_path: Path) -> None:
    with tracked(spec("aim"), tmp_path, "a title", Ranks()) as trackers:
        trackers.line({"step": 4, "loss": 0.5, "lr": 1e-3, "grad_norm": float("nan")})
        trackers.line({"step": 4, "weights": "ema", "selection": 51.25})
        trackers.log({"results/accuracy": 60.0})
    values = hyperparameters(spec("aim"))
    assert heard == [
        ("made", "vlbench"),
        ("start",),
        ("values", values),
        (4, {"train/loss": 0.5, "train/lr": 1e-3}),
        (4, {"selection/ema": 51.25}),
        (None, {"results/accuracy": 60.0}),
        ("finish",),
    ]


def test_hyperparameters_are_flat_and_hold_no_path(tmp_path: Path) -> None:
    values = hyperparameters(spec().model_copy(update={"data_root": tmp_path, "controls": ("blind",)}))
    assert (values["train.lr"], values["train.betas"], values["seed"], values["controls"]) == (
        3e-5,
        "0.9,0.98",
        3,
        "blind",
    )
    assert not any(str(tmp_path) in str(value) for value in values.values()) and "output_path" not in values
    options = hyperparameters(PretrainSpec(model="cvlp", options={"key_drop": 0.2}))
    assert (options["options.key_drop"], options["model"]) == (0.2, "cvlp")


def test_only_rank_0_logs_to_trackers(heard: list[tuple[object, ...]], tmp_path: Path) -> None:
    class Second(Ranks):
        is_main = False  # type: ignore[assignment]

        def together(self, work: Any) -> Any:
            return work()

    with tracked(spec("aim"), tmp_path, "", Second()) as trackers:
        trackers.line({"step": 1, "loss": 1.0})
    assert heard == [] and not (tmp_path / FOLDER).exists()


def test_a_tracker_that_cannot_start_is_named_and_the_others_are_finished(heard: list[object], tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match=r"--log-with dvclive cannot start \(no login\): set it up") as caught:
        Trackers.start(spec("aim", "dvclive"), tmp_path, "")
    assert caught.value.exit_code == 2
    assert heard[-1] == ("finish",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tensorbord", r"unknown tracker of --log-with 'tensorbord': did you mean 'tensorboard'\?"),
        ("wandb", r"--log-with wandb needs a package that is not installed: pip install 'vlbench\[track\]'"),
        ("mlflow", r"--log-with mlflow needs a package that is not installed: pip install 'mlflow'"),
    ],
)
def test_unknown_and_missing_trackers_are_rejected_early(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(VlbenchError, match=says):
        check_trackers([name])
    check_trackers(())
