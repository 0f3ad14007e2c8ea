"""Several processes do what one does: the same answers to the last bit, whoever dies in between."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from vlbench.core.errors import ExitCode
from vlbench.engine.batching.prediction_shards import PredictionShards
from vlbench.records.folder import find_runs, read_run

TESTS = Path(__file__).resolve().parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
PATIENCE = 60.0
"""Seconds in which the end of one process must have ended all."""

Call = Callable[..., Any]


def command(
    *arguments: object, fault: str = "", log: Path | str = "", **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run it apart from this process, with one thread and these variables, and wait for its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"FAULT": fault} if fault else {}), "FAULT_LOG": str(log)}
    environment |= {name: str(value) for name, value in variables.items()}
    run = [str(argument) for argument in arguments]
    return subprocess.run(run, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def run(tiny_world: Path, tmp_path: Path) -> list[object]:
    """A run of six training steps and then twenty batches of answers."""
    flags = ("--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path / "runs")
    sizes = ("--steps", 6, "--batch-size", 8, "--limit", 20, "--eval-batch-size", 1)
    return ["run", *flags, *sizes, "--select-on", "none", "--controls", "none", "--quiet"]


@pytest.fixture
def evaluation(run: list[object], vlbench: Call, tmp_path: Path) -> list[object]:
    """The same twenty batches of answers by weights that are trained already."""
    trained = vlbench(*run, "--output-path", tmp_path / "trained").run
    here = ("--task", "nlvr2", "--model", "fake", *run[run.index("--data-root") :][:4], "--quiet")
    return ["run", *here, "--mode", "eval", "--checkpoint", trained, "--limit", 20, "--eval-batch-size", 1]


def heads() -> ModuleType:
    spec = importlib.util.spec_from_file_location("heads", TESTS / "heads.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    heads().train_all(tiny_world, folder)
    return folder


@pytest.fixture(scope="module")
def alone(weights: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every head's answers in one process."""
    folder = tmp_path_factory.mktemp("alone")
    heads().answer_all(tiny_world, weights, folder, processes=1)
    return folder


def answered(out: Path) -> dict[str, str]:
    """Samples and ranks, every number in full, by the file's place."""
    files = [*out.rglob("samples.parquet"), *out.rglob("ranks.parquet")]
    frames = {str(path.relative_to(out)): pd.read_parquet(path) for path in files}
    return {name: repr(frame.map(exact).to_dict("records")) for name, frame in frames.items()}


def exact(value: object) -> str:
    return repr(value.tolist() if hasattr(value, "tolist") else value)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_head_answers_alike(processes: int, weights: Path, alone: Path, tiny_world: Path, tmp_path: Path) -> None:
    done = command(*TORCHRUN, processes, TESTS / "heads.py", tiny_world, weights, tmp_path, processes)
    assert done.returncode == 0, done.stderr
    expected = answered(alone)
    assert len(expected) == len(heads().TRAINED) + len(heads().UNTRAINED) + 2  # of two the ranks besides
    assert answered(tmp_path) == expected
    sizes = [json.loads((path / "run.json").read_text())["environment"]["world_size"] for path in find_runs(tmp_path)]
    assert sizes == [processes] * len(sizes)
    assert not [*tmp_path.rglob("shards")]


