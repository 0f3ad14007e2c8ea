"""Every task gives the same run from an index as from a list, and parses each example at most twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.task import Task
from vlbench.data.cache import index
from vlbench.data.cache.index import IndexedExamples, Parser
from vlbench.engine.evaluate import run
from vlbench.records.folder import RunFolder

DRAWN = 256
"""More than the examples of the train split that are drawn one by one as negatives of the step."""


@pytest.mark.parametrize("name", catalog.task_folders())
def test_an_index_gives_the_same_run_and_parses_twice_at_most(
    name: str, open_task: Callable[[str], Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, parsed = open_task(name), Counter[Path]()
    parse = Parser.parse

    def count(self: Parser, contents: Sequence[bytes]) -> list[object]:
        parsed[self.path] += len(contents)
        return parse(self, contents)

    monkeypatch.setattr(Parser, "parse", count)
    listed, from_list = _run(task, tmp_path / "list")
    assert not parsed
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "BIG", 0)
    indexed, from_index = _run(task, tmp_path / "index")
    card, trained = task.card, listed.train is not None
    drawn = {card.report_split: 0} | ({card.train_split: DRAWN} if trained else {})
    splits = {split: task.load(split) for split in drawn}
    most = {
        examples.path: 2 * len(examples) + drawn[split]
        for split, examples in splits.items()
        if isinstance(examples, IndexedExamples)
    }
    assert len(most) == len(splits) and parsed.keys() == most.keys()
    assert {path: count for path, count in parsed.items() if not 0 < count <= most[path]} == {}
    assert from_index.samples.read_bytes() == from_list.samples.read_bytes()
    for field in ("fingerprint", "results", "controls", "majority", "slice_majorities", "coverage", "train"):
        assert getattr(indexed, field) == getattr(listed, field), field


def _run(task: Task, output: Path) -> tuple[RunRecord, RunFolder]:
    """A run with one step of training and an image-blind control; zero-shot where there is no split to train on."""
    card, root = task.card, task.root.parent if task.source == "world" else task.root
    train = task.files(card.train_split)
    trains = any(train.place(name).is_file() for name in train.card.files)
    spec = RunSpec(
        task=card.name, model="fake", data_root=root, output_path=output, device="cpu", select_on="none",
        split=card.report_split, allow_partial=True, mode="finetune" if trains else "zero-shot",
        train=Recipe(steps=1, batch_size=4),
    )  # fmt: skip
    return run(spec)
