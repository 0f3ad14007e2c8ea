"""Bad input ends in one sentence and the right exit code, and leaves nothing half-written."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from vlbench.records.folder import find_runs, read_run
from vlbench.world.generate import world_info

Call = Callable[..., Any]


@pytest.fixture
def real(small_nlvr2: Path) -> Path:
    """Eight examples per split with pictures and without features, which are extracted by the way."""
    for split, folder in (("train", "train/3"), ("dev", "dev"), ("test1", "test1")):
        for number in range(8):
            for slot in (0, 1):
                name = f"{split}-{number // 2}-{number % 2}-img{slot}.png"
                save(small_nlvr2 / "images" / folder / name, number, "JPEG" if slot else "PNG")
    return small_nlvr2


def save(path: Path, number: int, format_: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (64, 48), (255, 255, 255))
    picture.paste((30 * number, 90, 20), (8 + number, 8, 32, 32))
    picture.save(path, format=format_)


@pytest.fixture
def run_real(vlbench: Call, real: Path, tmp_path: Path) -> Call:
    """CVLP over that folder, by all that a run goes through."""
    command = ["run", "--task", "nlvr2", "--model", "cvlp", "--size", "tiny", "--data-root", real, "--allow-partial",
               "--steps", 2, "--batch-size", 4, "--output-path", tmp_path / "runs", "--quiet"]  # fmt: skip
    return lambda *more: vlbench(*command, *more)


def sentence(done: Any, code: int, *parts: str) -> None:
    """One sentence on stderr that says all of that, and nothing on stdout."""
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.startswith("vlbench: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err, done.err


def leaves_nothing(folder: Path, *, runs: int = 0) -> None:
    """No file beside its place, and only whole records, all of them of failures."""
    beside = [path for path in folder.rglob("*") if ".new-" in path.name or path.name.startswith(".")]
    assert [path for path in beside if not path.name.endswith(".lock")] == []
    assert [read_run(run).status for run in find_runs(folder)] == ["failed"] * runs


def test_the_sound_folder_runs(run_real: Call) -> None:
    done = run_real()
    assert done.code == 0
    assert read_run(done.run).coverage.scored == 8


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("fault", "slot", "said"),
    [
        (Path.unlink, 0, "cannot read the image"),
        (truncate, 0, "is a truncated or damaged image"),
        (truncate, 1, "is a truncated or damaged image"),  # the content is a JPEG, whatever the name says
        (lambda path: path.write_bytes(b""), 0, "is empty (0 bytes)"),
        (lambda path: path.write_text("<html>not found</html>"), 0, "is not an image"),
    ],
    ids=["missing", "truncated PNG", "truncated JPEG", "zero bytes", "a web page"],
)
def test_a_bad_picture(
    fault: Callable[[Path], object], slot: int, said: str, run_real: Call, real: Path, tmp_path: Path, cache: Path
) -> None:
    picture = real / "images" / "test1" / f"test1-2-1-img{slot}.png"
    fault(picture)
    sentence(run_real(), 5, str(picture), said)
    leaves_nothing(tmp_path / "runs", runs=1)
    leaves_nothing(cache)


def edit_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text(encoding="utf8").splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "Maybe"}, ("'label' is 'Maybe'", '"False" or "True" is expected')),
        ({"label": None}, ("'label' is None",)),
        ({"label": True}, ("'label' is True",)),
        ({"identifier": "test1-1"}, ("'identifier' is 'test1-1'",)),
        ({"sentence": 7}, ("'sentence' is 7",)),
        ("{not json", ("not JSON",)),
        ("[1, 2]", ("is not a JSON object",)),
    ],
    ids=["unknown label", "no label", "label of another type", "identifier", "sentence", "malformed", "no object"],
)
def test_a_bad_line_is_named(
    change: dict[str, object] | str, said: tuple[str, ...], run_real: Call, real: Path, make_line: Call, tmp_path: Path
) -> None:
    path = real / "data" / "test1.json"
    edit_line(path, 5, change if isinstance(change, str) else json.dumps({**make_line("test1", 4), **change}))
    sentence(run_real(), 5, f"{path}, line 5: ", *said)
    assert not (tmp_path / "runs").exists()


def test_a_directory_that_leads_elsewhere(run_real: Call, real: Path, make_line: Call) -> None:
    path = real / "data" / "train.json"
    edit_line(path, 2, json.dumps({**make_line("train", 1), "directory": "../../etc"}))
    sentence(run_real(), 5, f"{path}, line 2: 'directory' is '../../etc'")


def test_an_id_twice(run_real: Call, real: Path, make_line: Call) -> None:
    edit_line(real / "data" / "dev.json", 2, json.dumps(make_line("dev", 0)))
    sentence(run_real(), 5, "split 'dev' of nlvr2 holds ids twice: dev-0-0-0")


def test_an_empty_split(run_real: Call, real: Path, tmp_path: Path) -> None:
    (real / "data" / "test1.json").write_text("\n\n")
    sentence(run_real(), 5, "split 'test-p' of nlvr2", "is empty")
    assert not (tmp_path / "runs").exists()


def test_missing_annotations(run_real: Call, real: Path, tmp_path: Path) -> None:
    (real / "data" / "dev.json").unlink()
    sentence(run_real(), 5, "split 'dev' needs data/dev.json or nlvr2/data/dev.json or dev.json below")
    assert not (tmp_path / "runs").exists()


def test_no_data_root(vlbench: Call, tmp_path: Path) -> None:
    done = vlbench("run", "--task", "nlvr2", "--model", "fake", "--data-root", tmp_path / "nowhere")
    sentence(done, 5, f"{tmp_path / 'nowhere'} is not a folder")


def test_a_task_that_the_world_does_not_speak(vlbench: Call, tiny_world: Path) -> None:
    done = vlbench("run", "--task", "nlvr", "--model", "fake", "--data-root", tiny_world)
    spoken = ", ".join(sorted(world_info(tiny_world).counts))
    sentence(done, 5, f"the built-in world has no data for 'nlvr' (it has {spoken}): give --data-root")


@pytest.mark.parametrize("fault", ["features", "boxes", "fields"])
def test_a_bad_row_of_features(
    fault: str, vlbench: Call, quick: list[object], tiny_world: Path, tmp_path: Path, cache: Path
) -> None:
    world = tmp_path / "world"
    shutil.copytree(tiny_world, world)
    table = world / "nlvr2" / "features" / "test1.tsv"
    lines = table.read_bytes().splitlines()
    fields = lines[6].split(b"\t")
    if fault == "features":
        fields[9] = base64.b64encode(base64.b64decode(fields[9])[:-4])
    elif fault == "boxes":
        fields[7] = b"many"
    else:
        fields = fields[:-1]
    lines[6] = b"\t".join(fields)
    table.write_bytes(b"\n".join(lines) + b"\n")
    done = vlbench(*quick, "--model", "cvlp", "--data-root", world)
    said = {"features": "features holds", "boxes": "num_boxes is b'many'", "fields": "9 fields"}[fault]
    sentence(done, 5, f"{table}, line 7: ", said)
    leaves_nothing(tmp_path / "runs", runs=1)
    leaves_nothing(cache)


def test_an_output_path_that_is_a_file(vlbench: Call, quick: list[object], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for output in (file, file / "below"):
        sentence(vlbench(*quick, "--model", "fake", "--output-path", output), 5, f"{file}", "is a file")
    assert file.read_text() == "mine"


LIMITED = """
import resource, sys
from vlbench.cli.main import main
import vlbench.engine.execute
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("room", [0, 70_000, 300_000], ids=["none", "for the record", "but for the weights"])
def test_a_full_disk(room: int, quick: list[object], tmp_path: Path, tiny_world: Path) -> None:
    """No file may grow beyond a limit: the kernel refuses the write, as it does on a full disk."""
    warm = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    arguments = [str(part) for part in (*quick, "--model", "cvlp", "--size", "tiny", "--set", "train.steps=2")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), *arguments], capture_output=True, text=True, env=warm, check=False
    )
    assert (done.returncode, done.stdout) == (5, ""), done.stderr
    assert done.stderr.startswith("vlbench: ")
    assert done.stderr.count("\n") == 1
    assert "cannot" in done.stderr
    runs = tmp_path / "runs"
    leaves_nothing(runs, runs=0 if room == 0 else 1)
    assert list(runs.rglob("*.safetensors")) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("samples.parquet", b"PAR1 and then nothing", "samples.parquet"),
        ("samples.parquet", b"", "samples.parquet"),
        ("samples.parquet", None, "samples.parquet"),
        ("run.json", b'{"schema_version": 1, "status": "do', "run.json is corrupt"),
        ("run.json", b'{"schema_version": 99}', "has schema_version 99"),
    ],
    ids=["corrupt", "empty", "missing", "torn record", "another version"],
)
def test_a_damaged_run_is_said_and_made_again_on_request(
    name: str, content: bytes | None, said: str, vlbench: Call, quick: list[object]
) -> None:
    first = vlbench(*quick, "--model", "fake")
    file = first.run / name
    whole = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    sentence(vlbench(*quick, "--model", "fake"), 5, said)
    if content is not None:
        assert file.read_bytes() == content
    again = vlbench(*quick, "--model", "fake", "--no-resume")
    assert (again.code, again.run) == (0, first.run)
    if name == "samples.parquet":
        assert file.read_bytes() == whole


