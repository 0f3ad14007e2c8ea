"""What systems are called where several stand together: by what tells them apart."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from vlbench.core.cards import Recipe
from vlbench.core.record import RunRecord
from vlbench.records.collect import FoundRun
from vlbench.report.tables.protocol import Column, by_system, column, model_name, protocol, settings, system, trains

SETTINGS = 5
"""Settings that are named where systems differ in more."""
_IN_PROTOCOL = {"mode", "train_split", "answer_by", "num_fewshot", "rerank_k"}


def differing(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """What the records do not share, protocol, weights of one model and settings: name -> the value of each record.

    A recipe counts where all train, and what the protocol says counts once.
    """
    told = {"protocol": [protocol(record) for record in records]}
    if len({model_name(record) for record in records}) == 1:
        told["weights"] = [record.model.weights_sha256[:8] or "none" for record in records]
    of_each = [settings(record) for record in records]
    left_out = _IN_PROTOCOL if all(map(trains, records)) else _IN_PROTOCOL | Recipe.model_fields.keys()
    if all(of["steps"] != "none" for of in of_each):
        left_out = left_out | {"epochs"}  # which steps win over
    told |= {name: [of[name] for of in of_each] for name in of_each[0] if name not in left_out}
    return {name: values for name, values in told.items() if len(set(values)) > 1}


def labels(systems: Sequence[Sequence[FoundRun]], places: Sequence[Hashable]) -> list[str]:
    """What to call each system: its model's name and, of several in one place, what tells these apart.

    places: of each system; those in one place are of one model.
    """
    alike: dict[Hashable, list[Sequence[FoundRun]]] = {}
    for runs, place in zip(systems, places, strict=True):
        alike.setdefault(place, []).append(runs)
    called = {place: iter(_labels(found)) for place, found in alike.items()}
    return [next(called[place]) for place in places]


def _labels(systems: Sequence[Sequence[FoundRun]]) -> list[str]:
    """Of systems of one model: its name and, of several, their settings; else seed, fingerprint or folder."""
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


@dataclass(frozen=True)
class Placed:
    """A system of a table. label: its name there. doubt: why its figures do not count; empty where they do."""

    label: str
    column: Column
    runs: tuple[FoundRun, ...]
    doubt: str


def placed(found: Sequence[tuple[FoundRun, str]]) -> list[Placed]:
    """The systems of runs that each come with their doubt; those in doubt stand by themselves.

    Systems of one model in one column have labels that tell them apart. Those that count are named among themselves, so
    that an unfinished or limited run beside them changes nothing; those in doubt never share a name with one of them.
    """
    complete = by_system([run for run, why in found if not why])
    names = labels(complete, [_place(runs[0]) for runs in complete])
    systems = [
        Placed(name, column(runs[0].record), tuple(runs), "") for name, runs in zip(names, complete, strict=True)
    ]
    in_doubt = _names_in_doubt([run for run, why in found if why], systems)
    taken = {one.label for one in systems}
    for run, why in found:
        if why:
            place = column(run.record)
            beside = {one.label for one in systems if one.doubt and one.column == place}
            name = _unlike(taken | beside, in_doubt[system(run.record)], run)
            systems.append(Placed(name, place, (run,), why))
    return systems


def _place(run: FoundRun) -> tuple[str, Column]:
    return model_name(run.record), column(run.record)


def _names_in_doubt(runs: Sequence[FoundRun], complete: Sequence[Placed]) -> dict[str, str]:
    """What runs in doubt are called, by their system: as a complete run of the same settings, else by what differs."""
    known = {system(one.runs[0].record): one.label for one in complete}
    others = {key: run for run in runs if (key := system(run.record)) not in known}
    groups = [*(one.runs for one in complete), *((run,) for run in others.values())]
    named = labels(groups, [_place(group[0]) for group in groups])[len(complete) :]
    return known | dict(zip(others, named, strict=True))


def _unlike(taken: Collection[str], label: str, run: FoundRun) -> str:
    """The label, followed by how the run stands where that name is taken, and by more where that is as well."""
    stated = f"{label} ({_state(run)})"
    ways = (label, stated, f"{stated}, seed {run.record.spec.seed}")
    return next((way for way in ways if way not in taken), f"{stated}, {run.record.fingerprint[:8]}")


def _state(run: FoundRun) -> str:
    """How a run in doubt stands, in a word."""
    task, status = run.record.task, run.record.status
    return status if status != "done" else "limited" if task.n_scored != task.n_total else "outdated"
