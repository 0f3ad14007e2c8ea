"""Explain why `torch.load(weights_only=True)` rejects a file: a pickle may call any Python object."""

from __future__ import annotations

import re

_NAMED = re.compile(r"GLOBAL ([\w.]+)")
"""How torch names the Python object that it does not load."""


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
