"""What a record may be put beside: which figures are of the same thing, and which runs are seeds of one system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vlbench.core.cards import Recipe
from vlbench.core.record import RunRecord
from vlbench.core.spec import PLACE
from vlbench.records.collect import FoundRun

_NOT_MEANING = PLACE | {"seed", "task", "model", "size", "checkpoint", "controls", "eval_batch_size", "resume"}
SETTINGS = 5
"""Settings that are named where systems differ in more."""
_IN_PROTOCOL = {"mode", "train_split", "answer_by", "num_fewshot", "rerank_k"}


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
    trained = spec.mode in ("finetune", "probe")
    train_split = record.train.train_split if record.train else spec.train_split
    said = [f"{spec.mode} on {train_split}" if trained else str(spec.mode)]
    if spec.answer_by:
        said.append(f"answers by {spec.answer_by}")
    if spec.num_fewshot:
        said.append(f"{spec.num_fewshot} shots")
    if spec.rerank_k is not None:
        said.append(f"re-ranking the best {spec.rerank_k:,}")
    return ", ".join(said)


def model_name(record: RunRecord) -> str:
    """Name and size, and that it began with no pretrained weights where it was trained so."""
    name = f"{record.model.name}-{record.model.size}"
    return f"{name} from scratch" if record.model.from_scratch and record.spec.mode == "finetune" else name


def system(record: RunRecord) -> str:
    """What runs share that differ in nothing but their seed, on whatever machine they were made."""
    model = (record.model.name, record.model.size, record.model.weights_sha256, record.model.from_scratch)
    data = (record.task.name, record.task.version, record.task.manifest_sha256)
    return json.dumps([model, data, settings(record)], sort_keys=True)


def settings(record: RunRecord) -> dict[str, str]:
    """What a run was told, by the names of RunSpec and, of the recipe it had in the end, of Recipe; and its vlbench."""
    values = record.spec.model_dump(mode="json", exclude={*_NOT_MEANING, "train"})
    recipe = record.train.recipe if record.train else record.spec.train
    values |= recipe.model_dump(mode="json")
    return {name: _said(value) for name, value in values.items()} | {"vlbench": record.tool.version}


def differing(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """What the records do not share, protocol, weights of one model and settings: name -> the value of each record.

    A recipe counts where all were trained, and what the protocol says counts once.
    """
    told = {"protocol": [protocol(record) for record in records]}
    if len({model_name(record) for record in records}) == 1:
        told["weights"] = [record.model.weights_sha256[:8] or "none" for record in records]
    of_each = [settings(record) for record in records]
    left_out = _IN_PROTOCOL if all(record.train for record in records) else _IN_PROTOCOL | Recipe.model_fields.keys()
    if all(of["steps"] != "none" for of in of_each):
        left_out = left_out | {"epochs"}  # which steps win over
    told |= {name: [of[name] for of in of_each] for name in of_each[0] if name not in left_out}
    return {name: values for name, values in told.items() if len(set(values)) > 1}


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


def names(systems: Sequence[Sequence[FoundRun]]) -> list[str]:
    """What to call systems of one model: its name and, of several, their settings; else seed, fingerprint or folder."""
    firsts = [runs[0] for runs in systems]
    name = model_name(firsts[0].record)
    if len(systems) == 1:
        return [name]
    told = list(differing([run.record for run in firsts]).items())[:SETTINGS]
    of_settings = [
        ", ".join(values[place] if what == "protocol" else f"{what} {values[place]}" for what, values in told)
        for place in range(len(systems))
    ]
    besides = (
        [""] * len(systems),
        [_seeds([run.record.spec.seed for run in runs]) for runs in systems],
        [run.record.fingerprint[:8] for run in firsts],
        [str(run.path.parent) for run in firsts],
    )
    ways = [[", ".join(filter(None, pair)) for pair in zip(of_settings, more, strict=True)] for more in besides]
    clear = next((way for way in ways if len(set(way)) == len(systems)), ways[-1])
    return [f"{name} ({telling})" for telling in clear]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def named(runs: Sequence[tuple[FoundRun, str]]) -> list[tuple[str, Column, list[FoundRun], str]]:
    """Each system with its name, its column and its doubt; runs in doubt stand by themselves.

    Systems of one model in one column have in their name what tells them apart.
    """
    found = [(system, "") for system in by_system([run for run, why in runs if not why])]
    found += [([run], why) for run, why in runs if why]
    places = [(model_name(system[0].record), column(system[0].record)) for system, _ in found]
    alike: dict[tuple[str, Column], list[list[FoundRun]]] = {}
    for (system, _), place in zip(found, places, strict=True):
        alike.setdefault(place, []).append(system)
    called = {place: iter(names(systems)) for place, systems in alike.items()}
    return [(next(called[place]), place[1], system, why) for (system, why), place in zip(found, places, strict=True)]
