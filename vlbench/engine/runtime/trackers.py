"""What a run tells experiment trackers beside its own record, through Accelerate's classes: `--log-with`."""

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
"""Where trackers keep what they write, below a run's folder."""
PROJECT = "vlbench"
_PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "aim": ("aim",), "clearml": ("clearml",),
    "comet_ml": ("comet_ml",), "dvclive": ("dvclive",), "mlflow": ("mlflow",), "swanlab": ("swanlab",),
    "trackio": ("trackio",),
}  # fmt: skip
"""Accelerate's name of a tracker -> the packages one of which it needs."""
_EXTRA = ("tensorboard", "wandb")
"""What `vlbench[track]` brings."""

Value = float | int | str


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that nobody knows or that are not installed.

    Raises:
        VlbenchError: naming the first of them and what to install.
    """
    for name in names:
        if name not in _PACKAGES:
            raise unknown("tracker of --log-with", name, _PACKAGES)
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            wanted = "vlbench[track]" if name in _EXTRA else _PACKAGES[name][0]
            raise VlbenchError(f"--log-with {name} needs a package that is not installed: pip install '{wanted}'")


@dataclass(frozen=True)
class Trackers:
    """The trackers of one run, begun; without any, as on all ranks but the first, nothing happens.

    Going on with an interrupted run goes on with its tracker runs where it can: with tensorboard and wandb; others
    begin another one.
    """

    begun: tuple[GeneralTracker, ...] = ()

    @classmethod
    def begin(cls, spec: Spec, folder: Path, title: str) -> Trackers:
        """Begin, or go on with, what the spec asks for, and hand over the spec as hyperparameters.

        Args:
            spec: resolved; home paths are taken out.
            folder: the run's; trackers that write files do so below it.
            title: the run's name where people see it.

        Raises:
            VlbenchError: a tracker refuses to begin, for example for want of a login.
        """
        begun: list[GeneralTracker] = []
        for name in spec.log_with:
            try:
                begun.append(_begun(name, folder / FOLDER, title, hyperparameters(spec)))
            except Exception as error:  # whatever a library of somebody else raises over accounts, networks and disks
                cls(tuple(begun)).finish()
                why = " ".join(str(error).split())[:300] or type(error).__name__
                raise VlbenchError(
                    f"--log-with {name} cannot begin ({why}): set it up as its documentation says, or leave it out"
                ) from None
        return cls(tuple(begun))

    def line(self, line: Mapping[str, Value]) -> None:
        """A line of the training's journal: losses and rates of a step, or what weights were selected by."""
        step = int(line["step"])
        if "selection" in line:
            self.log({f"selection/{line['weights']}": line["selection"]}, step)
        else:
            self.log({f"train/{name}": value for name, value in line.items() if name != "step"}, step)

    def log(self, values: Mapping[str, Value], step: int | None = None) -> None:
        """Numbers by name; NaN and infinite ones are left out, which some trackers end over."""
        finite = {
            name: value for name, value in values.items() if isinstance(value, (int, float)) and math.isfinite(value)
        }
        for tracker in self.begun:
            tracker.log(finite, step=step)

    def finish(self) -> None:
        """Let trackers write or send what they hold back."""
        for tracker in self.begun:
            tracker.finish()


@contextmanager
def tracked(spec: Spec, folder: Path, title: str, ranks: Ranks) -> Iterator[Trackers]:
    """`Trackers.begin` on the first rank; they are finished however the run ends.

    Raises:
        VlbenchError: on all ranks, what `Trackers.begin` raises.
    """
    found = ranks.together(lambda: Trackers.begin(spec, folder, title) if ranks.is_main else Trackers())
    try:
        yield found
    finally:
        found.finish()


def figures(record: RunRecord) -> dict[str, Value]:
    """A record's results by name, its controls' below theirs."""
    trials = {"results": record.results} | {f"results/{name}": found for name, found in record.controls.items()}
    return {f"{trial}/{result.metric}": result.value for trial, found in trials.items() for result in found}


def hyperparameters(spec: Spec) -> dict[str, Value]:
    """What the spec says that numbers depend on, flat (`train.lr`), without places and what is not given."""
    values = portable(spec).model_dump(mode="json", exclude=set(PLACE), exclude_none=True)
    return dict(_flat("", values))


def _flat(prefix: str, value: object) -> list[tuple[str, Value]]:
    if isinstance(value, dict):
        return [item for name, inner in value.items() for item in _flat(f"{prefix}.{name}" if prefix else name, inner)]
    if isinstance(value, (list, tuple)):
        return [(prefix, ",".join(map(str, value)))]
    return [(prefix, value if isinstance(value, (bool, int, float)) else str(value))]


def _begun(name: str, folder: Path, title: str, values: Mapping[str, Value]) -> GeneralTracker:
    """A started tracker. What it is known by stays in the folder, so that it is found again."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{name}.id"
    anew = not note.is_file()
    if anew:
        atomic_write(note, f"{secrets.token_hex(8)}\n")
    made = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = made(name, logging_dir=folder)
    elif name == "wandb":
        tracker = made(PROJECT, id=note.read_text("ascii").strip(), resume="allow", name=title, dir=str(folder))
    elif made.requires_logging_directory:
        tracker = made(PROJECT, logging_dir=folder)
    else:
        tracker = made(PROJECT)
    tracker.start()
    if anew or name != "tensorboard":  # which would show every beginning as one more run of these hyperparameters
        tracker.store_init_configuration(dict(values))
    return tracker