def test_a_run_with_other_rows_is_not_believed(
    vlbench: Call, quick: list[object], edit_record: Callable[..., None]
) -> None:
    first = vlbench(*quick, "--model", "fake")
    samples = first.run / "samples.parquet"
    pd.read_parquet(samples).head(95).to_parquet(samples)
    edit_record(first.run, lambda values: None)  # the seal alone would find it
    done = vlbench(*quick, "--model", "fake")
    assert done.code != 0
    assert "holds 95 of 96 predictions: rerun with --no-resume" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "nlvr3", "--model", "fake"), ("unknown task 'nlvr3'", "'nlvr2'")),
        (("--task", "nlvr2", "--model", "cvpl"), ("unknown model 'cvpl'", "did you mean 'cvlp'")),
        (("--task", "nlvr2", "--model", "fake", "--size", "tinny"), ("unknown size of fake 'tinny'", "'tiny'")),
        (("--task", "nlvr2", "--model", "fake", "--split", "test-q"), ("unknown split of nlvr2 'test-q'", "'test-p'")),
        (("--task", "nlvr2", "--model", "fake", "--select-on", "def"), ("unknown split of nlvr2 'def'", "'dev'")),
        (("--task", "nlvr2", "--model", "fake", "--set", "train.stpes=4"), ("unknown key 'train.stpes'", "'steps'")),
        (("--task", "nlvr2", "--model", "fake", "--set", "sead=4"), ("unknown key 'sead'", "'seed'")),
        (("--task", "nlvr2", "--model", "fake", "--set", "train.lr"), ("--set train.lr has no name=value",)),
        (("--task", "nlvr2", "--model", "fake", "--sede", "1"), ("--sede", "--seed")),
        (("--task", "nlvr2", "--model", "fake", "--seed", "many"), ("--seed", "valid integer")),
        (("--task", "nlvr2", "--model", "fake", "--lr", "-1"), ("train.lr is -1",)),
        (("--task", "nlvr2", "--model", "fake", "--limit", "0"), ("limit is 0",)),
        (("--task", "nlvr2", "--model", "fake", "--controls", "blnd"), ("controls", "'blnd'")),
        (("--task", "nlvr2", "--model", "fake", "--dtype", "float"), ("dtype is 'float'",)),
        (("--task", "nlvr2", "--model", "fake", "--device", "gpu"), ("--device gpu is unknown",)),
        (("--task", "nlvr2", "--model", "fake", "--domain", "plane"), ("domain is 'plane'",)),
        (("--task", "nlvr2"), ("--model is missing",)),
        (("--model", "fake"), ("--task is missing",)),
        (("--task", "nlvr2", "--model", "fake", "--predict-only"), ("--predict-only",)),
        (("--config", "absent.yaml"), ("--config absent.yaml cannot be read",)),
        (("--task", "nlvr2", "--model", "nowhere/model.py:Class"), ("there is no file nowhere/model.py",)),
        (("--task", "nlvr2", "--model", "fake", "--tasks-dir", "nowhere"), ("--tasks-dir nowhere is not a folder",)),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) and value[0].startswith("--") else None,
)
def test_an_unknown_name_has_its_near_miss(
    arguments: tuple[str, ...], said: tuple[str, ...], vlbench: Call, tiny_world: Path, tmp_path: Path
) -> None:
    done = vlbench("run", *arguments, "--data-root", tiny_world, "--output-path", tmp_path / "runs")
    sentence(done, 2, *said)
    assert find_runs(tmp_path / "runs") == [] or read_run(find_runs(tmp_path / "runs")[0]).status == "failed"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("rum",), 2, "rum"),
        (("list", "task"), 2, "task"),
        (("score", "--task", "nlvr2"), 2, "--predictions"),
        (("data", "wrld"), 2, "wrld"),
        (("data", "world", "--domain", "plane"), 2, "unknown domain 'plane'"),
        (("show", "nowhere"), 2, "nowhere holds no run"),
        (("score", "--task", "nlvr2", "--predictions", "absent.csv", "--data-root", "."), 5, "split 'test-p' needs"),
    ],
)
def test_other_verbs(
    arguments: tuple[str, ...], code: int, said: str, vlbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence(vlbench(*arguments), code, said)


def test_weights_that_do_not_fit(vlbench: Call, quick: list[object], tmp_path: Path) -> None:
    sentence(vlbench(*quick, "--model", "cvlp", "--checkpoint", tmp_path), 6, "holds no weights")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"no weights")
    sentence(vlbench(*quick, "--model", "cvlp", "--checkpoint", file), 6, "does not load as safetensors")
    fake = vlbench(*quick, "--model", "fake")
    sentence(vlbench(*quick, "--model", "cvlp", "--checkpoint", fake.run), 6, "fits 0 of the backbone's")


