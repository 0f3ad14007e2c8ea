"""Which file a user's `--checkpoint` means, and its hash; without torch, because the fingerprint needs both."""

from __future__ import annotations

import hashlib
from pathlib import Path

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


def weights_sha256(checkpoint: str) -> str:
    """The hash of the checkpoint's bytes; empty where the model starts from scratch ("none")."""
    if checkpoint == "none":
        return ""
    with weights_file(Path(checkpoint)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
