"""Unique names of systems in a table: by the settings that differ."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from vlbench.core.cards import Recipe
from vlbench.core.record import RunRecord
from vlbench.records.collect import FoundRun
from vlbench.report.tables.protocol import Column, by_system, column, model_name, protocol, settings, system, trains

SETTINGS = 5
"""Number of differing settings that a name holds."""
_IN_PROTOCOL = {"mode", "train_split", "answer_by", "num_fewshot", "rerank_k"}


def differing(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """What differs between records (protocol, weights of one model, settings): name -> the value of each record. The
    recipe counts if all train; what the protocol names is not repeated.
    """
    by_name = {"protocol": [protocol(record) for record in records]}
    if len({model_name(record) for record in records}) == 1:
        by_name["weights"] = [record.model.weights_sha256[:8] or "none" for record in records]
    of_each = [settings(record) for record in records]
    left_out = _IN_PROTOCOL if all(map(trains, records)) else _IN_PROTOCOL | Recipe.model_fields.keys()
    if all(each["steps"] != "none" for each in of_each):
        left_out = left_out | {"epochs"}  # steps take precedence over epochs
    by_name |= {name: [each[name] for each in of_each] for name in of_each[0] if name not in left_out}
    return {name: values for name, values in by_name.items() if len(set(values)) > 1}


def labels(systems: Sequence[Sequence[FoundRun]], places: Sequence[Hashable]) -> list[str]:
    """The name of each system: its model's name and, if several are in one place, the settings that differ. places: of
    each system; systems in one place are of one model.
    """
    alike: dict[Hashable, list[Sequence[FoundRun]]] = {}
    for runs, place in zip(systems, places, strict=True):
        alike.setdefault(place, []).append(runs)
    names = {place: iter(_labels(same)) for place, same in alike.items()}
    return [next(names[place]) for place in places]


def _labels(systems: Sequence[Sequence[FoundRun]]) -> list[str]:
    """Names of systems of one model: its name and their settings; with seed, fingerprint or folder if needed."""
    firsts = [runs[0] for runs in systems]
    name = model_name(firsts[0].record)
    if len(systems) == 1:
        return [name]
    apart = list(differing([run.record for run in firsts]).items())[:SETTINGS]
    of_settings = [
        ", ".join(values[place] if what == "protocol" else f"{what} {values[place]}" for what, values in apart)
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
    """A system in a table. label: its name there. doubt: why its values do not count; empty if they do."""

    label: str
    column: Column
    runs: tuple[FoundRun, ...]
    doubt: str


def placed(given: Sequence[tuple[FoundRun, str]]) -> list[Placed]:
    """The systems of runs, each given with the reason why it does not count, or an empty string. Systems of one model
    in one column have unique labels. The names of systems that count do not depend on the others, so an unfinished or
    limited run changes nothing; the others never share a name with them.
    """
    complete = by_system([run for run, why in given if not why])
    names = labels(complete, [_place(runs[0]) for runs in complete])
    systems = [
        Placed(name, column(runs[0].record), tuple(runs), "") for name, runs in zip(names, complete, strict=True)
    ]
    in_doubt = _names_in_doubt([run for run, why in given if why], systems)
    taken = {other.label for other in systems}
    for run, why in given:
        if why:
            place = column(run.record)
            beside = {other.label for other in systems if other.doubt and other.column == place}
            name = _unlike(taken | beside, in_doubt[system(run.record)], run)
            systems.append(Placed(name, place, (run,), why))
    return systems


def _place(run: FoundRun) -> tuple[str, Column]:
    return model_name(run.record), column(run.record)


def _names_in_doubt(runs: Sequence[FoundRun], complete: Sequence[Placed]) -> dict[str, str]:
    """Names of runs that do not count, by system: as a complete run with these settings, else by settings."""
    known = {system(group.runs[0].record): group.label for group in complete}
    others = {key: run for run in runs if (key := system(run.record)) not in known}
    groups = [*(group.runs for group in complete), *((run,) for run in others.values())]
    named = labels(groups, [_place(group[0]) for group in groups])[len(complete) :]
    return known | dict(zip(others, named, strict=True))


def _unlike(taken: Collection[str], label: str, run: FoundRun) -> str:
    """The label; followed by the run's state if that name is taken, and by more if that is taken too."""
    stated = f"{label} ({_state(run)})"
    ways = (label, stated, f"{stated}, seed {run.record.spec.seed}")
    return next((way for way in ways if way not in taken), f"{stated}, {run.record.fingerprint[:8]}")


def _state(run: FoundRun) -> str:
    """The state of a run that does not count, in one word."""
    task, status = run.record.task, run.record.status
    if status == "done" and run.record.unanswered:
        return "incomplete"
    return status if status != "done" else "limited" if task.n_scored != task.n_total else "outdated"
