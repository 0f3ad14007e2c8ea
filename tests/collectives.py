"""What processes do together, on known numbers: `torchrun collectives.py OUT WORLD`. Each leaves its results.

And a training in which a step has fewer examples than there are processes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.training.batchnorm import synchronise_batch_norms
from vlbench.engine.training.collectives import gathered_rows, total

COUNTS = ((3, 1, 2), (2, 0, 3), (1, 1, 1))
"""Rows of each process, time after time."""
NORMED = (4, 1, 2)
"""Maps of each process that a batch norm sees."""


def maps() -> torch.Tensor:
    """The maps of all processes, [7, 3, 2, 2], far from mean 0."""
    return 5 + 3 * torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def weights() -> torch.Tensor:
    """Of the maps in a loss, each number counting differently."""
    return torch.arange(1.0, 85.0).view(7, 3, 2, 2) / 84


def layer() -> nn.Sequential:
    """A batch norm with weights of its own."""
    made = nn.BatchNorm2d(3)
    nn.init.normal_(made.weight, 1.0, 0.3, generator=torch.Generator().manual_seed(2))
    return nn.Sequential(made).train()


FEW = "brivl:coco_retrieval@3x2"
"""A training with two examples in a step."""


def main(out: Path, world: Path) -> None:
    import training  # found beside this script where it is run as one

    accelerator = make_accelerator("cpu", "float32", 1)
    rank = accelerator.process_index
    gathered = []
    for counts in COUNTS:
        rows = torch.tensor([[100.0 * rank + row, -row] for row in range(counts[rank])]).reshape(-1, 2)
        gathered.append(gathered_rows(accelerator, rows).tolist())
    net = layer()
    synchronise_batch_norms(net, accelerator)
    own = maps().split(NORMED)[rank].clone().requires_grad_()
    normed = net(own)
    (normed**3 * weights().split(NORMED)[rank]).sum().backward()
    left = {
        "gathered": gathered,
        "total": total(accelerator, [float(rank), 0.5]),
        "normed": normed.tolist(),
        "input_gradient": own.grad.tolist(),
        "weight_gradient": net[0].weight.grad.tolist(),
        "running": [net[0].running_mean.tolist(), net[0].running_var.tolist(), int(net[0].num_batches_tracked)],
        "evaluated": net.eval()(own).tolist(),
        "few": training.train(FEW, world, out / "few"),
    }
    (out / f"{rank}.json").write_text(json.dumps(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
