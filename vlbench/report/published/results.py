"""Figures from papers: read from `leaderboards/published/`, shown beside measured ones, never among them."""

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
from vlbench.core.validate import Frozen, parse
from vlbench.core.yamlfile import read_yaml

Score = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Given = Score | dict[str, Score | tuple[Score, Score, Score]]
"""A figure of the main metric, or figures by metric, three of them as recall at 1, 5 and 10."""
Confidence = Literal["read", "derived", "unverified"]
"""`read` in the source or its official code; `derived`: computed from figures read there; `unverified`: recalled."""
COMPLEXITY = "complexity.yaml"
_LEVELS = (1, 5, 10)


class Rerun(Frozen):
    """How vlbench would make a row's figures again.

    checkpoint: what to give to `--checkpoint`, empty for nothing. released: whether its authors published those
    weights; without them the row can be made again only from weights that are pretrained first.
    """

    model: str
    size: str
    mode: Literal["finetune", "eval", "zero-shot"] = "finetune"
    checkpoint: str = "CHECKPOINT"
    released: bool = True


class TrainedOn(Frozen):
    """What a row was finetuned on for one task.

    splits: by the names of the task's card; none where it was not finetuned on the task. A list alone is of splits that
    were read. besides: what else it was trained on, or which part of the splits was left out, in words.
    """

    splits: tuple[str, ...]
    confidence: Confidence = "read"
    besides: str = ""


class PublishedRow(Frozen):
    """Figures of one variant from one source.

    confidence: `read` in the source or official code; `derived`: computed from figures read there, as a note says;
    `unverified`: recalled, not read again. protocol: in words; figures of different protocols are not compared. scores:
    task -> split -> metric -> figure; a number alone is of the main metric, and `tr` and `ir` list R@1, R@5 and R@10.
    trained_on: task -> the splits it was finetuned on, for each task that has scores; [] where it was not. rerun: None
    where vlbench cannot make it again. notes: task -> what to know of its figures.
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
        return {task: {"splits": one} if isinstance(one, list | tuple) else one for task, one in given.items()}

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
    """One file: a model, where it was published, and its rows. url: of the paper; files of users need one."""

    model: str
    paper: str
    url: str = Field(default="", pattern=r"^(https?://[^\s<>\"]+)?$")
    rows: tuple[PublishedRow, ...] = Field(min_length=1)


class Cost(Frozen):
    """What one picture with one text costs a model.

    assumed: its length of text was not published. here: models of vlbench, with their sizes, that it is the figure of.
    gap: why what is counted here differs.
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
    """How many times the time of `to` a paper says that models like those of `of` take."""

    of: tuple[str, ...]
    to: str
    times: float
    source: str
    confidence: Literal["read", "unverified"]


class Complexity(Frozen):
    """A table of costs measured under one set of conditions; ratios: of other papers, which have no such table."""

    paper: str
    conditions: str
    confidence: Literal["read", "unverified"]
    rows: tuple[Cost, ...]
    ratios: tuple[Slower, ...] = ()


@dataclass(frozen=True)
class Published:
    """A published figure in its place."""

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
        """Its source, and whether the figure was read there."""
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
    """Every file of figures, by name.

    Raises:
        VlbenchError: a file is not what the schema says, with all its faults.
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


def is_yaml_file(path: Path) -> bool:
    """Whether a path has the suffix of a file of published results."""
    return path.suffix.lower() in (".yaml", ".yml")


def own_models(place: Path, cards: Mapping[str, TaskCard], others: Collection[str] = ()) -> tuple[PublishedModel, ...]:
    """The figures in a user's file, or in every YAML file of a folder.

    Args:
        place: the file or folder.
        cards: of the tasks that are known, whose metrics and training splits are checked.
        others: names of tasks without a card here, that runs are of.

    Raises:
        VlbenchError: exit 2 where there is no such file; exit 5 where a file is not what the schema says, gives no URL,
            or names a task, metric or training split that is not known. The file and the field are named.
    """
    if not place.exists():
        raise VlbenchError(
            f"--published {place} is not there: give a YAML file of published figures or a folder of them"
        )
    files = sorted(filter(is_yaml_file, place.iterdir())) if place.is_dir() else [place]
    if not files:
        raise VlbenchError(f"--published {place} holds no *.yaml: give a file of published figures or a folder of them")
    return tuple(_own(path, cards, others) for path in files)


def _own(path: Path, cards: Mapping[str, TaskCard], others: Collection[str]) -> PublishedModel:
    name = f"--published {path}"
    try:
        model = parse(PublishedModel, read_yaml(path, name), name)
    except VlbenchError as error:
        raise DataError(error.message) from None
    if not model.url:
        raise DataError(
            f"{name}: url is missing: say where the figures were published, e.g. url: https://arxiv.org/..."
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
    """The figures of a task, on those splits or on all; models: the files to look in, None for those of vlbench."""
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
    """Figures by the metric names that vlbench has for them."""
    if isinstance(given, int | float | str):
        return {"vqa_accuracy" if task.startswith("vqa") else "accuracy": given}
    if not isinstance(given, dict):
        return given
    spelled: dict[str, object] = {}
    for name, value in given.items():
        if isinstance(value, list) and len(value) == len(_LEVELS):
            spelled |= {f"{name}_r{k}": one for k, one in zip(_LEVELS, value, strict=True)}
        else:
            spelled[str(name)] = value
    return spelled
