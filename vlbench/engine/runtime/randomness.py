"""The states of all random generators in a process, so that work continues as if it had never been interrupted."""

from __future__ import annotations

import random
from typing import TypeAlias, TypedDict

import numpy
import torch
from torch import Tensor

PythonState: TypeAlias = tuple[int, tuple[int, ...], float | None]


class RandomState(TypedDict):
    """The states of python, numpy, torch on the CPU and the process's GPU, if any, as plain values and tensors."""

    python: PythonState
    numpy: tuple[str, list[int], int, int, float]
    cpu: Tensor
    cuda: Tensor | None


def random_state() -> RandomState:
    """The current states."""
    python: PythonState = random.getstate()
    name, keys, position, has_gauss, gauss = numpy.random.get_state(legacy=True)
    return RandomState(
        python=python,
        numpy=(str(name), numpy.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)),
        cpu=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def restore_random_state(state: RandomState) -> None:
    """Put all generators into this state."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((name, numpy.array(keys, numpy.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
