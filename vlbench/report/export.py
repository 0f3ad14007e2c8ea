"""Records in the formats of other tools: lm-evaluation-harness, Hugging Face model cards, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean, stdev

from vlbench import catalog
from vlbench.core.errors import VlbenchError, unknown
from vlbench.core.record import Result, RunRecord
from vlbench.report.tables.markup import as_csv
from vlbench.report.tables.protocol import column, protocol, system

_WITH_SOURCE = "hf-model-index"
"""The format whose results name an address as their source."""
_QUESTIONS, _RETRIEVAL = "visual-question-answering", "image-text-retrieval"
"""Task types of model cards."""
_NO_PERCENTAGE = ("rsum", "rsum_optimistic", "rsum_expected")
"""Metrics that are better when higher and are sums of percentages."""
_NAMES = {
    "accuracy": "Accuracy", "consistency": "Consistency", "vqa_accuracy": "VQA accuracy",
    "vqa_simple": "VQA accuracy, min(k/3, 1)", "vqa_lenient": "VQA accuracy, all answers normalised",
    "binary": "Accuracy on binary questions", "open": "Accuracy on open questions", "validity": "Validity",
    "plausibility": "Plausibility", "distribution": "Distribution (lower is better)", "grounding": "Grounding",
    "rsum": "Sum of recalls",
}  # fmt: skip
_RETRIEVED = {"tr": "text retrieval", "ir": "image retrieval"}
_MEASURES = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "Median rank", "meanr": "Mean rank"}
_RULES = {"_optimistic": ", ties optimistic", "_expected": ", ties expected"}


def export(records: Sequence[RunRecord], to: str, source_url: str = "") -> str:
    """The finished records in another tool's format.

    Values are those of the record, accuracies in percent; lm-eval gets fractions, as it writes them itself. Records of
    the synthetic world have dataset names of their own, never that of a real dataset. records: runs; each must be done.
    to: a name of FORMATS. source_url: a URL where the runs can be found, for hf-model-index only; may be empty.
    Raises VlbenchError: an unknown format, a run that is not done or has a value that is not a number, or runs that the
    format cannot hold together.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    if source_url and to != _WITH_SOURCE:
        raise VlbenchError(f"--source-url {source_url} is for --to {_WITH_SOURCE}, not {to}: leave it out")
    for record in records:
        if record.status != "done":
            raise VlbenchError(
                f"the run of {record.model.name} on {record.task.name} is {record.status}, not done: finish it first"
            )
        if to != "csv" and (bad := [result.metric for result in record.results if not isfinite(result.value)]):
            raise VlbenchError(
                f"the run of {record.model.name} on {record.task.name} has no value for {bad[0]}, which {to} cannot "
                f"hold: rerun it with --no-resume, or leave it out"
            )
    return FORMATS[to](records, source_url)


