"""What PyTorch's reader of weights refuses, because a pickle may name anything to be called."""

from __future__ import annotations

import re

_NAMED = re.compile(r"GLOBAL ([\w.]+)")
"""How torch says which name of Python's it refused to look up."""


def more_than_weights(error: Exception) -> str:
    """What is wrong with a file that `torch.load(weights_only=True)` refuses, for the end of a sentence.

    Empty where the error says something else than that it holds code or objects of other kinds.
    """
    named = _NAMED.search(" ".join(str(error).split()))
    if named is None:
        return ""
    return (
        f"holds more than weights (Python's {named[1]}), of which nothing was run: "
        f"give a file with the tensors alone, as torch.save(model.state_dict(), FILE) writes it"
    )
