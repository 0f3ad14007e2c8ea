"""Which records are comparable, and which runs are seeds of one system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vlbench.core.errors import first_five
from vlbench.core.modes import MODES
from vlbench.core.record import RunRecord
from vlbench.core.spec import PLACE
from vlbench.core.splits import joined
from vlbench.records.collect import FoundRun

_NOT_MEANING = PLACE | {"seed", "task", "model", "size", "checkpoint", "controls", "eval_batch_size", "resume"}


@dataclass(frozen=True, order=True)
class Column:
    """What comparable values share: the task and its version, the data, the split and the protocol."""

    task: str
    version: int
    data: str
    manifest: str
    split: str
    protocol: str

    @property
    def title(self) -> str:
        return f"{self.task} {self.split}"

    @property
    def origin(self) -> str:
        """The task's version and the data's hash, in brackets, for titles that would otherwise be equal."""
        return f"(version {self.version}, data {self.manifest})"


def column(record: RunRecord) -> Column:
    """The column that a record's values belong to."""
    task = record.task
    data = "real data" if task.source == "real" else f"built-in world ({record.spec.domain})"
    return Column(task.name, task.version, data, task.manifest_sha256[:8], task.split, protocol(record))


def protocol(record: RunRecord) -> str:
    """How the model was trained and evaluated, in words, as far as it affects comparability."""
    spec = record.spec
    train_split = record.train.train_split if record.train else spec.train_split
    parts = [f"{spec.mode} on {joined(train_split)}" if trains(record) else str(spec.mode)]
    if spec.answer_by:
        parts.append(f"answers by {spec.answer_by}")
    if spec.num_fewshot:
        parts.append(f"{spec.num_fewshot} shots")
    if spec.rerank_k is not None:
        parts.append(f"re-ranking the best {spec.rerank_k:,}")
    return ", ".join(parts)


def trains(record: RunRecord) -> bool:
    """Whether the run trains weights; otherwise its answers are fixed by the given weights."""
    return MODES[record.spec.mode].trains


def model_name(record: RunRecord) -> str:
    """Name and size, with "from scratch" if it was finetuned without pretrained weights."""
    name = f"{record.model.name}-{record.model.size}"
    return f"{name} from scratch" if record.model.from_scratch and MODES[record.spec.mode].trains_backbone else name


def system(record: RunRecord) -> str:
    """A key that runs share if they differ only in their seed or machine."""
    model = (record.model.name, record.model.size, record.model.weights_sha256, record.model.from_scratch)
    data = (record.task.name, record.task.version, record.task.manifest_sha256)
    code = (record.task.task_sha256, record.model.model_sha256)
    return json.dumps([model, data, code, settings(record)], sort_keys=True)


def settings(record: RunRecord) -> dict[str, str]:
    """The settings of a run by name: of its RunSpec, of its final Recipe, and its version of vlbench."""
    values = record.spec.model_dump(mode="json", exclude={*_NOT_MEANING, "train"})
    recipe = record.train.recipe if record.train else record.spec.train
    values |= recipe.model_dump(mode="json")
    return {name: _setting_text(value) for name, value in values.items()} | {"vlbench": record.tool.version}


def _setting_text(value: object) -> str:
    """A setting as text; `none` if it is not set."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def newest(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """One record for each fingerprint: the newest finished one without errors, the newest finished one, or the newest.
    It takes the place of the first record with its fingerprint.
    """
    chosen: dict[str, FoundRun] = {}
    for run in sorted(runs, key=_completeness):
        chosen[run.record.fingerprint] = run
    return [chosen[name] for name in dict.fromkeys(run.record.fingerprint for run in runs)]


def _completeness(run: FoundRun) -> tuple[bool, bool, str, str]:
    return run.record.status == "done", not run.record.unanswered, run.record.started, str(run.path)


def unsealed_notes(runs: Sequence[FoundRun]) -> list[str]:
    """A note on the finished records without a seal, if there are any."""
    names = [run.record.fingerprint for run in runs if run.record.is_unsealed]
    if not names:
        return []
    return [f"{len(names)} of {len(runs)} records have no seal, so edits are not detected: {first_five(names)}"]


def by_system(runs: Sequence[FoundRun]) -> list[list[FoundRun]]:
    """The runs grouped by system and sorted by seed, in order of systems; a system with a repeated seed is split."""
    systems: dict[str, list[FoundRun]] = {}
    for run in runs:
        systems.setdefault(system(run.record), []).append(run)
    grouped: list[list[FoundRun]] = []
    for same in systems.values():
        by_seed = sorted(same, key=lambda run: run.record.spec.seed)
        distinct = len({run.record.spec.seed for run in same}) == len(same)
        grouped += [by_seed] if distinct else [[run] for run in same]
    return grouped
