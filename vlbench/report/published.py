"""Figures from papers: read from `leaderboards/published/`, shown beside measured ones, never among them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from vlbench.core.validate import Frozen, parse
from vlbench.core.yamlfile import read_yaml

COMPLEXITY = "complexity.yaml"
_LEVELS = (1, 5, 10)


class Rerun(Frozen):
    """How vlbench would make a row's figures again; checkpoint: what to give to `--checkpoint`, empty for nothing."""

    model: str
    size: str
    mode: Literal["finetune", "eval", "zero-shot"] = "finetune"
    checkpoint: str = "CHECKPOINT"


class PublishedRow(Frozen):
    """Figures of one variant from one source.

    confidence: `read` in the source or official code; `unverified`: recalled, not read again. protocol: in words;
    figures of different protocols are not compared. scores: task -> split -> metric -> figure; a number alone is of the
    main metric, and `tr` and `ir` list R@1, R@5 and R@10. rerun: None where vlbench cannot make it again. notes:
    task -> what to know of its figures.
    """

    variant: str
    source: str
    confidence: Literal["read", "unverified"]
    protocol: str = "finetune"
    scores: dict[str, dict[str, dict[str, float]]]
    rerun: Rerun | None = None
    notes: dict[str, str] = Field(default_factory=dict)

    @field_validator("scores", mode="before")
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


class PublishedModel(Frozen):
    """One file: a model, where it was published, and its rows."""

    model: str
    paper: str
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
        return f"{self.row.source} (unverified)" if self.row.confidence == "unverified" else self.row.source


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


def published(task: str, splits: Sequence[str] = ()) -> Iterator[Published]:
    """The figures of a task, on those splits or on all."""
    for model in published_models():
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
    if isinstance(given, int | float):
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
