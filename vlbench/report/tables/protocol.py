"""What a record may be put beside: which figures are of the same thing, and which runs are seeds of one system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vlbench.core.record import RunRecord
from vlbench.core.spec import PLACE
from vlbench.core.splits import joined
from vlbench.records.collect import FoundRun

_NOT_MEANING = PLACE | {"seed", "task", "model", "size", "checkpoint", "controls", "eval_batch_size", "resume"}


@dataclass(frozen=True, order=True)
class Column:
    """What figures must share to be compared by eye: the task and its version, the data, the split, the protocol."""

    task: str
    version: int
    data: str
    manifest: str
    split: str
    protocol: str

    @property
    def title(self) -> str:
        return f"{self.task} {self.split}"


def column(record: RunRecord) -> Column:
    """The column that a record's figures belong to."""
    task = record.task
    data = "real data" if task.source == "real" else f"built-in world ({record.spec.domain})"
    return Column(task.name, task.version, data, task.manifest_sha256[:8], task.split, protocol(record))


def protocol(record: RunRecord) -> str:
    """In words: how the model came to its answers, as far as it changes what a figure means."""
    spec = record.spec
    train_split = record.train.train_split if record.train else spec.train_split
    said = [f"{spec.mode} on {joined(train_split)}" if trains(record) else str(spec.mode)]
    if spec.answer_by:
        said.append(f"answers by {spec.answer_by}")
    if spec.num_fewshot:
        said.append(f"{spec.num_fewshot} shots")
    if spec.rerank_k is not None:
        said.append(f"re-ranking the best {spec.rerank_k:,}")
    return ", ".join(said)


def trains(record: RunRecord) -> bool:
    """Whether the run trains weights; else they were given to it, and its answers are fixed."""
    return record.spec.mode in ("finetune", "probe")


def model_name(record: RunRecord) -> str:
    """Name and size, and that it began with no pretrained weights where it was trained so."""
    name = f"{record.model.name}-{record.model.size}"
    return f"{name} from scratch" if record.model.from_scratch and record.spec.mode == "finetune" else name


def system(record: RunRecord) -> str:
    """What runs share that differ in nothing but their seed, on whatever machine they were made."""
    model = (record.model.name, record.model.size, record.model.weights_sha256, record.model.from_scratch)
    data = (record.task.name, record.task.version, record.task.manifest_sha256)
    code = (record.task.task_sha256, record.model.model_sha256)
    return json.dumps([model, data, code, settings(record)], sort_keys=True)


def settings(record: RunRecord) -> dict[str, str]:
    """What a run was told, by the names of RunSpec and, of the recipe it had in the end, of Recipe; and its vlbench."""
    values = record.spec.model_dump(mode="json", exclude={*_NOT_MEANING, "train"})
    recipe = record.train.recipe if record.train else record.spec.train
    values |= recipe.model_dump(mode="json")
    return {name: _said(value) for name, value in values.items()} | {"vlbench": record.tool.version}


def _said(value: object) -> str:
    """A setting in a few words; what is not set is none, which some settings can be told as well."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def newest(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """One record of each fingerprint, since equal ones mean the same: a finished one, the newest of those.

    It stands where the first of its fingerprint stood.
    """
    chosen: dict[str, FoundRun] = {}
    for run in sorted(runs, key=lambda run: (run.record.status == "done", run.record.started, str(run.path))):
        chosen[run.record.fingerprint] = run
    return [chosen[name] for name in dict.fromkeys(run.record.fingerprint for run in runs)]


def by_system(runs: Sequence[FoundRun]) -> list[list[FoundRun]]:
    """The runs of each system together, by seed, in the order systems come; the same seed twice stays apart."""
    systems: dict[str, list[FoundRun]] = {}
    for run in runs:
        systems.setdefault(system(run.record), []).append(run)
    grouped: list[list[FoundRun]] = []
    for same in systems.values():
        seeds = {run.record.spec.seed for run in same}
        if len(seeds) == len(same):
            grouped.append(sorted(same, key=lambda run: run.record.spec.seed))
        else:
            grouped += [[run] for run in same]
    return grouped
