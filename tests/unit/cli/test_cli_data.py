"""`vlbench data` and `vlbench score` over small folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlbench.engine import resources
from vlbench.engine.source import load_task
from vlbench.records.folder import read_run
from vlbench.world import generate
from vlbench.world.generate import TINY, is_world, world_info

Call = Callable[..., Any]


@pytest.fixture
def world(tiny_world: Path, tmp_path: Path) -> Path:
    """A world of the test's own, to be changed."""
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


@pytest.fixture
def answers(tiny_world: Path, tmp_path: Path) -> Path:
    """The official file of a perfect model on test-p."""
    path = tmp_path / "answers.csv"
    examples = load_task("nlvr2", tiny_world).load("test-p")
    path.write_text("".join(f"{example.id},{example.reference.value}\n" for example in examples))
    return path


def test_check_says_what_is_there(vlbench: Call, tiny_world: Path) -> None:
    done = vlbench("data", "check", "--task", "nlvr2", "--data-root", tiny_world)
    assert done.code == 0
    header, _, *rows = done.out.splitlines()
    assert header.split() == ["split", "examples", "expected", "groups", "images", "missing", "undecodable", "md5",
                              "verdict"]  # fmt: skip
    assert [row.split()[:6] for row in rows] == [
        ["train", "192", "192", "48", "192", "0"],
        *([split, "96", "96", "24", "96", "0"] for split in ("dev", "test-p", "test-u")),
    ]
    assert {row.split()[-1] for row in rows} == {"ok"}


def test_check_ends_with_5_where_something_is_wrong(vlbench: Call, world: Path) -> None:
    images = world / "nlvr2" / "images" / "dev"
    missing, broken = sorted(images.iterdir())[:2]
    missing.unlink()
    broken.write_bytes(b"")
    arguments = ("data", "check", "--task", "nlvr2", "--data-root", world, "--split", "dev, test-p")
    done = vlbench(*arguments)
    assert done.code == 5
    assert "dev: 1 of 96 images are missing" in done.out
    assert f"the image {broken} is empty (0 bytes)" in done.out
    assert "Traceback" not in done.err
    shown = vlbench(*arguments, "--json")
    values = json.loads(shown.out)
    assert (shown.code, values["ok"], values["splits"]["dev"]["ok"], values["splits"]["test-p"]["ok"]) == (
        5, False, False, True,
    )  # fmt: skip
    assert (values["splits"]["dev"]["missing"], values["splits"]["dev"]["undecodable"]) == (1, 1)
    assert vlbench(*arguments, "--no-images").code == 0


def test_check_where_there_is_nothing(vlbench: Call, tmp_path: Path) -> None:
    done = vlbench("data", "check", "--task", "nlvr2", "--data-root", tmp_path)
    assert (done.code, done.out) == (5, "")
    assert "no split of nlvr2 is below" in done.err


@pytest.mark.parametrize("verb", ["check", "features"])
def test_a_split_is_named_once(vlbench: Call, world: Path, verb: str) -> None:
    done = vlbench("data", verb, "--task", "nlvr2", "--data-root", world, "--split", "train,train")
    assert done.code == 2 and "--split names train more than once" in done.err


