"""Failures during a profile, through the command line: each ends in the model's row or in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vlbench import catalog
from vlbench.core.errors import ExitCode
from vlbench.models.vilt.backbone import ViLT
from vlbench.profiling.stages import StagedModel
from vlbench.records.profiles import read_profile

FLAGS = (
    *("--size", "tiny", "--iterations", "2", "--seconds", "0", "--max-seconds", "0.5"),
    *("--picture", "96x64", "--no-detector", "--quiet"),
)
SIX = ("--max-seconds", "30", "--precision", "10")
"""Six iterations of everything, even on a loaded machine."""
Command = Callable[..., Any]


def see_with(fault: Callable[[int, Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace ViLT's `see`: the fault gets the number of the call and the result."""
    whole, calls = ViLT.see, iter(range(10_000))

    def see(self: Any, images: Any, slot: Any) -> Any:
        return fault(next(calls), whole(self, images, slot))

    monkeypatch.setattr(ViLT, "see", see)


def test_a_model_that_fails_while_it_is_measured(
    vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(call: int, seen: Any) -> Any:
        if call > 3:  # two while building, one warm-up, one measured: the fault is in the second measured pass
            raise IndexError("a cell that is not there")
        return seen

    see_with(fault, monkeypatch)
    done = vlbench("profile", "--model", "vilt,lxmert,cvlp", *FLAGS, "--output-path", tmp_path)
    assert done.code == ExitCode.SOME_FAILED and "vilt-tiny: IndexError: a cell that is not there" in done.out
    vilt, *others = read_profile(Path(done.out.splitlines()[-1])).models
    assert vilt.latency is None and vilt.operations is not None
    assert all(other.latency is not None and not other.error for other in others)


def test_a_model_that_returns_nan(vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(call: int, seen: Any) -> Any:
        seen.states.fill_(float("nan"))
        return seen

    see_with(fault, monkeypatch)
    done = vlbench("profile", "--model", "vilt,brivl", *FLAGS, "--output-path", tmp_path)
    assert done.code == ExitCode.SOME_FAILED
    assert "vilt-tiny: its output holds NaN or infinity" in done.out
    assert re.search(r"\| brivl-tiny +\| head ", done.out) and not re.search(r"\| vilt-tiny +\| head ", done.out)


def test_a_batch_that_is_too_large(vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(call: int, seen: Any) -> Any:
        if len(seen.states) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return seen

    see_with(fault, monkeypatch)
    flags = ("--scenario", "throughput", *SIX, "--output-path", tmp_path)
    done = vlbench("profile", "--model", "vilt", *FLAGS, *flags)
    assert done.code == ExitCode.OK
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in done.out.splitlines() if "vilt-tiny" in line]
    *sweep, pipeline = [(row[0], row[-1]) for row in rows if len(row) == 5]
    assert sweep == [("1", ""), ("2", ""), ("4", "out of memory: stopped here")]
    assert pipeline[1].startswith("from files to answers")


def test_what_was_measured_before_a_model_failed_is_kept(
    vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(call: int, seen: Any) -> Any:
        if len(seen.states) > 2:
            raise IndexError("a cell that is not there")
        return seen

    see_with(fault, monkeypatch)
    flags = ("--scenario", "throughput", *SIX, "--output-path", tmp_path)
    done = vlbench("profile", "--model", "vilt", *FLAGS, *flags)
    (one,) = read_profile(Path(done.out.splitlines()[-1])).models
    assert done.code == ExitCode.SOME_FAILED and "a cell that is not there" in one.error
    assert [(rate.batch, rate.error) for rate in one.throughput] == [(1, ""), (2, "")]


def test_a_pipeline_that_needs_more_memory_than_the_model(
    vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(StagedModel, "load_inputs", load)
    flags = ("--scenario", "throughput", "--batch-sizes", "1,2", *SIX, "--output-path", tmp_path)
    done = vlbench("profile", "--model", "vilt", *FLAGS, *flags)
    assert done.code == ExitCode.OK and "loader processes; not measured: out of memory" in done.out
    (one,) = read_profile(Path(done.out.splitlines()[-1])).models
    assert len(one.throughput) == 2 and not one.error and one.pipeline is not None and one.pipeline.ms is None


def test_some_stages_alone(vlbench: Command, tmp_path: Path) -> None:
    chosen = ("--stages", "see,fuse", "--output-path", tmp_path)
    done = vlbench("profile", "--model", "vilt,cvlp,brivl", *FLAGS, *chosen)
    assert done.code == ExitCode.OK and "stages see, fuse only" in done.out
    vilt, cvlp, brivl = (one.latency for one in read_profile(Path(done.out.splitlines()[-1])).models)
    assert [*vilt.stages] == [*cvlp.stages] == ["see", "fuse"] and [*brivl.stages] == ["see"]
    assert vilt.model.p50 <= vilt.whole.p50  # one is the stages' sum, the other the clock around them


def test_a_model_without_the_stages_asked_for(vlbench: Command, tmp_path: Path) -> None:
    done = vlbench("profile", "--model", "vilt,brivl", *FLAGS, "--stages", "fuse", "--output-path", tmp_path)
    assert done.code == ExitCode.SOME_FAILED
    assert "brivl-tiny: has no stage fuse: choose among decode, preprocess, see, read, head" in done.out
    assert re.search(r"\| vilt-tiny +\| fuse ", done.out)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--stages", "see,fusion"), "unknown stage 'fusion': did you mean 'fuse'"),
        (("--stages", "generate"), "these models have decode, preprocess, see, read, fuse, head"),
        (("--size", "huge"), "unknown size of vilt 'huge'"),
        (("--vocabulary", "/nope"), "no vocabulary at /nope"),
        (("--with-runs", "/nope"), "--with-runs /nope holds no run"),
        (("--model", "nobody"), "unknown model 'nobody'"),
        (("--model", "nobody,noone"), "unknown model 'noone'"),
        (("--model", " , "), "--model ' , ' holds an empty name"),
        (("--model", "vilt,vilt"), "--model names vilt more than once"),
        (("--scenario", ""), "--scenario '' names nothing to measure: give one or more of latency, throughput, retr"),
        (("--scenario", ","), "--scenario ',' names nothing to measure"),
        (("--scenario", "latency,latency"), "--scenario names latency more than once"),
        (("--scenario", "speed"), "expected 'latency', 'throughput' or 'retrieval'"),
        (("--stages", ""), "--stages '' holds an empty name"),
        (("--device", "mps"), "--device mps is not available"),
        (("--batch-sizes", "0"), "batches"),
        (("--batch-sizes", "8,1"), "--batch-sizes 8,1 applies to throughput only"),
        (
            ("--scenario", "latency", "--energy"),
            "--energy applies to throughput only: leave it out, or add --scenario throughput",
        ),
        (("--stages", "see", "--scenario", "throughput"), "--stages see applies to latency only"),
        (("--scenario", "retrieval", "--task", "vqa2"), "needs one, e.g. --task coco_retrieval"),
        (("--scenario", "latency,retrieval", "--task", "nlvr2"), "--task nlvr2 is no ranking task"),
        (("--picture", "10000x9000"), "90,000,000 pixels: give at most 89,478,485"),
    ],
)
def test_errors_before_any_model_is_built(
    vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], says: str
) -> None:
    """The error comes before any model is built, and nothing is written."""

    def load(*_: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(catalog, "load_model", load)
    if flags[1] == "mps" and torch.backends.mps.is_available():
        pytest.skip("mps is available")
    done = vlbench("profile", "--model", "vilt", *FLAGS, *flags, "--output-path", tmp_path / "made" / "profiles")
    assert done.code == ExitCode.USAGE and says in done.err and len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_model_can_be_built(vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(call: int, seen: Any) -> Any:
        raise IndexError("a cell that is not there")

    see_with(fault, monkeypatch)
    done = vlbench("profile", "--model", "vilt", *FLAGS, "--output-path", tmp_path)
    assert done.code == ExitCode.USAGE and list(tmp_path.iterdir()) == []
    assert "nothing can be measured: vilt-tiny: IndexError: a cell that is not there" in done.err


def test_a_folder_that_cannot_be_written_is_an_error_before_any_model_is_built(
    vlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(catalog, "load_model")
    (tmp_path / "file").write_text("")
    done = vlbench("profile", "--model", "vilt", *FLAGS, "--output-path", tmp_path / "file" / "profiles")
    assert done.code == ExitCode.DATA and "cannot write" in done.err and len(done.err.splitlines()) == 1


def test_runs_of_other_models(vlbench: Command, tmp_path: Path, tiny_world: Path) -> None:
    runs = tmp_path / "runs"
    run = ("run", "--task", "nlvr2", "--model", "fake", "--mode", "zero-shot", "--data-root", tiny_world, "--quiet")
    assert vlbench(*run, "--output-path", runs).code == ExitCode.OK
    done = vlbench("profile", "--model", " vilt ", *FLAGS, "--with-runs", runs, "--output-path", tmp_path / "profiles")
    (line,) = done.err.splitlines()  # one reason
    assert done.code == ExitCode.OK and line.startswith("left out of the chart, of models whose latency was not")


def test_json_on_stdout_and_the_folder_on_stderr(vlbench: Command, tmp_path: Path) -> None:
    done = vlbench("profile", "--model", "vilt", *FLAGS, "--json", "--output-path", tmp_path)
    (folder,) = tmp_path.iterdir()
    assert done.err.splitlines() == [str(folder)] and json.loads(done.out)["models"][0]["model"] == "vilt"
