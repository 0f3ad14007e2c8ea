"""Data that the report of a finished run needs besides the record: its images, and the attention of its answers.

Nothing here imports torch, except the functions that compute attention.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vlbench import catalog
from vlbench.core.backbone import Attentive
from vlbench.core.cards import Recipe
from vlbench.core.columns import queries_of, refs_of
from vlbench.core.errors import DataError, ExitCode, VlbenchError, first_five
from vlbench.core.examples import Examples
from vlbench.core.modes import MODES
from vlbench.core.paths import expand_home
from vlbench.core.progress import Progress
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.task import ids_of
from vlbench.data.cache.folder import cache_folder
from vlbench.engine.job import Job, plan
from vlbench.engine.source import load_task
from vlbench.engine.weights.files import PRETRAINED, weights_file
from vlbench.records.attention import Attended, Attention, read_attention, write_attention
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.samples import read_samples
from vlbench.report.html.examples import chosen
from vlbench.report.html.thumbnails import ReportImages
from vlbench.world.generate import is_world, world_folder


def find_images(
    folder: RunFolder, record: RunRecord, data_root: Path | None = None, tasks_dir: Path | None = None
) -> ReportImages:
    """Find the images of a run's split: in `data_root`, else in the run's, else in the built-in world if it is cached.

    tasks_dir: the user's own tasks. The folder that the record names is not searched: a report on the run of a stranger
    must not run code that came with it.

    Raises:
        VlbenchError: the data in `data_root` cannot be read.
    """
    spec = record.spec
    root = data_root or folder.resolve_path(spec.data_root)
    named = root or os.environ.get("VLBENCH_DATA")
    if not named and not is_world(world_folder(cache_folder(), spec.domain)):
        return ReportImages(absent="the built-in world is not in the cache; vlbench data world makes it")
    try:
        task = load_task(record.task.name, root, domain=spec.domain, tasks_dir=tasks_dir, allow_partial=True)
        examples = task.load(record.task.split)
    except VlbenchError as error:
        if data_root is not None:
            raise
        return ReportImages(absent=error.message)
    texts = (query.text for query in queries_of(examples))
    return ReportImages(
        {ref.key: ref.path for ref in refs_of(examples)}, dict(zip(ids_of(examples), texts, strict=True))
    )


def compute_attention(
    run: Path,
    data_root: Path | None,
    most: int,
    progress: Progress,
    tasks_dir: Path | None = None,
    trust_code: bool = False,
) -> None:
    """Compute the attention of the `most` examples in a run's report and keep it in the run's folder, once.

    run: a run's folder or its run.json. data_root: of the images, if it is not the run's. tasks_dir: the user's own
    tasks. trust_code: run code of the model that the record names.

    Raises:
        VlbenchError: the run is not finished, or its model is code that is not trusted; exit 6, its weights are missing
            or have changed.
        DataError: the data differ from the run's.
        Interrupted: asked to stop; nothing is kept.
    """
    folder, record = RunFolder.open(run), read_run(run)
    if record.status != "done":
        raise VlbenchError(f"{folder.path} is {record.status}, and --attention needs a finished run: run it to its end")
    if not trust_code and (record.spec.trust_remote_code or ".py:" in record.spec.model):
        raise VlbenchError(
            f"{folder.path} names {record.spec.model} with code of its own, and a record may come from anybody: add "
            f"--trust-code to run that code, or leave out --attention"
        )
    rows = read_samples(folder.samples)
    shown = chosen(rows[rows["control"] == ""], most)
    shown = shown[shown["status"] != "error"]  # the images of the others may be unreadable
    texts, answers = (dict(zip(shown["example_id"], shown[column], strict=True)) for column in ("text", "prediction"))
    job = plan(_repeat_spec(folder, record, data_root, tasks_dir), progress)
    if not MODES[record.spec.mode].trains and job.weights_sha256 != record.model.weights_sha256:
        raise VlbenchError(
            f"the weights of {record.spec.checkpoint} have changed since the run: run again, or leave out --attention",
            ExitCode.WEIGHTS,
        )
    kept = None
    with suppress(DataError):  # the file is missing or damaged
        kept = read_attention(folder.attention, record.fingerprint)
    if kept and kept.weights_sha256 == job.weights_sha256 and (kept.absent or texts.keys() <= kept.rows.keys()):
        return
    examples = _find_examples(job, texts)
    absent = _why_no_attention(job)
    attention = {} if absent else _compute(job, examples, {} if job.kind.ranks_gallery else answers, progress)
    write_attention(folder.attention, Attention(record.fingerprint, job.weights_sha256, absent, attention))


def _repeat_spec(folder: RunFolder, record: RunRecord, data_root: Path | None, tasks_dir: Path | None) -> RunSpec:
    """The spec that repeats the run's answers: trained weights are evaluated, other runs are repeated."""
    spec = record.spec
    trained = MODES[spec.mode].trains
    changes: dict[str, object] = {
        "mode": "eval" if trained else spec.mode,
        "checkpoint": _find_checkpoint(folder, record),
        "data_root": data_root or folder.resolve_path(spec.data_root),
        "tasks_dir": tasks_dir,
        "train_split": None,
        "select_on": None,
        "select_limit": None,
        "controls": (),
        "vocabulary": None if trained else folder.resolve_path(spec.vocabulary),  # trained weights bring their own
        "answers": None if trained else folder.resolve_path(spec.answers),
        "train": Recipe(),
        "allow_partial": True,
        "device": None,
    }
    return spec.model_copy(update=changes)