def test_features_are_written_and_then_used(
    vlbench: Call, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world / "nlvr2" / "features"
    shutil.rmtree(folder)
    done = vlbench("data", "features", "--task", "nlvr2", "--data-root", world, "--split", "train, dev,test-p")
    assert done.code == 0
    assert done.out.splitlines() == [str(folder / f"{split}.tsv") for split in ("train", "dev", "test-p")]
    assert [len((folder / f"{split}.tsv").read_bytes().splitlines()) for split in ("train", "dev")] == [192, 96]
    assert "train: features of 192 images extracted by flat" in done.err

    monkeypatch.setattr(resources, "extract_all", lambda *_: pytest.fail("an image is described again"))
    run = vlbench("run", "--task", "nlvr2", "--model", "cvlp", "--data-root", world, "--output-path", tmp_path / "runs",
                  "--steps", 1, "--batch-size", 8, "--select-on", "none", "--controls", "none")  # fmt: skip
    assert run.code == 0, run.err
    assert read_run(run.run).coverage.scored == 96


def test_features_that_are_there_are_not_lost(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    arguments = ("data", "features", "--task", "nlvr2", "--data-root", tiny_world, "--output", tmp_path)
    kept = tmp_path / "dev.tsv"
    kept.write_text("hours of work")
    rejected = vlbench(*arguments, "--split", "test-p,dev")
    assert (rejected.code, rejected.out) == (2, "") and f"{kept} would be lost" in rejected.err
    assert [path.name for path in tmp_path.iterdir()] == ["dev.tsv"] and kept.read_text() == "hours of work"
    done = vlbench(*arguments, "--split", "dev", "--overwrite")
    assert (done.code, done.out.splitlines()) == (0, [str(kept)])
    assert len(kept.read_bytes().splitlines()) == 96


def test_an_unknown_extractor(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    place = ("--data-root", tiny_world, "--output", tmp_path)
    done = vlbench("data", "features", "--task", "nlvr2", *place, "--extractor", "yolo")
    assert (done.code, done.out) == (2, "")
    assert "unknown extractor 'yolo': known: fasterrcnn, flat" in done.err


def test_world_prints_where_it_is(vlbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path))
    ensure = generate.ensure_world
    monkeypatch.setattr(generate, "ensure_world", lambda *given, **named: ensure(*given, **named, size=TINY))
    done = vlbench("data", "world", "--domain", "textured", "--seed", 3)
    (line,) = done.out.splitlines()
    assert (done.code, is_world(Path(line))) == (0, True)
    assert Path(line).is_relative_to(tmp_path)
    assert (world_info(Path(line)).domain, world_info(Path(line)).seed) == ("textured", 3)


def test_score_prints_a_table(vlbench: Call, tiny_world: Path, answers: Path) -> None:
    done = vlbench("score", "--task", "nlvr2", "--predictions", answers, "--data-root", tiny_world)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("nlvr2 test-p | built-in world\n")
    assert "100.00" in done.out


def test_score_prints_one_json_object_and_nothing_else(vlbench: Call, tiny_world: Path, answers: Path) -> None:
    arguments = ("score", "--task", "nlvr2", "--predictions", answers, "--data-root", tiny_world, "--json")
    done = vlbench(*arguments)
    assert (done.code, done.err) == (0, "")
    values = json.loads(done.out)
    assert list(values) == ["task", "split", "n", "scores", "slices", "coverage", "source", "notes"]
    accuracy = values["scores"]["accuracy"]
    assert (list(accuracy), accuracy["value"], accuracy["n"]) == (["value", "n", "stderr", "ci95"], 100.0, 96)
    assert values["scores"]["consistency"]["n"] == 24

    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[1:]))
    rejected = vlbench(*arguments)
    assert (rejected.code, rejected.out) == (7, "")
    assert "1 missing (test1-" in rejected.err
    partial = json.loads(vlbench(*arguments, "--allow-partial").out)
    assert (partial["n"], partial["coverage"]["missing"]) == (95, 1)


