"""What `vlbench run --dry-run` prints: the plan, and an estimate of the time."""

from __future__ import annotations

from tabulate import tabulate

from vlbench.engine.dry_run import DryRun


def dry_run_text(plan: DryRun) -> str:
    """The splits, the weights, the fingerprint and the estimated time of each part."""
    job, spec = plan.job, plan.job.spec
    facts = [
        ("task", f"{job.task.card.name} ({'synthetic data' if job.task.source == 'world' else 'real data'})"),
        ("model", f"{job.card.name}-{job.size}, {plan.parameters:,} parameters, {spec.mode}"),
        ("weights", plan.weights.removeprefix("weights: ")),
        *((use, f"{split}, {count:,} examples") for use, split, count in plan.splits if split not in ("None", "none")),
        ("notes", "; ".join((*job.task.notes, *job.notes))),
        ("device", f"{plan.device}, {spec.dtype}"),
        ("fingerprint", job.fingerprint),
    ]
    rows = [
        (phase.name, f"{phase.amount:,}", phase.unit, f"{phase.rate * phase.processes:,.1f}", duration(phase.seconds))
        for phase in plan.phases
    ]
    controls = len(spec.controls or ())
    total = sum(phase.seconds for phase in plan.phases) * (1 + controls)
    last = f"about {duration(total)} in all" + (", with the control run after it (--jobs 1)" if controls else "")
    headers, alignment = ("part", "amount", "of", "a second", "takes"), ("left", "right", "left", "right", "right")
    plain = tabulate([fact for fact in facts if fact[1]], tablefmt="plain", disable_numparse=True)
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=alignment)
    return f"{plain}\n\n{table}\n\n{last}; measured on a few batches, nothing was written"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