def _find_checkpoint(folder: RunFolder, record: RunRecord) -> str | None:
    """The weights of the run's answers, as a value of `--checkpoint`; a VlbenchError (exit 6) if they are missing."""
    given = record.spec.checkpoint
    if MODES[record.spec.mode].trains:
        path = folder.best / "model.safetensors"
    elif given in (None, "none", "shipped", PRETRAINED):
        return given
    else:
        path = folder.resolve_path(expand_home(Path(given)))
    try:
        return str(weights_file(path))
    except VlbenchError:
        raise VlbenchError(
            f"the weights of run {folder.path} are missing: put {path} back, or leave out --attention", ExitCode.WEIGHTS
        ) from None


def _find_examples(job: Job, texts: Mapping[str, str]) -> Examples:
    """The examples of these ids with these texts; a DataError if some are missing."""
    examples = [example for example in job.report if texts.get(example.id) == example.query.text]
    missing = sorted(texts.keys() - {example.id for example in examples})
    if missing:
        raise DataError(
            f"{job.task.root} lacks {len(missing):,} of the run's {len(texts):,} examples, or has other texts for them "
            f"({first_five(missing)}): give --data-root with the data of the run, or leave out --attention"
        )
    return examples


def _why_no_attention(job: Job) -> str:
    """Why there is no attention to show; empty if there is."""
    if job.kind.compares_embeddings:
        return "the answers compare embeddings of images and texts, which do not attend to each other"
    if not issubclass(catalog.backbone_class(job.card), Attentive):
        return f"{job.card.name} does not give its attention"
    return ""


def _compute(
    job: Job, examples: Examples, answers: Mapping[str, str], progress: Progress
) -> Mapping[str, Sequence[Attended]]:
    """The attention by example id."""
    from vlbench.engine.build import build_learner, load_initial_weights
    from vlbench.engine.evaluators.attention import compute_attention as attend  # imports torch
    from vlbench.engine.resources import make_resources, resource_spec
    from vlbench.engine.runtime.environment import make_accelerator
    from vlbench.engine.runtime.interrupt import Interrupt, Stoppable

    device = make_accelerator(None, "float32", job.threads).device
    with Interrupt() as interrupt:
        stoppable = Stoppable(progress, interrupt)
        resources = make_resources(replace(resource_spec(job), image_examples=examples), stoppable)
        learner = build_learner(job, resources)
        load_initial_weights(learner, job, resources)
        learner.to(device)
        return attend(learner, examples, answers, job.spec.eval_batch_size, device, stoppable)