def test_a_runs_samples_score_as_the_run_did(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    run = vlbench("run", "--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path,
                  "--steps", 2, "--controls", "blind").run  # fmt: skip
    done = vlbench("score", "--task", "nlvr2", "--predictions", run / "samples.parquet", "--data-root", tiny_world,
                   "--json")  # fmt: skip
    scores = json.loads(done.out)["scores"]
    for result in read_run(run).results:
        assert scores[result.metric]["value"] == result.value
        assert tuple(scores[result.metric]["ci95"]) == result.ci95


def test_show_prints_examples(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    run = vlbench("run", "--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path,
                  "--steps", 2, "--controls", "none").run  # fmt: skip
    done = vlbench("show", run, "--wrong", "-n", 2)
    assert done.code == 0
    assert done.out.count("test1-") >= 2


def test_check_tells_copies_of_test_images_in_the_train_split(vlbench: Call, world: Path) -> None:
    images = world / "nlvr2" / "images"
    stolen = sorted((images / "test1").iterdir())[0]
    taken = sorted((images / "train").rglob("*.png"))[0]
    shutil.copy(stolen, taken)
    arguments = ("data", "check", "--task", "nlvr2", "--data-root", world)
    done = vlbench(*arguments)
    assert done.code == 0, "official images have duplicates too, which are kept"
    assert f"train, test-p: both hold the bytes {taken.stem} = {stolen.stem}" in done.out
    said = "1 images of train and 1 of test-p have the same bytes under another name, in 1 pairs"
    assert f"train, test-p: {said}" in done.out
    values = json.loads(vlbench(*arguments, "--json").out)
    (overlap,) = values["overlaps"]
    assert (values["ok"], overlap["verdict"], overlap["copies"]) == (True, "copies", [f"{taken.stem} = {stolen.stem}"])


def test_check_finds_test_examples_in_what_is_selected_on(vlbench: Call, world: Path) -> None:
    dev, test = (world / "nlvr2/data" / f"{name}.json" for name in ("dev", "test1"))
    stolen = test.read_text().splitlines()[0]
    dev.write_text("\n".join([*dev.read_text().splitlines()[:-1], stolen]) + "\n")
    identifier = json.loads(stolen)["identifier"]
    for name in (f"{identifier[:-2]}-img0.png", f"{identifier[:-2]}-img1.png"):
        shutil.copy(world / "nlvr2/images/test1" / name, world / "nlvr2/images/dev" / name)
    done = vlbench("data", "check", "--task", "nlvr2", "--data-root", world)
    assert done.code == 5
    assert f"dev, test-p: both hold the examples {identifier}" in done.out


def test_check_counts_what_another_task_trains_on(vlbench: Call, world: Path) -> None:
    seen = sorted((world / "nlvr2" / "images" / "train").rglob("*.png"))[0]
    shown = load_task("snli_ve", world).load("test")[0].query.images[0].path
    for path in (seen, shown):  # an image that no task had before
        Image.new("RGB", (5, 7), "orange").save(path, "PNG")
    done = vlbench("data", "check", "--task", "snli_ve,nlvr2", "--data-root", world)
    assert done.code == 0, done.out
    assert "warning: a model that was trained on another task has seen images of these splits" in done.out
    assert f"test: first {shown.stem} = {seen.stem}" in done.out
    assert "1 (measured)" in done.out and "measured in this data" in done.out
    values = json.loads(
        vlbench("data", "check", "--task", "snli_ve,nlvr2", "--data-root", world, "--split", "train,dev", "--json").out
    )
    assert values["ok"] and values["tasks"]["snli_ve"]["leaks"] == []


def test_a_number_of_the_card_is_not_shown_as_measured(vlbench: Call, shared_data: Path) -> None:
    done = vlbench(
        "data", "check", "--task", "snli_ve", "--data-root", shared_data / "snli_ve_sample", "--allow-partial"
    )
    row = next(line for line in done.out.splitlines() if "flickr30k_retrieval train" in line)
    assert "not measured; task card: 970" in row and "(unverified)" in row
    assert "(measured)" not in done.out


def test_check_verifies_what_it_has_seen_before(
    vlbench: Call, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    asked = ("data", "check", "--task", "nlvr2", "--data-root", world, "--split", "dev", "--no-images")
    files = 97 + len(list((world / "nlvr2" / "features").iterdir()))
    first = vlbench(*asked, "--verify-data")
    assert first.code == 0 and f"dev: first verification of {files} files of split 'dev' of nlvr2" in first.out
    assert f"dev: verified {files} files of split 'dev' of nlvr2: as on " in vlbench(*asked, "--verify-data").out
    image = sorted((world / "nlvr2" / "images" / "dev").iterdir())[0]
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(bytes(content))
    assert vlbench(*asked).code == 0
    found = vlbench(*asked, "--verify-data")
    assert found.code == 5 and f"({image}): restore what was there, or delete" in found.out


def test_a_run_verifies_and_says_how_much(
    vlbench: Call, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    asked = ["run", "--task", "nlvr2", "--model", "fake", "--data-root", world, "--steps", 1, "--controls", "none",
             "--output-path", tmp_path / "runs"]  # fmt: skip
    first = vlbench(*asked, "--verify-data")
    assert first.code == 0 and first.err.count("first verification of ") == 3
    assert read_run(first.run).spec.verify_data
    again = vlbench(*asked, "--verify-data")
    assert again.run == first.run and again.err.count("verified ") == 3 and "already done" in again.err
    image = sorted((world / "nlvr2" / "images" / "test1").iterdir())[0]
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(bytes(content))
    assert vlbench(*asked).code == 0
    found = vlbench(*asked, "--verify-data")
    assert found.code == 5 and str(image) in found.err and "split 'test-p'" in found.err
