"""Read a matrix of scores from a file of PyTorch's, without running the code that its pickle may hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from vlbench.core.errors import DataError
from vlbench.data.files.foreign import reading
from vlbench.data.files.pickles import check_sizes
from vlbench.metrics.ranks import ScoreMatrix
from vlbench.records.score_matrix import check_matrix, only_name

_WHAT = ("is not a readable .pt file", "save one tensor with torch.save")


def read_score_tensor(path: Path, expected: tuple[int, int]) -> ScoreMatrix:
    """Read scores [N, M]: one tensor, or a dict with one. expected: N and M.

    bfloat16 becomes float32, integers become float64. Type and shape are compared before any number is read.
    Raises DataError: the file cannot be read, holds code, or anything but numbers of the expected shape.
    """
    with reading(path, *_WHAT):
        check_sizes(path)  # the older format, which is no zip file, has no sizes to judge it by
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(content, Mapping):
        content = content[only_name(path, list(content))]
    if not isinstance(content, torch.Tensor):
        raise DataError(f"{path} holds a {type(content).__name__} where scores are expected: {_WHAT[1]}")
    check_matrix(path, str(content.dtype).removeprefix("torch."), tuple(content.shape), expected)
    with reading(path, *_WHAT):
        is_numpy = content.dtype in (torch.float16, torch.float32, torch.float64)
        kind = content.dtype if is_numpy else torch.float32 if content.dtype.is_floating_point else torch.float64
        scores: ScoreMatrix = content.detach().to(kind).numpy()
    return scores
