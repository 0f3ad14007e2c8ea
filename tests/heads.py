"""Answers by every kind of head: `torchrun heads.py WORLD WEIGHTS OUT`, or `answer_all` in one process.

WEIGHTS holds what `train_all` left; both runs of a case meet the same weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vlbench.core.cards import Recipe
from vlbench.core.spec import RunSpec
from vlbench.engine.evaluate import run

TRAINED = {
    "pair": ("nlvr2", "vilt"),
    "classify": ("snli_ve", "vilt"),
    "soft": ("vqa2", "vilt"),
    "rank": ("coco_retrieval", "vilt"),
    "dual": ("coco_retrieval", "brivl"),
}
"""Task and model by the head they need."""
UNTRAINED = {"generate": ("nlvr2", "fake", "text"), "candidates": ("snli_ve", "fake", "candidates")}
LIMIT, BATCH = 17, 3
"""Six batches, the last one smaller: nothing that two or three processes would share evenly."""


def train_all(world: Path, weights: Path) -> None:
    """A step of training for each head that needs one."""
    recipe = Recipe(steps=1, batch_size=8, evaluations=1)
    for name, (task, model) in TRAINED.items():
        run(RunSpec(task=task, model=model, data_root=world, select_on="none", controls=(), limit=1, train=recipe,
                    output_path=weights / name))  # fmt: skip


def answer_all(world: Path, weights: Path, out: Path, processes: int) -> None:
    """Every head's answers, below `out` by its name."""
    for name, (task, model) in TRAINED.items():
        (best,) = (weights / name).rglob("best/model.safetensors")
        run(RunSpec(task=task, model=model, data_root=world, mode="eval", checkpoint=str(best), limit=LIMIT,
                    eval_batch_size=BATCH, output_path=out / name, num_processes=processes))  # fmt: skip
    for name, (task, model, by) in UNTRAINED.items():
        run(RunSpec(task=task, model=model, data_root=world, mode="zero-shot", answer_by=by, limit=LIMIT,
                    eval_batch_size=BATCH, output_path=out / name, num_processes=processes))  # fmt: skip


def left_threads() -> list[str]:
    """Names of native threads that would outlive the interpreter, and could abort it (on Linux)."""
    names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    answer_all(*map(Path, sys.argv[1:4]), processes=int(sys.argv[4]))
    assert not left_threads(), left_threads()
