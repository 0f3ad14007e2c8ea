"""Matrices of scores on disk: shape and type are compared with what is expected before any number is read.

Shapes: N images, M texts.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from vlbench.core.errors import DataError
from vlbench.data.files.foreign import reading
from vlbench.metrics.ranks import ScoreMatrix

NAME = "scores"
"""The name of the scores where a `.npz` holds several arrays."""
_HEADER_BYTES = 1 << 14
"""More than numpy writes or reads as the header of an array (10,000)."""
_FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
"""Types of safetensors -> their names in numpy and torch; `I` and `U` are integers."""


def read_matrix(path: Path, expected: tuple[int, int]) -> ScoreMatrix:
    """Read the scores [N, M] of a `.npy`, `.npz` or `.safetensors` file. expected: N and M.

    A `.npz` with several arrays names one of them `scores`. bfloat16 becomes float32, integers become float64.
    Raises DataError: the file cannot be read, or holds anything but numbers of the expected shape.
    """
    read = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[path.suffix]
    scores = read(path, expected)
    return scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)


def check_matrix(path: Path, dtype: str, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Raise DataError unless an array of this type and shape can be the scores of `expected` images and texts."""
    is_number = dtype in _FLOATS.values() or dtype.startswith(("int", "uint", "float128", "longdouble"))
    if not is_number or len(shape) != 2:
        raise DataError(
            f"{path} holds {dtype} of shape {shape}: expected numbers, a row per image and a column per text"
        )
    if shape != expected:
        raise DataError(
            f"{path} holds scores of {shape[0]:,} images by {shape[1]:,} texts where {expected[0]:,} "
            f"by {expected[1]:,} are expected: give a row per image and a column per text, in the order of the split"
        )


def only_name(path: Path, names: Sequence[str]) -> str:
    """The name of the scores. Raises DataError: there is none, or several."""
    if len(names) != 1:
        raise DataError(f"{path} holds {len(names)} tensors where one, the scores, is expected: save it alone")
    return names[0]


def _npy(path: Path, expected: tuple[int, int]) -> ScoreMatrix:
    what = ("is not a readable .npy file", "save one array with numpy.save")
    with reading(path, *what), path.open("rb") as file:
        dtype, shape, start = _header(file)
    check_matrix(path, str(dtype), shape, expected)
    with reading(path, *what):
        _check_size(path.stat().st_size - start, dtype, shape)
        scores: ScoreMatrix = np.load(path, mmap_mode="r", allow_pickle=False)
    return scores


def _npz(path: Path, expected: tuple[int, int]) -> ScoreMatrix:
    what = ("is not a readable .npz file", "save one array with numpy.savez")
    with reading(path, *what), zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    name = NAME if NAME in sizes else only_name(path, list(sizes))
    with reading(path, *what), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        dtype, shape, start = _header(file)
    check_matrix(path, str(dtype), shape, expected)
    with reading(path, *what), np.load(path, allow_pickle=False) as arrays:
        _check_size(sizes[name] - start, dtype, shape)
        scores: ScoreMatrix = arrays[name]
    return scores


def _header(file: IO[bytes]) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """The type and the shape of an array, and the length of the header that gives them."""
    start = io.BytesIO(file.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(start)
    except MemoryError:  # of the parser's stack, not of the machine: the text is short and nested
        raise ValueError("its header is no description of an array") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return dtype, shape, start.tell()


def _check_size(size: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    announced = dtype.itemsize * shape[0] * shape[1]
    if size != announced:
        raise ValueError(f"its header announces {announced:,} bytes where {size:,} follow")


def _safetensors(path: Path, expected: tuple[int, int]) -> ScoreMatrix:
    from safetensors import safe_open

    what = ("does not load as safetensors", "save one tensor of numbers")
    with reading(path, *what), safe_open(path, "np") as file:
        header = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        kinds = {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in header.items()}
    name = only_name(path, list(kinds))
    kind, shape = kinds[name]
    dtype = _FLOATS.get(kind) or (kind.replace("U", "uint").replace("I", "int") if kind[0] in "IU" else kind)
    check_matrix(path, dtype, shape, expected)
    with reading(path, *what):
        if kind != "BF16":
            with safe_open(path, "np") as file:
                scores: ScoreMatrix = file.get_tensor(name)
            return scores
        # numpy has no bfloat16: the upper half of a float32. The values of the only tensor end the file.
        upper_half = np.fromfile(path, "<u2", offset=path.stat().st_size - 2 * shape[0] * shape[1])
    return (upper_half.reshape(shape).astype(np.uint32) << 16).view(np.float32)
