"""What a finished run's answers attended to, computed from its weights and kept in its folder; once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vlbench import catalog
from vlbench.core.backbone import Attentive
from vlbench.core.cards import Recipe
from vlbench.core.errors import DataError, ExitCode, VlbenchError, first_five
from vlbench.core.progress import Progress
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.engine.job import Job, plan
from vlbench.engine.limit import Examples
from vlbench.engine.weights.files import weights_file
from vlbench.engine.weights.pretrained import PRETRAINED
from vlbench.records.attention import Attended, Attention, read_attention, write_attention
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.samples import read_samples
from vlbench.report.html.examples import chosen


def keep_attention(run: Path, data_root: Path | None, most: int, progress: Progress) -> None:
    """Compute the attention of the examples that a report of the run shows, unless its folder has it already.

    Nothing else in the folder changes.

    Args:
        run: a run's folder or its run.json.
        data_root: where the pictures are, if elsewhere than for the run.
        most: examples shown.
        progress: of the work.

    Raises:
        VlbenchError: the run is not finished; exit 6, its weights are gone or others.
        DataError: the data at hand are not the run's.
        Interrupted: asked to stop; nothing is kept.
    """
    folder, record = RunFolder.open(run), read_run(run)
    if record.status != "done":
        raise VlbenchError(f"{folder.path} is {record.status}, and --attention needs a finished run: run it to its end")
    rows = read_samples(folder.samples)
    shown = chosen(rows[rows["control"] == ""], most)
    texts, answers = (dict(zip(shown["example_id"], shown[column], strict=True)) for column in ("text", "prediction"))
    job = plan(_spec(folder, record, data_root), progress)
    _check_weights(job, record)
    known = _known(folder, record)
    if known and known.weights_sha256 == job.weights_sha256 and (known.absent or texts.keys() <= known.rows.keys()):
        return
    asked = _asked(job, texts)
    absent = _silence(job)
    found = {} if absent else _computed(job, asked, {} if job.ranks else answers, progress)
    write_attention(folder.attention, Attention(record.fingerprint, job.weights_sha256, absent, found))


def _spec(folder: RunFolder, record: RunRecord, data_root: Path | None) -> RunSpec:
    """How the run's answers are asked for again: its trained weights evaluated, or what was not trained as it was."""
    asked = record.spec
    trained = asked.mode in ("finetune", "probe")
    changes: dict[str, object] = {
        "mode": "eval" if trained else asked.mode,
        "checkpoint": _weights(folder, record),
        "data_root": data_root or folder.resolve_path(asked.data_root),
        "tasks_dir": folder.resolve_path(asked.tasks_dir),
        "train_split": None,
        "select_on": None,
        "select_limit": None,
        "controls": (),
        "vocabulary": None if trained else folder.resolve_path(asked.vocabulary),  # trained weights bring their own
        "answers": None if trained else folder.resolve_path(asked.answers),
        "train": Recipe(),
        "allow_partial": True,
        "device": None,
    }
    return asked.model_copy(update=changes)


def _weights(folder: RunFolder, record: RunRecord) -> str | None:
    """What the run's answers came from, as `--checkpoint` takes it.

    Raises:
        VlbenchError: exit 6, they are gone.
    """
    given = record.spec.checkpoint
    if record.spec.mode in ("finetune", "probe"):
        place = folder.best / "model.safetensors"
    elif given in (None, "none", "shipped", PRETRAINED):
        return given
    else:
        place = folder.resolve_path(Path(given).expanduser())
    try:
        return str(weights_file(place))
    except VlbenchError:
        raise VlbenchError(
            f"the weights of run {folder.path} are gone: put {place} back, or leave out --attention", ExitCode.WEIGHTS
        ) from None


def _check_weights(job: Job, record: RunRecord) -> None:
    if record.spec.mode not in ("finetune", "probe") and job.weights_sha256 != record.model.weights_sha256:
        raise VlbenchError(
            f"the weights of {record.spec.checkpoint} are not those that answered any more: run again, or leave out "
            f"--attention",
            ExitCode.WEIGHTS,
        )


def _known(folder: RunFolder, record: RunRecord) -> Attention | None:
    """What is kept already; a damaged file is as good as none."""
    try:
        return read_attention(folder.attention, record.fingerprint)
    except DataError:
        return None


def _asked(job: Job, texts: Mapping[str, str]) -> Examples:
    """The examples of these ids, which must have these texts.

    Raises:
        DataError: the data has other examples.
    """
    asked = [example for example in job.report if texts.get(example.id) == example.query.text]
    missing = sorted(texts.keys() - {example.id for example in asked})
    if missing:
        raise DataError(
            f"{job.task.root} lacks {len(missing):,} of the run's {len(texts):,} examples, or has other texts for them "
            f"({first_five(missing)}): give --data-root with the data of the run, or leave out --attention"
        )
    return asked


def _silence(job: Job) -> str:
    """Why there is no attention to tell of, before anything is loaded; empty where there is."""
    if job.compares or (job.ranks and job.card.ranks_by == "dual"):
        return "the answers compare embeddings of pictures and texts, which do not attend to each other"
    if not issubclass(catalog.backbone_class(job.card), Attentive):
        return f"{job.card.name} does not tell what it attends to"
    return ""


def _computed(
    job: Job, asked: Examples, answers: Mapping[str, str], progress: Progress
) -> Mapping[str, Sequence[Attended]]:
    """The attention by example id."""
    from vlbench.engine.build import begin, new_learner
    from vlbench.engine.evaluators.attention import attended  # the first import of torch
    from vlbench.engine.resources import make_resources, of_job
    from vlbench.engine.runtime.environment import make_accelerator
    from vlbench.engine.runtime.interrupt import Interrupt, Stoppable

    device = make_accelerator(None, "float32", job.threads).device
    with Interrupt() as interrupt:
        stoppable = Stoppable(progress, interrupt)
        resources = make_resources(replace(of_job(job), seen=asked), stoppable)
        learner = new_learner(job, resources)
        begin(learner, job, resources)
        learner.to(device)
        return attended(learner, asked, answers, job.spec.eval_batch_size or 1, device, stoppable)
