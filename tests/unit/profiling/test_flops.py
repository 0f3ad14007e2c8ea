"""Operations compared with counts by hand, parameters with those of the modules."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from vlbench.profiling.flops import count_costs, module_mib
from vlbench.profiling.timing import Stage


class Block(nn.Module):
    """Attention of 2 heads and a feed-forward layer, of width 8."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        parts = self.mix(states).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts)
        states = states + self.out(mixed.transpose(1, 2).flatten(2))
        return states + self.narrow(functional.gelu(self.wide(states)))


def test_a_block_counted_by_hand() -> None:
    block, states = Block(), torch.randn(1, 5, 8)
    with torch.inference_mode():
        operations, _ = count_costs({"block": block}, [Stage("fuse", lambda: block(states))])
    tokens, width = 5, 8
    products = tokens * width * (3 * width) + tokens * width * width + 2 * tokens * width * (4 * width)
    attention = 2 * tokens * tokens * width
    assert operations.total == 2 * (products + attention)
    assert operations.uncounted == {"add": 2, "gelu": 1}


def test_a_convolution_counted_by_hand() -> None:
    layer = nn.Conv2d(3, 16, 5, stride=2, padding=2)
    with torch.inference_mode():
        operations, _ = count_costs({"": layer}, [Stage("see", lambda: layer(torch.randn(2, 3, 10, 12)))])
    assert operations.total == 2 * (2 * 5 * 6) * 16 * (3 * 5 * 5)


def test_stages_own_what_they_use_first() -> None:
    table, see, fuse, idle = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 100)
    tied = nn.Linear(4, 10, bias=False)
    tied.weight = table.weight
    stages = [
        Stage("read", lambda: table(torch.tensor([1]))),
        Stage("see", lambda: see(torch.randn(1, 4))),
        Stage("fuse", lambda: (see(torch.randn(1, 4)), fuse(torch.randn(1, 4)), tied(torch.randn(1, 4)))),
    ]
    modules = {"a": nn.ModuleList([table, see, tied]), "b": nn.ModuleList([fuse, idle])}
    _, parameters = count_costs(modules, stages)
    assert parameters.stages == {"read": 40, "see": 20, "fuse": 10, "other": 500}
    assert (parameters.total, parameters.embeddings) == (570, 40)
    assert module_mib([*modules.values()]) == 570 * 4 / 2**20
    assert not see._forward_pre_hooks
