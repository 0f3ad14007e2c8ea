"""Published results, read from `leaderboards/published/` and shown next to measured ones."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vlbench.core.cards import TaskCard
from vlbench.core.errors import DataError, VlbenchError, unknown
from vlbench.core.paths import visible
from vlbench.core.validate import Frozen, parse
from vlbench.core.yamlfile import is_yaml_file, read_yaml

Score = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Given = Score | dict[str, Score | tuple[Score, Score, Score]]
"""A value of the main metric, or values by metric; a list of three is recall at 1, 5 and 10."""
Confidence = Literal["read", "derived", "unverified"]
"""`read` in the source or its official code; `derived`: computed from values read there; `unverified`: recalled."""
COMPLEXITY = "complexity.yaml"
_LEVELS = (1, 5, 10)


class Rerun(Frozen):
    """How vlbench reproduces a row.

    checkpoint: the value of `--checkpoint`, empty for none. released: whether the authors published these weights;
    otherwise they must be pretrained first.
    """

    model: str
    size: str
    mode: Literal["finetune", "eval", "zero-shot"] = "finetune"
    checkpoint: str = "CHECKPOINT"
    released: bool = True


class TrainedOn(Frozen):
    """Training splits of a row for one task.

    splits: by the names of the task's card; empty if it was not finetuned on the task. A plain list means splits that
    were read. besides: other training data, or the part of the splits that was left out, in words.
    """

    splits: tuple[str, ...]
    confidence: Confidence = "read"
    besides: str = ""


class PublishedRow(Frozen):
    """Published values of one variant from one source.

    confidence: `read` in the source or official code; `derived`: computed from values read there, as a note says;
    `unverified`: recalled, not read again. protocol: in words; values of different protocols are not compared. scores:
    task -> split -> metric -> value; a plain number is of the main metric, and `tr` and `ir` list R@1, R@5 and R@10.
    trained_on: task -> training splits, for each task that has scores; [] if it was not finetuned. rerun:
    None if vlbench cannot reproduce it. notes: task -> remarks on its values.
    """

    variant: str
    source: str
    confidence: Confidence
    protocol: str = "finetune"
    scores: dict[str, dict[str, dict[str, Score]]]
    trained_on: dict[str, TrainedOn]
    rerun: Rerun | None = None
    notes: dict[str, str] = Field(default_factory=dict)

    @field_validator("trained_on", mode="before", json_schema_input_type=dict[str, TrainedOn | tuple[str, ...]])
    @classmethod
    def _from_lists(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {
            task: {"splits": splits} if isinstance(splits, list | tuple) else splits for task, splits in given.items()
        }

    @field_validator("scores", mode="before", json_schema_input_type=dict[str, dict[str, _Given]])
    @classmethod
    def _spelled_out(cls, scores: object) -> object:
        if not isinstance(scores, dict):
            return scores
        return {
            task: {split: _metrics(task, given) for split, given in splits.items()}
            if isinstance(splits, dict)
            else splits
            for task, splits in scores.items()
        }

    @model_validator(mode="after")
    def _splits_are_named(self) -> PublishedRow:
        lacking, idle = self.scores.keys() - self.trained_on.keys(), self.trained_on.keys() - self.scores.keys()
        if lacking:
            raise ValueError(
                f"trained_on lacks {', '.join(sorted(lacking))}: name the splits of each task with scores, [] for none"
            )
        if idle or (idle := self.notes.keys() - self.scores.keys()):
            raise ValueError(f"{', '.join(sorted(idle))} is named and has no scores")
        return self


class PublishedModel(Frozen):
    """A file of published results: a model, its paper and its rows. url: of the paper; required in files of users."""

    model: str
    paper: str
    url: str = Field(default="", pattern=r"^(https?://[^\s<>\"]+)?$")
    rows: tuple[PublishedRow, ...] = Field(min_length=1)


class Cost(Frozen):
    """Published cost of a model for one image with one text.

    assumed: the text length was not published. here: models of vlbench, with sizes, that the cost belongs to. gap: why
    the count of vlbench differs.
    """

    model: str
    visual_tokens: int
    text_tokens: int
    parameters_m: float
    gflops: float
    milliseconds: float
    resolution: str = ""
    assumed: bool = False
    here: tuple[str, ...] = ()
    gap: str = ""


class Slower(Frozen):
    """Published ratio of the latency of the models `of` to that of `to`."""

    of: tuple[str, ...]
    to: str
    times: float
    source: str
    confidence: Literal["read", "unverified"]


class Complexity(Frozen):
    """Table of costs measured under the same conditions. ratios: of other papers, which have no such table."""

    paper: str
    conditions: str
    confidence: Literal["read", "unverified"]
    rows: tuple[Cost, ...]
    ratios: tuple[Slower, ...] = ()


@dataclass(frozen=True)
class Published:
    """Published values of one row on one split of a task."""

    model: PublishedModel
    row: PublishedRow
    task: str
    split: str
    metrics: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.model.model} ({self.row.variant})" if self.row.variant else self.model.model

    @property
    def cited(self) -> str:
        """Its source, and the confidence if it was not read there."""
        return self.place if self.row.confidence == "read" else f"{self.place} ({self.row.confidence})"

    @property
    def place(self) -> str:
        """Its source, with the URL if the file gives one."""
        return f"{self.row.source}, {self.model.url}" if self.model.url else self.row.source

    @property
    def trained_on(self) -> TrainedOn:
        return self.row.trained_on[self.task]


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """Every file of published results, by name. Raises VlbenchError: a file does not match the schema; the message
    lists all faults.
    """
    return tuple(
        parse(PublishedModel, _yaml(path), path.name)
        for path in sorted(_folder().glob("*.yaml"))
        if path.name != COMPLEXITY
    )


@cache
def complexity() -> Complexity:
    """The table of costs."""
    return parse(Complexity, _yaml(_folder() / COMPLEXITY), COMPLEXITY)


def own_models(place: Path, cards: Mapping[str, TaskCard], others: Collection[str] = ()) -> tuple[PublishedModel, ...]:
    """The published results in a user's file, or in every YAML file of a folder.

    place: the file or folder. cards: of the known tasks, whose metrics and training splits are checked. others: names
    of tasks of runs that have no card here.
    Raises VlbenchError: exit 2 if there is no such file; exit 5 if a file does not match the schema, has no URL, or
    names an unknown task, metric or training split. The message names the file and the field.
    """
    if not place.exists():
        raise VlbenchError(f"--published {place} does not exist: give a YAML file of published results or a folder")
    files = list(filter(is_yaml_file, visible(place, "*"))) if place.is_dir() else [place]
    if not files:
        raise VlbenchError(f"--published {place} holds no *.yaml: give a file of published results or a folder of them")
    return tuple(_own(path, cards, others) for path in files)


def _own(path: Path, cards: Mapping[str, TaskCard], others: Collection[str]) -> PublishedModel:
    name = f"--published {path}"
    try:
        model = parse(PublishedModel, read_yaml(path, name), name)
    except VlbenchError as error:
        raise DataError(error.message) from None
    if not model.url:
        raise DataError(
            f"{name}: url is missing: say where the results were published, e.g. url: https://arxiv.org/..."
        )
    for number, row in enumerate(model.rows):
        for task, splits in row.scores.items():
            if task in cards:
                metrics = {metric for metrics in splits.values() for metric in metrics}
                _check_known(f"{name}: rows.{number}.scores.{task}", f"metric of {task}", metrics, cards[task].metrics)
                used, where = row.trained_on[task].splits, f"{name}: rows.{number}.trained_on.{task}"
                _check_known(where, f"split of {task}", used, cards[task].splits)
            elif task not in others:
                _check_known(f"{name}: rows.{number}.scores", "task", [task], cards)
    return model


def _check_known(where: str, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"{where}: {unknown(kind, name, known).message}")


def published(
    task: str, splits: Sequence[str] = (), models: Sequence[PublishedModel] | None = None
) -> Iterator[Published]:
    """The published values of a task on these splits, or on all; models: the files, None for those of vlbench."""
    for model in published_models() if models is None else models:
        for row in model.rows:
            for split, metrics in row.scores.get(task, {}).items():
                if not splits or split in splits:
                    yield Published(model, row, task, split, metrics)


def _folder() -> Path:
    return Path(str(importlib.import_module("vlbench._published").__file__)).parent


def _yaml(path: Path) -> dict[str, object]:
    return read_yaml(path, path.name, trusted=True)


def _metrics(task: str, given: object) -> object:
    """Values by the metric names of vlbench."""
    if isinstance(given, int | float | str):
        return {"vqa_accuracy" if task.startswith("vqa") else "accuracy": given}
    if not isinstance(given, dict):
        return given
    spelled: dict[str, object] = {}
    for name, value in given.items():
        if isinstance(value, list) and len(value) == len(_LEVELS):
            spelled |= {f"{name}_r{k}": score for k, score in zip(_LEVELS, value, strict=True)}
        else:
            spelled[str(name)] = value
    return spelled
