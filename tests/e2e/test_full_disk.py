"""A full disk or exhausted memory ends a command with a sentence; with space again, the same command succeeds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from vlbench.cli.main import main
from vlbench.core.errors import DataError, ExitCode, VlbenchError, shortage

MakeCase = Callable[[str], Any]
COMMANDS = ("finetune", "eval", "rank", "world", "features", "pretrain", "leaderboard", "report", "gate", "fetch")
CODES = {"disk": ExitCode.DATA, "memory": ExitCode.OUT_OF_MEMORY}


@pytest.mark.parametrize("lacking", CODES)
def test_sampled_calls(lacking: str, make_case: MakeCase, crash_points: ModuleType) -> None:
    seed = int(os.environ.get("VLBENCH_CRASH_SEED", Random().randrange(10**6)))
    print(f"VLBENCH_CRASH_SEED={seed} chooses these calls again")
    rng = Random(seed)
    for command in rng.sample(COMMANDS, 2):
        check(lacking, command, make_case, crash_points, lambda numbers: rng.sample(numbers, min(2, len(numbers))))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_full_at_every_call(command: str, make_case: MakeCase, crash_points: ModuleType) -> None:
    check("disk", command, make_case, crash_points, lambda numbers: numbers)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_out_of_memory_at_many_calls(command: str, make_case: MakeCase, crash_points: ModuleType) -> None:
    """Not at all: a training allocates a thousand times."""
    check("memory", command, make_case, crash_points, lambda numbers: numbers[:: max(1, len(numbers) // 50)])


def check(
    lacking: str,
    command: str,
    make_case: MakeCase,
    crash_points: ModuleType,
    choose: Callable[[range], Iterable[int]],
) -> None:
    case = make_case(command)
    points = case.points(crash_points.WRITES, ("before",)) if lacking == "disk" else case.points(())
    fill = case.fill_disk if lacking == "disk" else case.fill_memory
    faults = [(points[number - 1], partial(fill, number)) for number in choose(range(1, len(points) + 1))]
    assert list(crash_points.broken(case, faults, (CODES[lacking],), case.left())) == []


@pytest.mark.parametrize("size", [600, 20_000])
def test_limit_of_bytes_per_file(size: int, make_case: MakeCase, crash_points: ModuleType) -> None:
    """Writes in C and C++ fail too, of weights and tables."""
    case = make_case("finetune")
    case.reset()
    assert case.run().code == 0
    expected = case.left()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    assert list(crash_points.broken(case, [(f"{size} bytes", partial(case.run, limit))], (5,), expected)) == []


@pytest.mark.parametrize("mebibytes", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_limit_of_memory(mebibytes: int, make_case: MakeCase, crash_points: ModuleType) -> None:
    """`ulimit -v` ends a command with a sentence, and aborts no library."""
    case = make_case("finetune")
    case.reset()
    assert case.run().code == 0
    expected = case.left()

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + (mebibytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    faults = [(f"{mebibytes} MiB", partial(case.run, limit))]
    assert list(crash_points.broken(case, faults, (ExitCode.OUT_OF_MEMORY,), expected)) == []


ARROW = """
import resource, sys
from pathlib import Path
from vlbench.cli.main import main
main(["list", "tasks"])
import pandas, pyarrow.parquet
from vlbench.records.samples import read_samples
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    print(len(read_samples(Path(sys.argv[1]))))
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("mebibytes", [4, 64])
def test_arrow_neither_aborts_nor_waits(mebibytes: int, fake_run: Path) -> None:
    command = [sys.executable, "-c", ARROW, str(fake_run / "samples.parquet"), str(mebibytes)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device", "a.txt"), ExitCode.DATA),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ExitCode.OUT_OF_MEMORY),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("can't start new thread"), ExitCode.OUT_OF_MEMORY),
        (ValueError("5 is not 6"), None),
        (DataError("a.txt is damaged"), None),
    ],
)
def test_shortages(error: Exception, code: ExitCode | None) -> None:
    lacking = shortage(error)
    assert (lacking and lacking.exit_code) == code


def test_a_file_is_not_blamed_for_a_lack_of_memory() -> None:
    with pytest.raises(VlbenchError) as raised:
        try:
            raise MemoryError
        except MemoryError:
            raise DataError("a.parquet is corrupt: delete it") from None
    lacking = shortage(raised.value)
    assert lacking is not None and lacking.exit_code == ExitCode.OUT_OF_MEMORY


def test_stdout_on_a_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stdout = Path("/dev/full").open("w")  # noqa: SIM115
            code = main(["list", "tasks"])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ExitCode.DATA
