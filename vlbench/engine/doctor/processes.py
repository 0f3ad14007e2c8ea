"""Whether two processes answer as one does, by way of whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.engine.doctor.subject import Subject
from vlbench.engine.doctor.verdict import Check, judged
from vlbench.engine.evaluate import run
from vlbench.engine.runtime.launch import launch
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.records.samples import read_samples

NAME = "processes"
BATCH = 8
"""Examples per forward: small, so that both processes have work."""
PICTURES = 8
"""Of a gallery, pair by pair."""
TOLERANCE = {"cpu": 0.0, "cuda": 1e-3}
"""Largest difference of probabilities: whole batches are handed out, so on the CPU there is none at all."""


def check_processes(subject: Subject, checkpoints: Checkpoints, examples: int) -> Check:
    """The model as it stands, written down and evaluated by one process and by two.

    Raises:
        Interrupted: asked to stop.
    """
    device = subject.device.type
    if device not in TOLERANCE or (device == "cuda" and torch.cuda.device_count() < 2):
        return Check(name=NAME, verdict="skipped", found=f"there is one {device} only")
    checkpoints.save_best(subject.learner)
    spec = _spec(subject, checkpoints.folder, examples)
    try:
        alone = evaluated(spec.model_copy(update={"output_path": checkpoints.folder / "alone"}))
        two = {"output_path": checkpoints.folder / "together", "num_processes": 2}
        together = launch(evaluated, (spec.model_copy(update=two),), 2)
    except VlbenchError as error:
        if error.exit_code == ExitCode.INTERRUPTED:
            raise
        return Check(name=NAME, verdict="broken", found=error.message)
    return _compared(Path(alone), Path(together), TOLERANCE[device])


def evaluated(spec: RunSpec) -> str:
    """Do the run; where its samples are."""
    return str(run(spec, Silent())[1].samples)


def _spec(subject: Subject, folder: Path, examples: int) -> RunSpec:
    return subject.job.spec.model_copy(
        update={
            "mode": "eval",
            "checkpoint": str(folder / "best"),
            "train_split": None,
            "select_on": None,
            "limit": float(PICTURES if subject.job.kind.ranks_gallery else examples),
            "eval_batch_size": BATCH,
            "controls": (),
            "answers": None,
            "vocabulary": None,
            "device": subject.device.type,
            "threads": 1,
        }
    )


def _compared(alone: Path, together: Path, tolerance: float) -> Check:
    """Whether both files hold the same ids, answers and scores."""
    one, two = (read_samples(path).sort_values("example_id") for path in (alone, together))
    if list(one["example_id"]) != list(two["example_id"]):
        return Check(name=NAME, verdict="broken", found="two processes did not answer the same examples as one")
    flips = int((one["prediction"].to_numpy() != two["prediction"].to_numpy()).sum())
    scores = [np.concatenate([np.sort(row) for row in frame["label_scores"]]) for frame in (one, two)]
    same = len(scores[0]) == len(scores[1])
    largest = float(np.abs(scores[0] - scores[1]).max(initial=0.0)) if same else None
    sound = largest is not None and largest <= tolerance and flips == 0
    found = f"with two processes instead of one: answers {'agree' if sound else 'differ'}"
    return judged(NAME, sound, found, len(one), flips, largest, tolerance)