def test_a_process_is_killed_and_another_number_goes_on(
    evaluation: list[object], vlbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    died = command(sys.executable, TESTS / "faulty.py", *evaluation, "--num-processes", 2, fault="kill:1:5")
    assert time.monotonic() - started < PATIENCE
    assert died.returncode == ExitCode.INTERRUPTED, died.stderr
    said = died.stderr.splitlines()
    assert len(said) == 2
    assert said[0].startswith("vlbench: process 1 of 2 was ended by SIGKILL")
    assert said[1].startswith("resume with: vlbench run --task nlvr2")
    (folder,) = find_runs(tmp_path / "runs")
    kept = len([*(folder / "shards" / "real").glob("batches-*.parquet")])  # not the file that was being written
    assert 4 <= kept < 20

    written: list[range] = []
    monkeypatch.setattr(PredictionShards, "write", counting(PredictionShards.write, written))
    assert vlbench(*evaluation).code == 0
    assert len(written) == 20 - kept
    resumed = answered(folder)
    assert vlbench(*evaluation, "--no-resume").code == 0
    assert len(written) == 40 - kept
    assert answered(folder) == resumed


def counting(write: Call, written: list[range]) -> Call:
    def counted(self: PredictionShards, blocks: range, predictions: Any) -> None:
        write(self, blocks, predictions)
        written.append(blocks)

    return counted


@pytest.mark.parametrize("kind", ["train", pytest.param("data", marks=pytest.mark.slow)])
def test_the_process_with_the_cause_says_it_once(kind: str, run: list[object], tmp_path: Path) -> None:
    started = time.monotonic()
    failed = command(sys.executable, TESTS / "faulty.py", *run, "--num-processes", 2, fault=f"{kind}:1:3")
    assert time.monotonic() - started < PATIENCE
    assert failed.returncode == ExitCode.DATA, failed.stderr
    assert failed.stderr == "vlbench: process 1 of 2: the image 7.png is damaged\n"
    assert failed.stdout == ""


def test_a_process_that_ends_without_its_result_has_failed(run: list[object], tmp_path: Path) -> None:
    """`os._exit(0)` in a model is no success."""
    failed = command(sys.executable, TESTS / "faulty.py", *run, "--num-processes", 2, fault="exit:1:3")
    assert failed.returncode == ExitCode.USER_CODE, failed.stderr
    assert failed.stderr.startswith("vlbench: process 1 of 2 ended with exit code 0 before its work was done")
    assert (len(failed.stderr.splitlines()), failed.stdout) == (1, "")


@pytest.mark.parametrize("moment", ["late", pytest.param("train", marks=pytest.mark.slow)])
def test_processes_end_with_their_launcher_and_leave_nothing(moment: str, run: list[object], tmp_path: Path) -> None:
    """Killed before its processes have met, or in the middle of the training."""
    log, scratch = tmp_path / "log", tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "FAULT": f"{moment}:1:0", "FAULT_LOG": str(log)}
    arguments = [sys.executable, TESTS / "faulty.py", *run, "--steps", 3000, "--num-processes", 2]
    with subprocess.Popen([str(part) for part in arguments], env=environment, stderr=subprocess.PIPE) as launcher:
        while not any(path.stat().st_size for path in (*tmp_path.glob("log"), *tmp_path.rglob("metrics.jsonl"))):
            assert launcher.poll() is None
            time.sleep(0.02)
        launcher.kill()
        launcher.communicate(timeout=PATIENCE)  # until the last process that writes to its stderr has ended
    assert not [*scratch.glob("vlbench*")]
    assert [json.loads((path / "run.json").read_text())["status"] for path in find_runs(tmp_path)] == [
        "interrupted" for _ in range(moment == "train")
    ]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_thread_of_a_model_does_not_keep_a_finished_run_alive(
    processes: int, run: list[object], tmp_path: Path
) -> None:
    """And what its files hold back is written."""
    log = tmp_path / "log"
    done = command(sys.executable, TESTS / "faulty.py", *run, "--num-processes", processes, fault="thread:0:3", log=log)
    assert (done.returncode, log.read_text()) == (0, "batch"), done.stderr


def test_two_machines_share_a_run(evaluation: list[object], vlbench: Call, tmp_path: Path) -> None:
    """A process on each, with what any launcher tells it."""
    assert vlbench(*evaluation, "--output-path", tmp_path / "alone").code == 0
    both = (sys.executable, "-m", "vlbench", *evaluation, "--output-path", tmp_path / "both")
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port(), "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    with ThreadPoolExecutor() as pool:
        machines = [pool.submit(command, *both, **meeting, WORLD_SIZE=2, RANK=rank) for rank in range(2)]
    assert [machine.result().returncode for machine in machines] == [0, 0], machines[0].result().stderr
    assert answered(tmp_path / "both") == answered(tmp_path / "alone")
    (path,) = find_runs(tmp_path / "both")
    assert json.loads((path / "run.json").read_text())["environment"]["world_size"] == 2


