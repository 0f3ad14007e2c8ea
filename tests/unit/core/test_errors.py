"""What running out of memory looks like, which no type of torch's tells on every platform."""

from __future__ import annotations

import pytest
import torch

from vlbench.core.errors import causes, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (torch.OutOfMemoryError("Allocation on device"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_looks_like(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_an_error_that_is_its_own_cause_ends_the_search_for_causes() -> None:
    error = ValueError()
    error.__cause__ = error
    assert list(causes(error)) == [error]
