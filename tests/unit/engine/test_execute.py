"""The record of a run that is done, failed or interrupted."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlbench.core import user_code
from vlbench.core.errors import CoverageError, DataError, VlbenchError
from vlbench.core.progress import Silent
from vlbench.core.results import Prediction
from vlbench.engine.evaluators import classification
from vlbench.engine.execute import execute
from vlbench.engine.job import Job
from vlbench.engine.runtime.interrupt import Interrupted
from vlbench.engine.trial import Trial
from vlbench.records.folder import RunFolder, find_runs, read_run
from vlbench.records.samples import read_samples

STEPS = {"steps": 2, "batch_size": 8}


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(train=STEPS, controls=("blind",))


@pytest.fixture
def folder(job: Job) -> RunFolder:
    return RunFolder.create(job.spec, job.fingerprint)


def change_predictions(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Prediction]], list[Prediction]]) -> None:
    """Change the predictions of the reported split before they are matched."""
    predict = classification.classify

    def changed(learner, examples, pace, shards=None):
        predictions, timing = predict(learner, examples, pace, shards)
        return (change(predictions) if pace.what == "predicting" else predictions), timing

    monkeypatch.setattr(classification, "classify", changed)


def test_a_record_is_whole(job: Job, folder: RunFolder) -> None:
    record = execute(job, folder, Silent())
    assert record == read_run(folder.path)
    assert (record.status, record.error, record.fingerprint) == ("done", "", job.fingerprint)
    assert record.model.parameters == 64 + (2 * 32 * 64 + 64) + 2 * 64 + (64 * 2 + 2)  # gain, bias; the pair head
    assert (record.model.from_scratch, record.model.load_report) == (True, None)
    assert set(record.efficiency.seconds) == {
        "resources", "finetune", "predict", "finetune (blind)", "predict (blind)",
    }  # fmt: skip
    assert (record.train.steps, record.train.effective_batch, record.train.selected_on) == (2, 8, "dev")
    lines = [json.loads(line) for line in folder.metrics.read_text("utf8").splitlines()]
    selected = [line for line in lines if "selection" in line and not line.get("control")]
    assert record.train.selection == max(line["selection"] for line in selected)
    assert record.train.best_step in {line["step"] for line in selected if line["selection"] == record.train.selection}
    assert [result.metric for result in record.results] == ["accuracy", "consistency"]
    assert record.majority == 50.0
    assert read_samples(folder.samples)["control"].value_counts().to_dict() == {"": 96, "blind": 96}
    assert sorted(path.name for path in folder.path.rglob("last")) == []
    assert {path.parent.name for path in folder.path.rglob("best")} == {"checkpoints", "blind"}


def test_a_limit_that_cuts_statements_leaves_consistency_out(make_job: Callable[..., Job]) -> None:
    job = make_job(limit=20, controls=(), train=STEPS)
    whole = Counter(example.group for example in make_job().report)
    cut = {name for name, count in Counter(example.group for example in job.report).items() if count < whole[name]}
    record = execute(job, RunFolder.create(job.spec, job.fingerprint), Silent())
    assert cut and [result.metric for result in record.results] == ["accuracy"]
    (note,) = [note for note in record.task.notes if "absent" in note]
    assert note.startswith(f"consistency is absent: {len(cut)} of its ")


def test_the_blind_control_answers_each_text_with_one_label(job: Job, folder: RunFolder) -> None:
    record = execute(job, folder, Silent())
    rows = read_samples(folder.samples)
    blind = rows[rows["control"] == "blind"]
    assert blind.groupby("text")["prediction"].nunique().eq(1).all()
    assert record.controls["blind"][0].value == 50.0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("the disk is gone: mount it"), "the disk is gone: mount it"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failed_run_records_the_reason(
    error: Exception, message: str, job: Job, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Trial) -> None:
        raise error

    monkeypatch.setattr(Trial, "run", broken)
    monkeypatch.setattr(user_code, "_is_of_user", lambda file: False)
    with pytest.raises(type(error)):
        execute(job, folder, Silent())
    record = read_run(folder.path)
    assert (record.status, record.error, record.results) == ("failed", message, ())
    assert not folder.samples.exists()


def test_a_failed_run_can_be_run_again(job: Job, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        change_predictions(patch, lambda predictions: predictions[:-1])
        with pytest.raises(CoverageError):
            execute(job, folder, Silent())
    record = execute(job, folder, Silent())
    assert (record.status, record.error) == ("done", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda predictions: predictions[1:], "1 missing"),
        (lambda predictions: [*predictions, predictions[0]], "1 duplicate"),
        (lambda predictions: [*predictions, Prediction("other", "True")], "1 extra"),
    ],
)
def test_every_example_is_answered_once_or_there_is_no_score(
    change: Callable[[list[Prediction]], list[Prediction]],
    message: str,
    job: Job,
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_predictions(monkeypatch, change)
    with pytest.raises(CoverageError, match=message):
        execute(job, folder, Silent())
    record = read_run(folder.path)
    assert (record.status, record.results) == ("failed", ())
    assert message in record.error
    assert not folder.samples.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_recorded_and_the_signals_are_as_before(
    number: signal.Signals, job: Job, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    append = RunFolder.append_metrics
    monkeypatch.setattr(
        RunFolder, "append_metrics", lambda self, values: (append(self, values), os.kill(os.getpid(), number))[0]
    )
    with pytest.raises(Interrupted):
        execute(job, folder, Silent())
    assert read_run(folder.path).status == "interrupted"
    assert (folder.last / "state.json").is_file()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_config_repeats_the_run(job: Job, folder: RunFolder, tmp_path: Path) -> None:
    from vlbench.cli.run import make_specs

    execute(job, folder, Silent())
    assert make_specs({}, folder.config, []) == [job.spec.to_run_spec()]


def test_a_run_rejected_before_it_began_leaves_no_record(
    vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    command = ["run", "--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--steps", 1, "--quiet",
               "--controls", "none", "--output-path", tmp_path / "runs"]  # fmt: skip
    done = vlbench(*command, "--device", "cuda")
    assert done.code == 2 and "--device cuda is not there" in done.err
    assert find_runs(tmp_path / "runs") == []
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.name != ".lock"] == []
    assert vlbench(*command).code == 0
    assert vlbench(*command, "--device", "cuda").code == 0, (
        "the finished run is found: the device is not part of its name"
    )


def test_a_run_that_failed_at_work_keeps_its_record(
    job: Job, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(self: Trial) -> None:
        self.folder.metrics.write_text("{}\n")
        raise VlbenchError("the loss is not a number")

    monkeypatch.setattr(Trial, "run", diverge)
    with pytest.raises(VlbenchError):
        execute(job, folder, Silent())
    assert read_run(folder.path).status == "failed"


def test_a_mean_rank_as_main_metric_keeps_the_lowest(make_job: Callable[..., Job]) -> None:
    recipe = {"steps": 12, "batch_size": 8, "evaluations": 6, "lr": 0.3, "warmup": 0.0}
    job = make_job(task="flickr30k_retrieval", train=recipe, controls=())
    card = job.task.card.model_copy(update={"main_metric": "tr_meanr"})
    job = replace(job, task=replace(job.task, card=card))
    folder = RunFolder.create(job.spec, job.fingerprint)
    record = execute(job, folder, Silent())
    lines = [json.loads(line) for line in folder.metrics.read_text("utf8").splitlines()]
    ranks = {line["step"]: line["selection"] for line in lines if line.get("weights") == "plain"}
    averaged = [line["selection"] for line in lines if line.get("weights") == "ema"]
    assert len(ranks) == 6 and len(set(ranks.values())) > 2 and min([*ranks.values(), *averaged]) > 1
    kept = ranks[record.train.best_step] if record.train.weights == "plain" else min(averaged)
    assert kept == min([*ranks.values(), *averaged]) < max(ranks.values())
    assert record.task.main_metric == "tr_meanr"


def test_random_sizes_change_what_is_trained_and_the_fingerprint(make_job: Callable[..., Job]) -> None:
    def losses(**changed: object) -> tuple[str, list[float]]:
        train = {"steps": 2, "batch_size": 4, "batches": "shuffled", "ema": None, "evaluations": 1, **changed}
        job = make_job(model="soho", task="vqa2", checkpoint="none", train=train, controls=(), limit=8, select_limit=4)
        folder = RunFolder.create(job.spec, job.fingerprint)
        execute(job, folder, Silent())
        lines = [json.loads(line) for line in folder.metrics.read_text("utf8").splitlines()]
        return job.fingerprint, [line["loss"] for line in lines if "loss" in line]

    plain, resized = losses(), losses(short_side=[24, 40], long_side=64)
    assert plain[0] != resized[0] and plain[1] != resized[1]
    assert losses(short_side=[24, 40], long_side=64)[1] == resized[1]