def _lm_eval(records: Sequence[RunRecord], _: str) -> str:
    """The results file of lm-evaluation-harness: one model, each task once."""
    model = _one_model(records, "lm-eval")
    names = [_dataset(record) for record in records]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VlbenchError(f"lm-eval holds a task once, and {', '.join(twice)} comes twice: give one run of each")
    given = [record.task.limit for record in records]
    limits = sorted({"none" if limit is None else f"{limit:g}" for limit in given})
    if len(limits) > 1:
        raise VlbenchError(f"lm-eval has one limit for all tasks, and these runs have {', '.join(limits)}: give one's")
    named = list(zip(names, records, strict=True))
    content = {
        "results": {name: _lm_eval_results(record) for name, record in named},
        "configs": {name: _lm_eval_config(record) for name, record in named},
        "versions": {name: record.task.version for name, record in named},
        "n-shot": {name: len(record.task.shots) for name, record in named},
        "higher_is_better": {
            name: {result.metric: result.higher_is_better for result in record.results} for name, record in named
        },
        "n-samples": {
            name: {"original": record.task.n_total, "effective": record.task.n_scored} for name, record in named
        },
        "config": {"model": "vlbench", "model_args": model, "limit": records[0].task.limit},
        "git_hash": records[0].tool.commit,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _lm_eval_config(record: RunRecord) -> dict[str, object]:
    """A task's config; its free-form metadata also lists which values are not fractions."""
    metadata = {
        "version": record.task.version,
        "data": column(record).data,
        "protocol": protocol(record),
        "seed": record.spec.seed,
        "units": {result.metric: "fraction" if _is_percentage(result) else "as recorded" for result in record.results},
    }
    return {"task": _dataset(record), "test_split": record.task.split, "metadata": metadata}


def _lm_eval_results(record: RunRecord) -> dict[str, str | float]:
    world = " (built-in world)" if record.task.source == "world" else ""
    row: dict[str, str | float] = {"alias": f"{record.task.name}{world}"}
    for result in record.results:
        scale = 100.0 if _is_percentage(result) else 1.0
        row[f"{result.metric},none"] = result.value / scale
        stderr = result.stderr
        row[f"{result.metric}_stderr,none"] = "N/A" if stderr is None or not isfinite(stderr) else stderr / scale
    return row


def _is_percentage(result: Result) -> bool:
    """Accuracies and recalls are in percent; ranks, distances and sums of recalls are not."""
    return result.higher_is_better and result.metric not in _NO_PERCENTAGE


def _evaluated_with(record: RunRecord) -> str:
    return f"vlbench {record.tool.version}"


def _hf_model_index(records: Sequence[RunRecord], source_url: str) -> str:
    """The YAML header of a model card, written and checked by huggingface_hub."""
    from huggingface_hub import EvalResult, ModelCardData

    model = _one_model(records, "hf-model-index")
    results = [
        EvalResult(
            task_type=_RETRIEVAL if first.chance else _QUESTIONS,
            dataset_type=_dataset(first),
            dataset_name=_title(first),
            dataset_split=first.task.split,
            metric_type=result.metric,
            metric_name=_metric_name(result.metric),
            metric_value=fmean(same),
            metric_args={
                "protocol": protocol(first),
                "seeds": seeds,
                "n": result.n,
                "limit": first.task.limit,
                "evaluated_with": _evaluated_with(first),
                **_spread(result, same),
            },
            source_name=_evaluated_with(first) if source_url else None,
            source_url=source_url or None,
        )
        for runs in _of_seeds(records)
        for first, seeds in [(runs[0], [run.spec.seed for run in runs])]
        for result in first.results
        if len(same := [other.value for run in runs if (other := run.result(result.metric))]) == len(runs)
    ]
    return f"---\n{ModelCardData(model_name=model, eval_results=results).to_yaml()}\n---\n"


def _spread(result: Result, values: Sequence[float]) -> dict[str, object]:
    """The interval of one run, or the standard deviation over seeds, as metric arguments: the format has no field."""
    if len(values) > 1:
        return {"stdev_over_seeds": stdev(values)}
    if result.ci95 is None or not all(map(isfinite, result.ci95)):
        return {}
    return {"ci95": list(result.ci95)}


def _metric_name(metric: str) -> str:
    """The metric in words; its name if there are none."""
    rule = next((ending for ending in _RULES if metric.endswith(ending)), "")
    stem = metric.removesuffix(rule)
    side, _, measure = stem.partition("_")
    if side in _RETRIEVED and measure in _MEASURES:
        return f"{_MEASURES[measure]}, {_RETRIEVED[side]}{_RULES.get(rule, '')}"
    return f"{_NAMES[stem]}{_RULES.get(rule, '')}" if stem in _NAMES else metric


def _of_seeds(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """The runs on each split of a task, by seed: a card has one value per metric and split."""
    places: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        places.setdefault((_dataset(record), record.task.split), []).append(record)
    for (_, split), runs in places.items():
        task = runs[0].task.name
        if len({run.spec.seed for run in runs}) < len(runs) or len({system(run) for run in runs}) > 1:
            raise VlbenchError(
                f"hf-model-index has one value for {task} {split}, and {len(runs)} runs of it differ in more than "
                f"their seed, or not even in that: give one run, or one of each seed"
            )
    return [sorted(runs, key=lambda run: run.spec.seed) for runs in places.values()]


_COLUMNS = (
    "task", "version", "source", "domain", "split", "model", "size", "seed", "mode", "protocol", "metric",
    "slice", "value_of_slice", "value", "n", "stderr", "ci95_low", "ci95_high", "n_total", "limit", "fingerprint",
    "started",
)  # fmt: skip


def _csv(records: Sequence[RunRecord], _: str) -> str:
    """One row per run, metric and slice (tidy data)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        for result in record.results:
            writer.writerow(_row(record, result, "", ""))
            for tag, parts in result.slices.items():
                writer.writerows(_row(record, part, tag, value) for value, part in parts.items())
    return text.getvalue()


def _row(record: RunRecord, result: Result, tag: str, value: str) -> dict[str, str | int | float | None]:
    low, high = result.ci95 or (None, None)
    values: dict[str, str | int | float | None] = {
        "task": record.task.name,
        "version": record.task.version,
        "source": record.task.source,
        "domain": record.spec.domain if record.task.source == "world" else "",
        "split": record.task.split,
        "model": record.model.name,
        "size": record.model.size,
        "seed": record.spec.seed,
        "mode": record.spec.mode,
        "protocol": protocol(record),
        "metric": result.metric,
        "slice": tag,
        "value_of_slice": value,
        "value": result.value,
        "n": result.n,
        "stderr": result.stderr,
        "ci95_low": low,
        "ci95_high": high,
        "n_total": record.task.n_total,
        "limit": record.task.limit,
        "fingerprint": record.fingerprint,
        "started": record.started,
    }
    return {name: as_csv(value) if isinstance(value, str) else value for name, value in values.items()}


FORMATS: Mapping[str, Callable[[Sequence[RunRecord], str], str]] = {
    "lm-eval": _lm_eval,
    _WITH_SOURCE: _hf_model_index,
    "csv": _csv,
}
"""The writers by name; each takes the records and the address where they can be looked up, empty for none."""


def _one_model(records: Sequence[RunRecord], to: str) -> str:
    names = sorted({f"{record.model.name}-{record.model.size}" for record in records})
    if len(names) != 1:
        raise VlbenchError(f"{to} describes one model, and these runs are of {', '.join(names) or 'none'}: give one's")
    return names[0]


def _dataset(record: RunRecord) -> str:
    """The task's name; for the synthetic world a name that no real dataset has."""
    if record.task.source == "real":
        return record.task.name
    look = "" if record.spec.domain == "plain" else f"_{record.spec.domain}"
    return f"vlbench_world_{record.task.name}{look}"


def _title(record: RunRecord) -> str:
    """The task's title, with what distinguishes the data from the official data: synthetic, or only a part."""
    known = record.task.name in catalog.task_folders()
    title = catalog.task_card(record.task.name).title if known else record.task.name
    remarks = ["vlbench's built-in world"] if record.task.source == "world" else []
    if remarks and record.spec.domain != "plain":
        remarks.append(record.spec.domain)
    if record.task.n_scored != record.task.n_total:
        remarks.append(f"{record.task.n_scored:,} of {record.task.n_total:,} examples")
    if record.unanswered:
        remarks.append(f"{record.unanswered:,} examples could not be answered and count as wrong")
    return f"{title} ({', '.join(remarks)})" if remarks else title
