"""Which file a user's `--checkpoint` means, and its hash; without torch, because the fingerprint needs both."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError


def weights_file(path: Path) -> Path:
    """The safetensors file itself, or that of a checkpoint's or a run's folder.

    Raises:
        VlbenchError: exit 6, there is none.
    """
    for candidate in (path, path / "model.safetensors", path / "checkpoints" / "best" / "model.safetensors"):
        if candidate.is_file():
            return candidate
    raise VlbenchError(
        f"--checkpoint {path} holds no weights: give a .safetensors file, a checkpoint folder or a run's folder",
        ExitCode.WEIGHTS,
    )


def chosen_weights(checkpoint: str, model: str, size: str) -> Path | None:
    """The file that a resolved `checkpoint` means: None for "none", the model's own for "shipped".

    Raises:
        VlbenchError: exit 6, there is none.
    """
    if checkpoint == "none":
        return None
    if checkpoint != "shipped":
        return weights_file(Path(checkpoint))
    shipped = catalog.shipped_weights(model, size)
    if shipped is None:
        raise VlbenchError(
            f"--checkpoint shipped: {model}-{size} comes without weights, give a file or none", ExitCode.WEIGHTS
        )
    return shipped


def weights_sha256(weights: Path | None) -> str:
    """The hash of the file's bytes; empty where the model starts from scratch."""
    if weights is None:
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
