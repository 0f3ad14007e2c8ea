from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vlbench.core.cards import Recipe
from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.validate import parse
from vlbench.records.folder import RunFolder, find_runs, read_run
from vlbench.records.lock import run_lock

FULL_DISK = """
import resource, sys
from pathlib import Path
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import RunSpec
from vlbench.records.folder import RunFolder
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
folder = RunFolder(Path(sys.argv[1]))
action = sys.argv[3]
try:
    if action == "create":
        RunFolder.create(RunSpec(task="nlvr2", model="cvlp", size="tiny", output_path=folder.path), "f")
    elif action == "record":
        record = folder.read_record()
        folder.write_record(record.model_copy(update={"error": "x" * 100_000}))
    else:
        for step in range(100_000):
            folder.append_metrics({"step": step, "text": "x" * 100})
except VlbenchError as error:
    print(int(error.exit_code), error)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from vlbench.records.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
record = folder.read_record()
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
folder.write_record(record.model_copy(update={"status": "failed", "error": "x" * 100_000}))
"""


@pytest.fixture
def folder(spec: RunSpec, record: RunRecord) -> RunFolder:
    folder = RunFolder.create(spec, record.fingerprint)
    folder.write_record(record)
    return folder


def unsealed(record: RunRecord | None) -> RunRecord:
    """The record without the seal that writing it added."""
    assert record is not None and record.seal
    return record.model_copy(update={"seal": "", "files": {}})


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


def test_layout(spec: RunSpec) -> None:
    folder = RunFolder.create(spec, "abc")
    assert folder.path == spec.output_path / "nlvr2" / "cvlp-tiny" / "abc"
    assert list(folder.path.iterdir()) == []
    places = [folder.run_json, folder.samples, folder.config, folder.metrics, folder.log, folder.best, folder.last]
    names = ["run.json", "samples.parquet", "config.yaml", "metrics.jsonl", "log.txt"]
    assert places == [folder.path / name for name in (*names, "checkpoints/best", "checkpoints/last")]
    assert RunFolder.create(spec, "abc") == folder


def test_a_model_given_by_path_stays_inside(spec: RunSpec) -> None:
    odd = spec.model_copy(update={"model": "../../mine.py:Net"})
    assert RunFolder.create(odd, "abc").path.parent.parent == spec.output_path / "nlvr2"


def test_an_unresolved_spec_is_a_bug(spec: RunSpec) -> None:
    with pytest.raises(ValueError, match="resolve"):
        RunFolder.create(spec.model_copy(update={"size": None}), "abc")


def test_record_round_trip(folder: RunFolder, record: RunRecord) -> None:
    assert unsealed(folder.read_record()) == record
    assert unsealed(read_run(folder.path)) == unsealed(read_run(folder.run_json)) == record
    assert list(folder.path.iterdir()) == [folder.run_json]
    folder.write_record(record.model_copy(update={"status": "failed"}))
    assert read_run(folder.path).status == "failed"


def test_no_record_yet(spec: RunSpec) -> None:
    assert RunFolder.create(spec, "abc").read_record() is None


def test_nan_is_not_written(folder: RunFolder, record: RunRecord) -> None:
    before = folder.run_json.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_record(record.model_copy(update={"majority": float("nan")}))
    assert folder.run_json.read_bytes() == before


def test_home_paths_are_not_written(
    folder: RunFolder, record: RunRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    private = record.spec.model_copy(update={"data_root": tmp_path / "data"})
    folder.write_record(record.model_copy(update={"spec": private, "error": f"no room in {tmp_path}/x"}))
    folder.write_config(private)
    assert str(tmp_path) not in folder.run_json.read_text() + folder.config.read_text()
    assert read_run(folder.path).error == "no room in ~/x"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 1}'],
    ids=["empty", "incomplete", "list", "null", "bytes", "deep", "fields"],
)
def test_corrupt_record(folder: RunFolder, content: bytes) -> None:
    folder.run_json.write_bytes(content)
    with pytest.raises(DataError) as raised:
        folder.read_record()
    assert str(folder.run_json) in raised.value.message
    assert raised.value.message.endswith("delete the folder or rerun with --no-resume")


def test_truncated_anywhere_is_an_error(folder: RunFolder) -> None:
    content = folder.run_json.read_bytes().rstrip()
    for end in range(0, len(content), 97):
        folder.run_json.write_bytes(content[:end])
        with pytest.raises(DataError, match="corrupt"):
            folder.read_record()


def test_other_schema_version(folder: RunFolder) -> None:
    values = json.loads(folder.run_json.read_text(encoding="utf-8"))
    folder.run_json.write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(DataError, match="schema_version 99 where this vlbench reads 1"):
        folder.read_record()


def test_config_is_a_spec_again(spec: RunSpec) -> None:
    given = spec.model_copy(
        update={"train": Recipe(lr=3e-5), "limit": 0.1, "checkpoint": "1e5", "data_root": Path("ä b")}
    )
    folder = RunFolder.create(given, "abc")
    folder.write_config(given)
    assert parse(RunSpec, yaml.safe_load(folder.config.read_text(encoding="utf-8")), "config.yaml") == given


def test_metrics_lines(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1, "loss": 0.5, "phase": "tr\nain"})
    folder.append_metrics({"step": 2, "loss": float("nan")})
    lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5, "phase": "tr\nain"},
        {"step": 2, "loss": "nan"},
    ]


