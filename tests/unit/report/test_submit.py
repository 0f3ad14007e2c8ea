from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.errors import CoverageError, DataError, VlbenchError
from vlbench.core.record import RunRecord
from vlbench.records.folder import RunFolder
from vlbench.records.samples import SampleRow, write_samples
from vlbench.report.submit import SERVERS, submission

AGAIN = "vlbench run --task vqa2 --model cvlp --size tiny"
ANSWERS = {"7": "yes", "42": 'a "red" bus, or two'}


def made(folder: Path, record: RunRecord, task: str, of: str, answers: dict[str, str], **changed: object) -> Path:
    """A run's folder with those answers."""
    info = record.task.model_copy(update={"name": task, "split": of, "source": "real", "n_total": len(answers)})
    info = info.model_copy(update=changed)
    rows = [
        SampleRow(
            example_id=name, split=of, group=name, text="", image_ids=(), reference="{}", prediction=answer,
            confidence=None, score=None, status="ok", error="", control=control,
        )
        for control in ("", "blind")
        for name, answer in answers.items()
    ]  # fmt: skip
    write_samples(folder / "samples.parquet", rows)
    RunFolder(folder).write_record(record.model_copy(update={"task": info}))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Official splits of two examples."""
    whole = catalog.task_card

    def card(name: str) -> object:
        found = whole(name)
        splits = {key: split.model_copy(update={"count": 2}) for key, split in found.splits.items()}
        return found.model_copy(update={"splits": splits})

    monkeypatch.setattr("vlbench.report.submit.catalog.task_card", card)


def test_vqa(folder: Path, record: RunRecord, tmp_path: Path) -> None:
    path, where = submission(made(folder, record, "vqa2", "test", ANSWERS), "evalai-vqa2", tmp_path / "out.json")
    assert json.loads(path.read_text("utf8")) == [
        {"question_id": 7, "answer": "yes"},
        {"question_id": 42, "answer": 'a "red" bus, or two'},
    ]
    assert path == tmp_path / "out.json" and "830" in where


def test_gqa_keeps_leading_zeros(folder: Path, record: RunRecord) -> None:
    path, _ = submission(made(folder, record, "gqa", "submission", {"00126851": "yes", "5": "no"}), "evalai-gqa")
    assert json.loads(path.read_text("utf8"))[0] == {"questionId": "00126851", "prediction": "yes"}
    assert path.parent == folder


def test_nlvr2(folder: Path, record: RunRecord) -> None:
    answers = {"dev-1-0-0": "True", "dev-1-1-0": "False"}
    path, _ = submission(made(folder, record, "nlvr2", "dev", answers), "nlvr2")
    assert path.read_text("utf8") == "dev-1-0-0,True\ndev-1-1-0,False\n"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"source": "world"}, f"is of the built-in world: answer that with `{AGAIN} --split test --data-root DIR`$"),
        (
            {"split": "minival"},
            f"this run is of vqa2 minival: answer that with `{AGAIN} --split test --data-root DIR`$",
        ),
        ({"split": "test-dev"}, "takes vqa2 test, which it scores test-dev from too, .* --split test "),
        ({"name": "gqa"}, "takes vqa2 test, and this run is of gqa test: give a run of vqa2$"),
        ({"n_total": 3}, "the data held 3 examples of vqa2 test where the official split has 2"),
    ],
)
def test_another_run(folder: Path, record: RunRecord, changed: dict[str, object], says: str) -> None:
    with pytest.raises(VlbenchError, match=says):
        submission(made(folder, record, "vqa2", "test", ANSWERS, **changed), "evalai-vqa2")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"mode": "eval", "checkpoint": "my weights.pt"}, "--mode eval --checkpoint 'my weights.pt' --split test "),
        ({"mode": "zero-shot", "checkpoint": None}, "--size tiny --mode zero-shot --split test "),
        ({"mode": "finetune", "checkpoint": "/w.pt"}, "--size tiny --checkpoint /w.pt --split test "),
    ],
)
def test_the_remedy_is_of_the_same_system(folder: Path, record: RunRecord, spec: dict[str, object], says: str) -> None:
    told = record.model_copy(update={"spec": record.spec.model_copy(update=spec)})
    with pytest.raises(VlbenchError, match=says):
        submission(made(folder, told, "vqa2", "minival", ANSWERS), "evalai-vqa2")


def test_part_of_a_split(folder: Path, record: RunRecord) -> None:
    with pytest.raises(CoverageError, match=r"answered 1 of the 2 examples .* run it without --limit"):
        submission(made(folder, record, "vqa2", "test", {"7": "yes"}, n_total=2), "evalai-vqa2")


def test_wrong_types(folder: Path, record: RunRecord) -> None:
    with pytest.raises(DataError, match="question ids a are not numbers"):
        submission(made(folder, record, "vqa2", "test", {"a": "yes", "2": "no"}), "evalai-vqa2")
    with pytest.raises(DataError, match="answers yes are neither True nor False"):
        submission(made(folder, record, "nlvr2", "dev", {"a": "yes", "b": "True"}), "nlvr2")
    assert not list(folder.glob("submission-*"))


def test_a_run_that_is_not_done(folder: Path, record: RunRecord) -> None:
    made(folder, record.model_copy(update={"status": "interrupted"}), "vqa2", "test", ANSWERS)
    with pytest.raises(VlbenchError, match="is interrupted, not done"):
        submission(folder, "evalai-vqa2")
    with pytest.raises(VlbenchError, match="unknown server 'evalai-vqa'"):
        submission(folder, "evalai-vqa")


def test_servers_take_splits_that_exist() -> None:
    for server in SERVERS.values():
        assert {*server.splits, *server.hidden} <= catalog.task_card(server.task).splits.keys()


def test_another_split_is_answered_with_the_weights_of_the_run(folder: Path, record: RunRecord) -> None:
    made(folder, record, "vqa2", "minival", ANSWERS)
    RunFolder(folder).best.mkdir(parents=True)
    with pytest.raises(VlbenchError, match=f"{AGAIN} --mode eval --checkpoint {folder} --split test --data-root DIR"):
        submission(folder, "evalai-vqa2")
