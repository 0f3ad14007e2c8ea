"""Short trainings, by any number of processes: `torchrun training.py WORLD OUT cvlp:nlvr2 brivl:coco_retrieval@20x16`.

After `@` steps and examples per step. So many steps take a low rate: Adam amplifies rounding where a gradient is almost
zero. With `+fsdp` training is sharded, interrupted after two steps and resumed. Every process leaves its log, and what
its learner has become.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.engine.job import plan
from vlbench.engine.learner import Learner
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.runtime.environment import make_accelerator, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.build import build_head


def train(name: str, world: Path, folder: Path, accumulation: int = 1, **changed: Any) -> dict[str, Any]:
    """Train for a few steps: the log, and a hash of all parameters. changed: other numbers of the recipe."""
    name, plus, _ = name.partition("+")
    name, _, size = name.partition("@")
    steps, batch_size = map(int, size.split("x")) if size else (4, 12)
    rate = {"lr": 1e-4, "warmup": 0.1} if size else {"lr": 1e-3, "warmup": 0.0}
    fixed = {"accumulation": accumulation, "ema": 0.9, **rate}
    changes = Recipe(steps=steps, batch_size=batch_size, **{**fixed, **changed})
    model, task = name.rsplit(":", 1)
    job = plan(RunSpec(task=task, model=model, data_root=world, checkpoint="none", train=changes), Silent())
    accelerator = make_accelerator("cpu", "float32", 1)
    seed_everything(0)
    resources = make_resources(resource_spec(job), Silent())

    def begin() -> Finetuning:
        backbone = catalog.load_model(job.card, job.size, resources)
        learner = Learner(backbone, build_head(job.task.card, job.card, backbone.width, job.labels, job.spec.train))
        images = learner.head.contrasted_images(job.train)
        made = make_plan(job.spec.train, training_units(job.spec.train, job.train), 0, images)
        return Finetuning(learner, job.train, made, accelerator, Checkpoints(folder), 0, Conduct(fsdp=bool(plus)))

    training, log, interrupt = begin(), list[dict[str, Any]](), Interrupt()
    left = {"types": sorted({type(one).__name__ for one in training.trained.learner.parameters()})}
    if plus:

        def until_two(line: dict[str, Any]) -> None:
            log.append(line)
            interrupt.asked = len(log) == 2

        with suppress(Interrupted):
            training.run(None, until_two, Silent(), interrupt, "finetuning")
        training, interrupt = begin(), Interrupt()
    training.run(None, log.append, Silent(), interrupt, "finetuning")
    weights = b"".join(one.detach().numpy().tobytes() for one in training.learner.parameters())
    return {**left, "log": log, "weights": hashlib.sha256(weights).hexdigest()}


def main(world: Path, out: Path, names: list[str]) -> None:
    for name in names:
        left = train(name, world, out / file_name(name))
        (out / f"{file_name(name)}-{torch.distributed.get_rank()}.json").write_text(json.dumps(left))


def file_name(name: str) -> str:
    """A training's name as that of a file: a model may be named by its folder."""
    return name.replace("/", "_")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
