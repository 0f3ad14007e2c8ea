"""Log a run to experiment trackers (tensorboard, wandb, ...) through Accelerate's classes: `--log-with`."""

from __future__ import annotations

import importlib.util
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench.core.errors import VlbenchError, unknown
from vlbench.core.record import RunRecord
from vlbench.core.spec import PLACE
from vlbench.data.cache.folder import atomic_write
from vlbench.engine.runtime.ranks import Ranks
from vlbench.records.provenance import Spec, portable

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

FOLDER = "trackers"
"""The folder below a run's folder that trackers write to."""
PROJECT = "vlbench"
_PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "aim": ("aim",), "clearml": ("clearml",),
    "comet_ml": ("comet_ml",), "dvclive": ("dvclive",), "mlflow": ("mlflow",), "swanlab": ("swanlab",),
    "trackio": ("trackio",),
}  # fmt: skip
"""Accelerate's name of a tracker -> packages, one of which it needs."""
_EXTRA = ("tensorboard", "wandb")
"""The trackers that `vlbench[track]` installs."""

Value = float | int | str


def check_trackers(names: Sequence[str]) -> None:
    """Raise a VlbenchError for the first tracker that is unknown or not installed."""
    for name in names:
        if name not in _PACKAGES:
            raise unknown("tracker of --log-with", name, _PACKAGES)
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            package = "vlbench[track]" if name in _EXTRA else _PACKAGES[name][0]
            raise VlbenchError(f"--log-with {name} needs a package that is not installed: pip install '{package}'")


@dataclass(frozen=True)
class Trackers:
    """The started trackers of one run. Without any, as on all ranks but the first, nothing is logged.

    When a run is resumed, tensorboard and wandb continue their tracker run; other trackers start a new one.
    """

    started: tuple[GeneralTracker, ...] = ()

    @classmethod
    def start(cls, spec: Spec, folder: Path, title: str) -> Trackers:
        """Start or resume the trackers of the spec, and log its hyperparameters to them.

        folder: of the run; trackers write their files below it. title: the displayed name of the run.

        Raises:
            VlbenchError: a tracker cannot start, for example because the user is not logged in.
        """
        started: list[GeneralTracker] = []
        for name in spec.log_with:
            try:
                started.append(_start(name, folder / FOLDER, title, hyperparameters(spec)))
            except Exception as error:  # third-party libraries raise any type for accounts, networks and disks
                cls(tuple(started)).finish()
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise VlbenchError(
                    f"--log-with {name} cannot start ({reason}): set it up as its documentation says, or leave it out"
                ) from None
        return cls(tuple(started))

    def line(self, line: Mapping[str, Value]) -> None:
        """Log a line of `metrics.jsonl`: the loss and learning rate of a step, or the value of a selection."""
        step = int(line["step"])
        if "selection" in line:
            self.log({f"selection/{line['weights']}": line["selection"]}, step)
        else:
            self.log({f"train/{name}": value for name, value in line.items() if name != "step"}, step)

    def log(self, values: Mapping[str, Value], step: int | None = None) -> None:
        """Log values by name. NaN and infinite values are left out: some trackers fail on them."""
        finite = {
            name: value for name, value in values.items() if isinstance(value, (int, float)) and math.isfinite(value)
        }
        for tracker in self.started:
            tracker.log(finite, step=step)

    def finish(self) -> None:
        """Let trackers write or send what they have buffered."""
        for tracker in self.started:
            tracker.finish()


@contextmanager
def tracked(spec: Spec, folder: Path, title: str, ranks: Ranks) -> Iterator[Trackers]:
    """A context with the trackers of `Trackers.start` on rank 0, whose errors all ranks raise; always finishes them."""
    trackers = ranks.together(lambda: Trackers.start(spec, folder, title) if ranks.is_main else Trackers())
    try:
        yield trackers
    finally:
        trackers.finish()


def metric_values(record: RunRecord) -> dict[str, Value]:
    """The values of a record's metrics by name (`results/accuracy`), those of controls as `results/CONTROL/...`."""
    trials = {"results": record.results} | {f"results/{name}": results for name, results in record.controls.items()}
    return {f"{trial}/{result.metric}": result.value for trial, results in trials.items() for result in results}


def hyperparameters(spec: Spec) -> dict[str, Value]:
    """The fields of the spec that numbers depend on, by flat name (`train.lr`), without paths and unset fields."""
    values = portable(spec).model_dump(mode="json", exclude=set(PLACE), exclude_none=True)
    return dict(_flat("", values))


def _flat(prefix: str, value: object) -> list[tuple[str, Value]]:
    if isinstance(value, dict):
        return [item for name, inner in value.items() for item in _flat(f"{prefix}.{name}" if prefix else name, inner)]
    if isinstance(value, (list, tuple)):
        return [(prefix, ",".join(map(str, value)))]
    return [(prefix, value if isinstance(value, (bool, int, float)) else str(value))]


def _start(name: str, folder: Path, title: str, values: Mapping[str, Value]) -> GeneralTracker:
    """Start a tracker. Its id is kept in the folder, so that a resumed run can continue it."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    folder.mkdir(parents=True, exist_ok=True)
    id_file = folder / f"{name}.id"
    is_new = not id_file.is_file()
    if is_new:
        atomic_write(id_file, f"{secrets.token_hex(8)}\n")
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = kind(name, logging_dir=folder)
    elif name == "wandb":
        tracker = kind(PROJECT, id=id_file.read_text("ascii").strip(), resume="allow", name=title, dir=str(folder))
    elif kind.requires_logging_directory:
        tracker = kind(PROJECT, logging_dir=folder)
    else:
        tracker = kind(PROJECT)
    tracker.start()
    if is_new or name != "tensorboard":  # tensorboard would list the hyperparameters once per start
        tracker.store_init_configuration(dict(values))
    return tracker
