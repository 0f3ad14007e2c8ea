"""Judge a file before `torch.load` reads it, and explain why it rejects one: a pickle may call any Python object."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_NAMED = re.compile(r"GLOBAL ([\w.]+)")
"""How torch names the Python object that it does not load."""
_COMPRESSED_CODE = 16 << 20
"""More bytes than the code of a TorchScript archive has, which is named as such; tensors are not compressed."""


def check_sizes(path: Path) -> None:
    """Check that the parts of a zip file hold about as many bytes as the file, as those that torch writes do.

    Raises ValueError: they hold more, since they are compressed or overlap. Raises BadZipFile or OSError: it cannot be
    read.
    """
    with zipfile.ZipFile(path) as archive:
        held = sum(part.file_size for part in archive.infolist())
    if held > path.stat().st_size + _COMPRESSED_CODE:
        raise ValueError(f"its parts hold {held:,} bytes where the file has {path.stat().st_size:,}")


def more_than_weights(error: Exception) -> str:
    """Return the end of a sentence that says which Python object the rejected file contains.

    Empty if the error is about anything else.
    """
    match = _NAMED.search(" ".join(str(error).split()))
    if match is None:
        return ""
    return (
        f"holds more than weights (Python's {match[1]}), of which nothing was run: "
        f"give a file with the tensors alone, as torch.save(model.state_dict(), FILE) writes it"
    )
