"""The states of every source of chance in a process, so that work goes on as if it had never been interrupted."""

from __future__ import annotations

import random
from typing import TypedDict, cast

import numpy
import torch
from torch import Tensor


class RandomState(TypedDict):
    """Of python, numpy, torch on the CPU, and the process's own GPU where it has one; plain values and tensors only."""

    python: tuple[int, tuple[int, ...], float | None]
    numpy: tuple[str, list[int], int, int, float]
    cpu: Tensor
    cuda: Tensor | None


def random_state() -> RandomState:
    """The states as they are now."""
    name, keys, place, has_gauss, gauss = numpy.random.get_state(legacy=True)
    return RandomState(
        python=cast("tuple[int, tuple[int, ...], float | None]", random.getstate()),
        numpy=(str(name), numpy.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)),
        cpu=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def restore_random_state(state: RandomState) -> None:
    """Go on drawing from there."""
    random.setstate(state["python"])
    name, keys, place, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((name, numpy.array(keys, numpy.uint32), place, has_gauss, gauss))
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
