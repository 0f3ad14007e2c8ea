"""Blocks that several ranks make, some of them after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import DataError
from vlbench.engine.answering.shelf import Array, Shelf
from vlbench.engine.runtime.ranks import Ranks

SIZES = [2, 2, 2, 1]
WHOLE = np.arange(21, dtype=np.float32).reshape(7, 3)


class Alone(Ranks):
    """A rank that meets nobody: the test runs one after the other."""

    def barrier(self) -> None:
        pass


class Maker:
    """Makes the blocks, remembers which, and dies before the one it is told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.made: list[int] = []
        self.dies_at = dies_at

    def __call__(self, numbers: Sequence[int]) -> Iterator[Array]:
        for number in numbers:
            if number == self.dies_at:
                raise KeyboardInterrupt
            self.made.append(number)
            yield WHOLE[2 * number : 2 * number + SIZES[number]]


def test_in_memory(tmp_path: Path) -> None:
    np.testing.assert_array_equal(Shelf(Ranks()).fill("scores", SIZES, Maker()), WHOLE)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Shelf(Ranks(), tmp_path / "kept", "key").fill("scores", SIZES, Maker(dies_at=2))
    again = Maker()
    found = Shelf(Ranks(), tmp_path / "kept", "key").fill("scores", SIZES, again)
    assert again.made == [2, 3]
    np.testing.assert_array_equal(found, WHOLE)
    third = Maker()
    Shelf(Ranks(), tmp_path / "kept", "key").fill("scores", SIZES, third)
    assert third.made == []
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["key", "scores.npy"]


def test_another_key_begins_anew(tmp_path: Path) -> None:
    Shelf(Ranks(), tmp_path / "kept", "weights 1").fill("scores", SIZES, Maker())
    again = Maker()
    Shelf(Ranks(), tmp_path / "kept", "weights 2").fill("scores", SIZES, again)
    assert again.made == [0, 1, 2, 3]


def test_a_damaged_block_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Shelf(Ranks(), tmp_path / "kept").fill("scores", SIZES, Maker(dies_at=3))
    damaged, short = (tmp_path / "kept" / f"scores-00000{number}.npy" for number in (0, 2))
    damaged.write_bytes(damaged.read_bytes()[:40])
    np.save(short, WHOLE[:1])
    again = Maker()
    np.testing.assert_array_equal(Shelf(Ranks(), tmp_path / "kept").fill("scores", SIZES, again), WHOLE)
    assert again.made == [0, 2, 3]


def test_ranks_share_what_is_missing(tmp_path: Path) -> None:
    """Rank 1 of two works alone and cannot join; rank 0 then makes only the rest."""
    other, first = Maker(), Maker()
    with pytest.raises(FileNotFoundError):  # nobody has joined the blocks yet
        Shelf(Alone(1, 2), tmp_path / "kept").fill("scores", SIZES, other)
    (tmp_path / "kept" / "key").write_text("", "utf8")
    assert other.made == [1, 3]
    with pytest.raises(DataError, match="on a disk that all machines share"):
        Shelf(Alone(0, 3), tmp_path / "kept").fill("scores", SIZES, first)
    assert first.made == [0]  # of 0 and 2, which are missing, rank 0 of three gets the first
    np.testing.assert_array_equal(Shelf(Alone(0, 1), tmp_path / "kept").fill("scores", SIZES, Maker()), WHOLE)
