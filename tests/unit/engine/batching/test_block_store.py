"""Blocks that several ranks compute, some of them after a kill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlbench.core.errors import DataError
from vlbench.engine.batching import block_store
from vlbench.engine.batching.block_store import Array, BlockStore
from vlbench.engine.runtime.ranks import Ranks

SIZES = [2, 2, 2, 1]
WHOLE = np.arange(21, dtype=np.float32).reshape(7, 3)


class Alone(Ranks):
    """A rank that waits for no other: the test runs one after the other."""

    def barrier(self) -> None:
        pass


class Maker:
    """Computes the blocks, records their numbers in `computed`, and dies before block `dies_at`."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.computed: list[int] = []
        self.dies_at = dies_at

    def __call__(self, numbers: Sequence[int]) -> Iterator[Array]:
        for number in numbers:
            if number == self.dies_at:
                raise KeyboardInterrupt
            self.computed.append(number)
            yield WHOLE[2 * number : 2 * number + SIZES[number]]


def test_in_memory(tmp_path: Path) -> None:
    np.testing.assert_array_equal(BlockStore(Ranks()).fill("scores", SIZES, Maker()), WHOLE)


def test_existing_blocks_are_not_computed_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        BlockStore(Ranks(), tmp_path / "kept", "key").fill("scores", SIZES, Maker(dies_at=2))
    again = Maker()
    array = BlockStore(Ranks(), tmp_path / "kept", "key").fill("scores", SIZES, again)
    assert again.computed == [2, 3]
    np.testing.assert_array_equal(array, WHOLE)
    third = Maker()
    BlockStore(Ranks(), tmp_path / "kept", "key").fill("scores", SIZES, third)
    assert third.computed == []
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["key", "scores.npy"]


def test_another_key_begins_anew(tmp_path: Path) -> None:
    BlockStore(Ranks(), tmp_path / "kept", "weights 1").fill("scores", SIZES, Maker())
    again = Maker()
    BlockStore(Ranks(), tmp_path / "kept", "weights 2").fill("scores", SIZES, again)
    assert again.computed == [0, 1, 2, 3]


def test_a_damaged_block_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        BlockStore(Ranks(), tmp_path / "kept").fill("scores", SIZES, Maker(dies_at=3))
    damaged, short = (tmp_path / "kept" / f"scores-00000{number}.npy" for number in (0, 2))
    damaged.write_bytes(damaged.read_bytes()[:40])
    np.save(short, WHOLE[:1])
    again = Maker()
    np.testing.assert_array_equal(BlockStore(Ranks(), tmp_path / "kept").fill("scores", SIZES, again), WHOLE)
    assert again.computed == [0, 2, 3]


def test_ranks_share_what_is_missing(tmp_path: Path) -> None:
    """Rank 1 of two works alone and cannot join; rank 0 then makes only the rest."""
    other, first = Maker(), Maker()
    with pytest.raises(FileNotFoundError):  # nobody has joined the blocks yet
        BlockStore(Alone(1, 2), tmp_path / "kept").fill("scores", SIZES, other)
    (tmp_path / "kept" / "key").write_text("", "utf8")
    assert other.computed == [1, 3]
    with pytest.raises(DataError, match="on a disk that all machines share"):
        BlockStore(Alone(0, 3), tmp_path / "kept").fill("scores", SIZES, first)
    assert first.computed == [0]  # of 0 and 2, which are missing, rank 0 of three gets the first
    np.testing.assert_array_equal(BlockStore(Alone(0, 1), tmp_path / "kept").fill("scores", SIZES, Maker()), WHOLE)