@pytest.mark.slow
def test_torchrun_on_two_machines_trains_and_answers(run: list[object], tmp_path: Path) -> None:
    """Two agents with one rendezvous, as docs/slurm.sh starts them; both see one disk."""
    meeting = ("--nnodes", 2, "--nproc-per-node", 1, "--max-restarts", 0, "--rdzv-id", "run", "--rdzv-backend", "c10d")
    agent = (sys.executable, "-m", "torch.distributed.run", *meeting, "--rdzv-endpoint", f"localhost:{free_port()}")
    with ThreadPoolExecutor() as pool:
        agents = [pool.submit(command, *agent, "-m", "vlbench", *run, "--num-processes", 2) for _ in range(2)]
    assert [started.result().returncode for started in agents] == [0, 0], agents[0].result().stderr
    (path,) = find_runs(tmp_path)
    both = read_run(path)
    assert (both.environment.world_size, both.status) == (2, "done")
    assert command(sys.executable, "-m", "vlbench", *run, "--output-path", tmp_path / "alone").returncode == 0
    losses = [steps_of(folder) for folder in (path, *find_runs(tmp_path / "alone"))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len(losses[0]) == 6


def steps_of(folder: Path) -> list[float]:
    """The loss of each step of a run."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port: int = server.getsockname()[1]
        return port


@pytest.mark.slow
def test_torchrun_ends_with_the_cause(run: list[object]) -> None:
    started = time.monotonic()
    failed = command(*TORCHRUN, 2, TESTS / "faulty.py", *run, fault="data:1:3")
    assert time.monotonic() - started < PATIENCE
    assert failed.returncode != 0
    said = [line for line in failed.stderr.splitlines() if line.startswith("vlbench")]
    assert said == ["vlbench: process 1 of 2: the image 7.png is damaged"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_saves_and_says_how_to_go_on(number: int, run: list[object], tmp_path: Path, vlbench: Call) -> None:
    run = [*run, "--steps", 3000, "--num-processes", 2]
    arguments = [str(argument) for argument in (sys.executable, "-m", "vlbench", *run)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl")):
            time.sleep(0.05)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == ExitCode.INTERRUPTED
    assert [line.partition(":")[0] for line in said.splitlines()] == ["vlbench", "resume with"]
    (folder,) = find_runs(tmp_path)
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert (folder / "checkpoints" / "last" / "state.json").is_file()


@pytest.mark.slow
def test_stopped_while_it_selects_it_goes_on_all_the_same(run: list[object], tmp_path: Path) -> None:
    """One process has more of the selection left than the other, and both save together."""
    run = [*run, "--steps", 6, "--set", "train.evaluations=6", "--eval-batch-size", 1, "--num-processes", 2]
    run[run.index("--select-on") + 1] = "dev"
    arguments = [str(argument) for argument in (sys.executable, "-m", "vlbench", *run)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not any("step" in path.read_text() for path in tmp_path.rglob("metrics.jsonl")):
            time.sleep(0.01)
        time.sleep(0.1)  # steps are short and selections long
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == ExitCode.INTERRUPTED
    again = command(*arguments)
    assert again.returncode == 0, again.stderr
    (folder,) = find_runs(tmp_path)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if line.get("weights") == "plain"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_what_other_processes_cannot_do_leaves_the_rest(run: list[object], tmp_path: Path) -> None:
    """A run whose process dies, and one that goes well, from one command."""
    run = [*run, "--task", "nlvr2,snli_ve"]
    first = command(sys.executable, TESTS / "faulty.py", *run, "--num-processes", 2, fault="kill:1:5")
    assert first.returncode == ExitCode.SOME_FAILED, first.stderr
    assert "2 of 2 runs failed" in first.stderr
    again = command(*TORCHRUN, 2, "-m", "vlbench", *run, "--num-processes", 2)
    assert again.returncode == 0, again.stderr
    assert sorted(json.loads((path / "run.json").read_text())["status"] for path in find_runs(tmp_path)) == ["done"] * 2


@pytest.mark.slow
def test_launchers_that_start_another_number(run: list[object]) -> None:
    torchrun = command(*TORCHRUN, 2, "-m", "vlbench", *run, "--num-processes", 3)
    assert torchrun.stderr.count("vlbench: 3 processes were asked for and 2 started") == 1
    accelerate = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", 2, "-m", "vlbench")
    launched = command(*accelerate, *run)
    assert launched.stderr.count("vlbench: `accelerate launch` was asked for several processes and started 1") == 1
    assert torchrun.returncode != 0 != launched.returncode


def test_a_full_disk_stops_cleanly(
    run: list[object], vlbench: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[range] = []
    whole = counting(PredictionShards.write, written)

    def full(self: PredictionShards, blocks: range, predictions: Any) -> None:
        with monkeypatch.context() as patch:
            if len(written) == 5:
                patch.setattr("os.fsync", no_room)
            whole(self, blocks, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionShards, "write", full)
        stopped = vlbench(*run)
    assert stopped.code == ExitCode.DATA
    assert len(stopped.err.splitlines()) == 1
    assert "No space left on device): free space" in stopped.err
    (folder,) = find_runs(tmp_path)
    assert len([*(folder / "shards" / "real").iterdir()]) == 5
    monkeypatch.setattr(PredictionShards, "write", whole)
    assert vlbench(*run).code == 0
    assert len(written) == 20


def no_room(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
