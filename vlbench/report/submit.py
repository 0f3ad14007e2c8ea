"""Submission files for official evaluation servers, for splits whose answers are not public."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench import catalog
from vlbench.core.errors import CoverageError, DataError, VlbenchError, first_five, unknown
from vlbench.core.modes import MODES
from vlbench.core.record import RunRecord
from vlbench.data.cache.folder import atomic_write
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.samples import read_samples

Answers = Sequence[tuple[str, str]]
"""Id and answer of every example, in the order of the run."""


@dataclass(frozen=True)
class Server:
    """An official evaluation server. task, splits: of the runs that it takes. file: name of the submission file. write:
    formats the answers. where: to submit the file. hidden: splits whose answers only the server has, all scored from
    one file.
    """

    task: str
    splits: tuple[str, ...]
    file: str
    write: Callable[[Answers], str]
    where: str
    hidden: tuple[str, ...] = ()


def _vqa(answers: Answers) -> str:
    """Format of the VQA server: ids are numbers."""
    numbers = [name for name, _ in answers if not name.isdecimal()]
    if numbers:
        raise DataError(f"question ids {first_five(numbers)} are not numbers, which the server expects: check the data")
    return json.dumps([{"question_id": int(name), "answer": answer} for name, answer in answers], ensure_ascii=False)


def _gqa(answers: Answers) -> str:
    """Format of the GQA server: ids are strings, since some begin with zeros."""
    return json.dumps([{"questionId": name, "prediction": answer} for name, answer in answers], ensure_ascii=False)


def _nlvr2(answers: Answers) -> str:
    """Format of NLVR2's own scorer: `identifier,prediction` per line, without a header."""
    wrong = sorted({answer for _, answer in answers if answer not in ("True", "False")})
    if wrong:
        raise DataError(f"answers {first_five(wrong)} are neither True nor False, which the scorer expects")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(answers)
    return text.getvalue()


SERVERS: Mapping[str, Server] = {
    "evalai-vqa2": Server(
        "vqa2", ("test",), "vqa2.json", _vqa, hidden=("test-dev", "test"),
        where="https://eval.ai/web/challenges/challenge-page/830 (phase test-dev or test)",
    ),
    "evalai-gqa": Server(
        "gqa", ("submission",), "gqa.json", _gqa, "https://eval.ai/web/challenges/challenge-page/225",
        hidden=("test", "test_all", "challenge", "challenge_all", "submission"),
    ),
    "nlvr2": Server(
        "nlvr2", ("dev", "test-p", "test-u"), "nlvr2.csv", _nlvr2,
        "the scorer in https://github.com/lil-lab/nlvr (nlvr2/eval/metrics.py); its leaderboard is closed",
    ),
}  # fmt: skip


def server_of(task: str, split: str) -> tuple[str, Server] | None:
    """The name and the server that alone can score a split; None if its answers are public."""
    known = ((to, server) for to, server in SERVERS.items() if server.task == task and split in server.hidden)
    return next(known, None)


def submission(folder: Path, to: str, output: Path | None = None) -> tuple[Path, str]:
    """Write the submission file of a server; returns its path and where to submit it.

    to: a name of SERVERS. output: the file; None: in the run's folder.
    Raises VlbenchError: an unknown server, or a run of another task, split or world.
    Raises CoverageError: examples of the split are missing, or come twice.
    Raises DataError: an id or an answer is of the wrong type.
    """
    if to not in SERVERS:
        raise unknown("server", to, SERVERS)
    server, run = SERVERS[to], RunFolder.open(folder)
    record = read_run(run.path)
    _check(run, record, to, server)
    rows = read_samples(run.samples, controls=False)
    answers = list(zip(rows["example_id"], rows["prediction"], strict=True))
    _check_complete(record, answers, [str(status) for status in rows["status"]])
    path = output or run.path / f"submission-{server.file}"
    atomic_write(path, server.write(answers))
    return path, server.where


def _check(run: RunFolder, record: RunRecord, to: str, server: Server) -> None:
    """Check that the run is finished and is of the server's task, split and real data."""
    task = record.task
    takes, given = f"{to} takes {server.task} {' or '.join(server.splits)}", f"this run is of {task.name} {task.split}"
    remedy = _again(run, record, server)
    if task.name != server.task:
        raise VlbenchError(f"{takes}, and {given}: give a run of {server.task}")
    if task.split not in server.splits:
        scored = f", which it scores {task.split} from too" if task.split in server.hidden else ""
        raise VlbenchError(f"{takes}{scored}, and {given}: {remedy}")
    if task.source != "real":
        raise VlbenchError(f"{to} takes answers about the real data, and this run is of the built-in world: {remedy}")
    if record.status != "done":
        raise VlbenchError(f"this run is {record.status}, not done: run the same command again to finish it")


def _again(run: RunFolder, record: RunRecord, server: Server) -> str:
    """The command that makes a run for the server with this run's weights, trained or given."""
    real = record.task.source == "real"
    split = record.task.split if record.task.split in server.splits else server.splits[0]
    mode, checkpoint = record.spec.mode, record.spec.checkpoint if real else None
    if real and run.best.is_dir():
        mode, checkpoint = "eval", str(run.path)
    weights: tuple[str, ...] = () if MODES[mode].trains_backbone else ("--mode", mode)
    weights += ("--checkpoint", checkpoint) if checkpoint else ()
    model = ("--model", record.spec.model, "--size", record.model.size)
    command = shlex.join(("vlbench", "run", "--task", server.task, *model, *weights, "--split", split))
    return f"answer that with `{command} --data-root DIR`"


def _check_complete(record: RunRecord, answers: Answers, statuses: Sequence[str]) -> None:
    """Check that every example of the official split is answered once: a server rejects anything else."""
    task = record.task
    official = catalog.task_card(task.name).splits[task.split].count
    if official not in (None, task.n_total):
        raise CoverageError(
            f"the data held {task.n_total:,} examples of {task.name} {task.split} where the official split has "
            f"{official:,}: run it on all of them"
        )
    ids = [name for name, _ in answers]
    if len(ids) != task.n_total or len(set(ids)) != len(ids):
        raise CoverageError(
            f"this run answered {len(set(ids)):,} of the {task.n_total:,} examples of {task.name} {task.split}: "
            f"run it without --limit"
        )
    failed = [name for name, status in zip(ids, statuses, strict=True) if status in ("error", "skipped")]
    if failed:
        raise CoverageError(f"{len(failed):,} examples have no answer ({first_five(failed)}): run it again")