def test_a_run_begins_from_the_weights_of_another(vlbench: Call, quick: list[object]) -> None:
    first = vlbench(*quick, "--model", "cvlp")
    second = vlbench(*quick, "--model", "cvlp", "--checkpoint", first.run)
    model = read_run(second.run).model
    assert (second.code, model.from_scratch, model.load_report.missing) == (0, False, 0)
    assert second.run != first.run


def test_a_corrupt_private_card_says_all_at_once(vlbench: Call, tmp_path: Path) -> None:
    folder = tmp_path / "tasks" / "mine"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text("name: mine\nversoin: 1\n")
    done = vlbench("run", "--task", "mine", "--model", "fake", "--tasks-dir", tmp_path / "tasks")
    sentence(done, 2, "unknown key 'versoin', did you mean 'version'?", "title", "metrics")
    (folder / "task.yaml").write_text("name: [mine\n")
    sentence(vlbench("list", "tasks", "--tasks-dir", tmp_path / "tasks"), 2, "task.yaml is not YAML")


def test_pictures_of_every_kind_are_read(run_real: Call, real: Path) -> None:
    kinds = {"CMYK": "JPEG", "P": "PNG", "RGBA": "PNG", "L": "GIF", "1": "BMP", "YCbCr": "JPEG"}
    for number, (mode, format_) in enumerate(kinds.items()):
        content = io.BytesIO()
        picture = Image.new("RGB", (64, 48), (200, 30 * number, 90)).convert(mode)
        picture.save(content, format=format_)
        path = real / "images" / "test1" / f"test1-{number // 2}-{number % 2}-img0.png"
        path.write_bytes(content.getvalue())
    assert run_real().code == 0