class Crew:
    """Ranks that run as threads of this process: they meet at one barrier and exchange items through one list."""

    def __init__(self, size: int) -> None:
        self.size, self.meeting = size, threading.Barrier(size, timeout=20)
        self.items: list[Any] = [None] * size
        self.local = threading.local()

    def rank(self, number: int) -> Ranks:
        crew = self

        class Member(Ranks):
            def barrier(self) -> None:
                crew.meeting.wait()

            def gather_objects(self, item: Any) -> list[Any]:
                crew.items[self.rank] = item
                crew.meeting.wait()
                gathered = list(crew.items)
                crew.meeting.wait()
                return gathered

        return Member(number, self.size)

    def run(self, work: Callable[[Ranks], Any]) -> list[Any]:
        """What every rank returns; a rank's error is raised."""

        def work_as(number: int) -> Any:
            self.local.rank = number
            try:
                return work(self.rank(number))
            except BaseException:
                self.meeting.abort()  # the others need not wait for it
                raise

        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(work_as, number) for number in range(self.size)]
            errors = [error for future in futures if (error := future.exception()) is not None]
            first = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
            if errors:
                raise (first or errors)[0]
            return [future.result() for future in futures]

    def delays(self, monkeypatch: pytest.MonkeyPatch, name: str, rank: int) -> list[int]:
        """Let one rank be late in a function of the module; the list says which ranks have called it."""
        function, called = getattr(block_store, name), list[int]()

        def late(*arguments: Any) -> Any:
            called.append(self.local.rank)
            if self.local.rank == rank:
                time.sleep(0.2)
            return function(*arguments)

        monkeypatch.setattr(block_store, name, late)
        return called


class Late(Maker):
    """A maker that is slow."""

    def __call__(self, numbers: Sequence[int]) -> Iterator[Array]:
        for block in super().__call__(numbers):
            time.sleep(0.1)
            yield block


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("slow", [0, 1, 2])
def test_each_rank_computes_its_share_and_gets_all(kept: bool, slow: int, tmp_path: Path) -> None:
    makers = [Late() if number == slow else Maker() for number in range(3)]
    folder = tmp_path / "kept" if kept else None
    arrays = Crew(3).run(lambda ranks: BlockStore(ranks, folder, "key").fill("scores", SIZES, makers[ranks.rank]))
    assert [maker.computed for maker in makers] == [[0, 3], [1], [2]]
    for array in arrays:
        np.testing.assert_array_equal(array, WHOLE)
    if folder:
        assert sorted(path.name for path in folder.iterdir()) == ["key", "scores.npy"]


def test_blocks_of_another_key_are_removed_before_any_rank_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BlockStore(Ranks(), tmp_path / "kept", "weights 1")
    np.save(tmp_path / "kept" / "scores.npy", 0 * WHOLE)
    crew, maker = Crew(2), [Maker(), Maker()]
    called = crew.delays(monkeypatch, "_claim", 0)
    arrays = crew.run(
        lambda ranks: BlockStore(ranks, tmp_path / "kept", "weights 2").fill("scores", SIZES, maker[ranks.rank])
    )
    assert called == [0] and [each.computed for each in maker] == [[0, 2], [1, 3]]
    for array in arrays:
        np.testing.assert_array_equal(array, WHOLE)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("name", ["_is_intact", "_join_blocks"])
def test_a_late_rank_omits_no_block(name: str, rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing blocks are counted before any rank writes, and the array is read after rank 0 has joined it."""
    crew, makers = Crew(3), [Maker() for _ in range(3)]
    called = crew.delays(monkeypatch, name, rank)
    arrays = crew.run(lambda ranks: BlockStore(ranks, tmp_path / "kept").fill("scores", SIZES, makers[ranks.rank]))
    assert [maker.computed for maker in makers] == [[0, 3], [1], [2]]
    assert name != "_join_blocks" or called == [0]
    for array in arrays:
        np.testing.assert_array_equal(array, WHOLE)


def test_ranks_resume_from_the_blocks_of_a_killed_crew(tmp_path: Path) -> None:
    """One rank of two dies at its second block; three ranks later share what is missing."""
    with pytest.raises(KeyboardInterrupt):
        dying = [Maker(dies_at=2), Maker()]
        Crew(2).run(lambda ranks: BlockStore(ranks, tmp_path / "kept").fill("scores", SIZES, dying[ranks.rank]))
    there = sorted(path.name for path in (tmp_path / "kept").glob("scores-*"))
    assert "scores-000000.npy" in there and "scores-000002.npy" not in there
    again = [Maker() for _ in range(3)]
    arrays = Crew(3).run(lambda ranks: BlockStore(ranks, tmp_path / "kept").fill("scores", SIZES, again[ranks.rank]))
    assert sorted(number for maker in again for number in maker.computed) == [
        number for number in range(4) if f"scores-{number:06d}.npy" not in there
    ]
    np.testing.assert_array_equal(arrays[2], WHOLE)