@pytest.mark.parametrize(("content", "kept"), [('{"step": 1}\n{"st', [1, 3]), ('{"st', [3]), ("", [3])])
def test_metrics_after_an_incomplete_line(folder: RunFolder, content: str, kept: list[int]) -> None:
    folder.metrics.write_text(content)
    folder.append_metrics({"step": 3})
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == kept


def test_output_path_is_a_file(spec: RunSpec) -> None:
    spec.output_path.write_text("mine")
    with pytest.raises(VlbenchError, match=r"runs is a file\): give an --output-path") as raised:
        RunFolder.create(spec, "abc")
    assert raised.value.exit_code == ExitCode.DATA
    assert spec.output_path.read_text() == "mine"


def test_a_file_in_the_place_of_the_folder(spec: RunSpec) -> None:
    blocked = spec.output_path / "nlvr2" / "cvlp-tiny" / "abc"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    with pytest.raises(VlbenchError, match=r"abc cannot be written"):
        RunFolder.create(spec, "abc")
    assert blocked.is_file()


def test_full_disk_when_the_folder_is_made(tmp_path: Path) -> None:
    done = run(FULL_DISK, tmp_path / "deep" / "runs", 1000, "create")
    assert done.stdout.startswith(f"5 {tmp_path}/deep/runs cannot be written"), done
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_record(folder: RunFolder, record: RunRecord) -> None:
    done = run(FULL_DISK, folder.path, 50_000, "record")
    assert done.stdout.startswith("5 ") and "run.json" in done.stdout, done
    assert unsealed(read_run(folder.path)) == record
    assert list(folder.path.iterdir()) == [folder.run_json]


def test_full_disk_keeps_whole_metrics_lines(folder: RunFolder) -> None:
    done = run(FULL_DISK, folder.path, 10_000, "metrics")
    assert done.stdout.startswith(f"5 {folder.metrics} cannot be written"), done
    steps = [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]
    assert len(steps) > 50 and steps == list(range(len(steps)))


def test_killed_writer_keeps_the_old_record(folder: RunFolder, record: RunRecord) -> None:
    assert run(KILLED, folder.path).returncode == -9
    assert unsealed(read_run(folder.path)) == record
    assert find_runs(folder.path.parent) == [folder.path]


def test_clear_keeps_the_lock_only(folder: RunFolder) -> None:
    folder.best.mkdir(parents=True)
    (folder.best / "weights").touch()
    with run_lock(folder.path):
        folder.clear()
        assert [entry.name for entry in folder.path.iterdir()] == [".lock"]
        with pytest.raises(VlbenchError), run_lock(folder.path):
            pass


def test_find_runs(spec: RunSpec, record: RunRecord) -> None:
    made = [RunFolder.create(spec.model_copy(update={"model": model}), "abc") for model in ("vilt", "cvlp")]
    for each in made:
        each.write_record(record)
    RunFolder.create(spec, "not-begun")
    assert find_runs(spec.output_path) == sorted(each.path for each in made)
    assert find_runs(made[0].path) == [made[0].path]
    assert find_runs(spec.output_path / "absent") == []


def test_a_path_of_a_record_is_found_from_here_else_from_its_folder_upwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "work" / "runs" / "nlvr2" / "cvlp-tiny" / "f")
    run.path.mkdir(parents=True)
    (tmp_path / "work" / "probe").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run.resolve_path(Path("probe")) == tmp_path / "work" / "probe"
    assert RunFolder(Path("work/runs/nlvr2/cvlp-tiny/f")).resolve_path(Path("probe")) == tmp_path / "work" / "probe"
    (tmp_path / "probe").mkdir()
    assert run.resolve_path(Path("probe")) == Path("probe")
    assert run.resolve_path(tmp_path / "probe") == tmp_path / "probe"
    assert run.resolve_path(Path("nowhere")) == Path("nowhere")
    assert run.resolve_path(None) is None


def test_near_misses(folder: RunFolder, spec: RunSpec) -> None:
    with pytest.raises(VlbenchError, match=f"did you mean {folder.path}"):
        read_run(folder.path.with_name("0123456789abcdee"))
    with pytest.raises(VlbenchError, match=f"did you mean {folder.path}"):
        read_run(spec.output_path / "nlvr" / "cvlp-tiny" / folder.path.name)
    other = RunFolder.create(spec, "another")
    other.write_record(read_run(folder.path))
    with pytest.raises(VlbenchError, match=f"expected one run: give {folder.path}, {other.path}"):
        read_run(spec.output_path)
    with pytest.raises(VlbenchError, match=r"give a run's folder or its run\.json"):
        read_run(Path("/no/such/place"))


def test_a_folder_that_holds_one_run_is_that_run(folder: RunFolder, spec: RunSpec, record: RunRecord) -> None:
    assert RunFolder.open(spec.output_path) == RunFolder.open(folder.run_json) == folder
    assert unsealed(read_run(spec.output_path / "nlvr2")) == record


def test_a_copy_of_a_record_is_no_run(folder: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "gqa-cvlp.json"
    copy.write_bytes(folder.run_json.read_bytes())
    with pytest.raises(VlbenchError, match=r"gqa-cvlp\.json is a file, .* no samples: give the folder of its run"):
        RunFolder.open(copy)


def test_what_is_written_before_any_work_is_no_work(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.is_empty() and not folder.holds_work()
    for path in (folder.run_json, folder.config, folder.log):
        path.touch()
    (tmp_path / "trackers").mkdir()
    assert not folder.is_empty() and not folder.holds_work()
    for path in (folder.metrics, folder.samples, tmp_path / "shards"):
        path.touch()
        assert folder.holds_work()
        path.unlink()
