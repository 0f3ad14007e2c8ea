"""The processes of a run: their ranks, their shares of the work, and which of them reports an error."""

from __future__ import annotations

import os

import pytest

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Silent
from vlbench.engine.runtime import ranks
from vlbench.engine.runtime.ranks import Ranks, SharedError, give_way, is_lost_peer, joined, launched

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "ACCELERATE_MIXED_PRECISION")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has rank 2 of 4, as torchrun sets it."""
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)


def join(device: str | None, num_processes: int | None = None, progress: Silent | None = None) -> Ranks:
    with joined(device, num_processes, progress) as own:
        return own


def test_a_single_process_is_rank_0() -> None:
    alone = join(None)
    assert alone == Ranks(0, 1, 0) == launched()
    assert alone.is_main
    assert alone.gather_objects("a") == ["a"]
    assert alone.share("a") == "a"
    assert alone.together(lambda: 7) == 7
    assert alone.mine(range(3)) == [0, 1, 2]


@pytest.mark.parametrize("items", [0, 1, 2, 5, 6, 7])
def test_shares_cover_all_once(items: int) -> None:
    shares = [Ranks(number, 3).mine(range(items)) for number in range(3)]
    assert sorted(one for share in shares for one in share) == [*range(items)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.usefixtures("rank")
def test_ranks_come_from_the_launcher() -> None:
    assert launched() == Ranks(2, 4, 0)
    assert not launched().is_main


@pytest.mark.usefixtures("rank")
@pytest.mark.parametrize("asked", [1, 2, 5])
def test_another_number_of_processes_than_asked_for(asked: int) -> None:
    with pytest.raises(VlbenchError, match=f"{asked} processes were asked for and 4 started") as raised:
        join(None, asked)
    assert raised.value.exit_code == ExitCode.USAGE


def test_more_processes_asked_for_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VlbenchError, match="2 processes were asked for and 1 started"):
        join(None, 2)


def test_a_launcher_that_silently_started_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert join(None).size == 1
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(VlbenchError, match=r"started 1, as it does on CPUs: use.*torchrun"):
        join(None)


class Heard(Silent):
    """A Progress that keeps its messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_joining_removes_variables_that_could_change_a_number(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the number of processes is checked; rank 0 reports it."""
    heard = Heard()
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(VlbenchError, match="3 processes were asked for and 2 started"):
        join(None, 3, heard)
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" not in os.environ
    assert [line.startswith("ignored, since only") for line in heard.lines] == [True] * (rank == "0")


class Turns(Ranks):
    """Ranks whose other processes are simulated: `told` is what they send in each turn."""

    told: tuple[object, ...] = (None, None, None)
    heard: list[object]

    def gather_objects(self, item: object) -> list[object]:  # type: ignore[override]
        self.heard.append(item)
        return [*(self.told[:1]), item]


@pytest.mark.parametrize(("local_rank", "turn"), [(0, 1), (3, 2)])
def test_work_is_done_in_its_turn(local_rank: int, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    monkeypatch.setattr(Turns, "heard", heard, raising=False)
    assert Turns(1, 2, local_rank).together(lambda: len(heard)) == turn
    assert heard == [None] * 3


def test_an_error_of_another_rank_is_raised_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turns, "heard", [], raising=False)
    monkeypatch.setattr(Turns, "told", (("no room", int(ExitCode.DATA)),))
    with pytest.raises(SharedError, match=r"^no room$") as raised:
        Turns(1, 2, 0).together(lambda: pytest.fail("worked"))
    assert raised.value.exit_code == ExitCode.DATA


def test_an_error_names_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise VlbenchError("no such file", ExitCode.WEIGHTS)

    monkeypatch.setattr(Turns, "heard", [], raising=False)
    with pytest.raises(SharedError, match=r"^process 1 of 2: no such file$") as raised:
        Turns(1, 2, 0).together(work)
    assert raised.value.exit_code == ExitCode.WEIGHTS


def test_which_rank_reports_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[/src/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1")
    own, waited = VlbenchError("damaged"), list[float]()
    monkeypatch.setattr(ranks.time, "sleep", waited.append)
    assert is_lost_peer(lost)
    assert not is_lost_peer(own)
    give_way(lost)
    give_way(own)
    assert waited == []
    for number in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setenv("RANK", str(number))
        assert give_way(own) == ("", "process 1 of 2: ")[number]
        give_way(lost)
    assert waited == [60.0, 2.0, 60.0]
