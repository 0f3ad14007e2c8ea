"""torch.compile: the same answers to rounding, or a sentence where this machine cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlbench.core.errors import VlbenchError
from vlbench.engine.runtime.environment import compile_forward


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> object:
        raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nmore of it")

    monkeypatch.setattr(torch, "compile", fails)
    said = r"--compile does not work here \(InvalidCxxCompiler: No working C\+\+ compiler found\): install a C\+\+"
    with pytest.raises(VlbenchError, match=said):
        compile_forward(nn.Linear(2, 2), torch.device("cpu"))


@pytest.mark.slow
def test_compiled_gives_the_same() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    inputs = [torch.randn(rows, 4) for rows in (3, 5)]
    plain, names = [module(one) for one in inputs], [*module.state_dict()]
    try:
        compile_forward(module, torch.device("cpu"))
    except VlbenchError as error:
        pytest.skip(error.message)
    for one, expected in zip(inputs, plain, strict=True):
        assert torch.allclose(module(one), expected, atol=1e-6)
    assert [*module.state_dict()] == names  # nothing is renamed
