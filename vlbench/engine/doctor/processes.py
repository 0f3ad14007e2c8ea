"""Check that two processes give the same answers as one, by two complete runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.engine.doctor.checks import Check, make_check
from vlbench.engine.doctor.examined_model import ExaminedModel
from vlbench.engine.evaluate import run
from vlbench.engine.runtime.launch import launch
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.records.samples import read_samples

NAME = "processes"
BATCH = 8
"""Examples per forward pass: small, so that both processes get batches."""
GALLERY_IMAGES = 8
"""Images of the gallery of a model that ranks."""
TOLERANCE = {"cpu": 0.0, "cuda": 1e-3}
"""Largest difference of probabilities: processes get whole batches, so on the CPU results are identical."""


def check_processes(model: ExaminedModel, checkpoints: Checkpoints, examples: int) -> Check:
    """Save the model and evaluate it with one process and with two.

    Raises:
        Interrupted: asked to stop.
    """
    device = model.device.type
    if device not in TOLERANCE or (device == "cuda" and torch.cuda.device_count() < 2):
        return Check(name=NAME, verdict="skipped", found=f"there is only one {device} device")
    checkpoints.save_best(model.learner)
    spec = _eval_spec(model, checkpoints.folder, examples)
    try:
        alone = run_to_samples(spec.model_copy(update={"output_path": checkpoints.folder / "alone"}))
        two = {"output_path": checkpoints.folder / "together", "num_processes": 2}
        together = launch(run_to_samples, (spec.model_copy(update=two),), 2)
    except VlbenchError as error:
        if error.exit_code == ExitCode.INTERRUPTED:
            raise
        return Check(name=NAME, verdict="broken", found=error.message)
    return _compare_samples(Path(alone), Path(together), TOLERANCE[device])


def run_to_samples(spec: RunSpec) -> str:
    """Do the run; returns the path of its samples."""
    return str(run(spec, Silent())[1].samples)


def _eval_spec(model: ExaminedModel, folder: Path, examples: int) -> RunSpec:
    limit = float(GALLERY_IMAGES if model.job.kind.ranks_gallery else examples)
    changed = {"mode": "eval", "checkpoint": str(folder / "best"), "limit": limit, "eval_batch_size": BATCH}
    changed |= {"controls": (), "device": model.device.type, "threads": 1}
    unset = ("train_split", "select_on", "answers", "vocabulary")
    return model.job.spec.model_copy(update=changed | dict.fromkeys(unset))


def _compare_samples(alone: Path, together: Path, tolerance: float) -> Check:
    """Check that both files hold the same ids, answers and scores."""
    first, second = (read_samples(path).sort_values("example_id") for path in (alone, together))
    if list(first["example_id"]) != list(second["example_id"]):
        return Check(name=NAME, verdict="broken", found="two processes did not answer the same examples as one")
    flips = int((first["prediction"].to_numpy() != second["prediction"].to_numpy()).sum())
    scores = [np.concatenate([np.sort(row) for row in frame["label_scores"]]) for frame in (first, second)]
    same_length = len(scores[0]) == len(scores[1])
    largest = float(np.abs(scores[0] - scores[1]).max(initial=0.0)) if same_length else None
    passed = largest is not None and largest <= tolerance and flips == 0
    found = f"with two processes instead of one: answers {'agree' if passed else 'differ'}"
    return make_check(NAME, passed, found, len(first), flips, largest, tolerance)
