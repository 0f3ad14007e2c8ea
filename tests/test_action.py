"""The scripts of action.yml, run by bash as a runner would: on a model in a file, and with hostile inputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((REPOSITORY / "action.yml").read_text(encoding="utf8"))
MODEL = """
import torch

from vlbench.models.fake.backbone import Fake


class Mine(Fake):
    def likelihood(self, prompts, candidates):
        return torch.tensor([[float({answer!r} in one.lower()) for one in candidates]] * len(prompts["hash"]))
"""
HOSTILE = "$(touch caught) `touch caught` ; touch caught # ' \" \\ * ~ ${HOME}"
RECORD = """#!/usr/bin/env bash
printf '%s\\0' "${0##*/}" "$@" $'\\n' >> "$CALLS"
"""

Command = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """What a step left: its exit code, what it printed, and what it added to the runner's two files."""

    code: int
    said: str
    summary: str
    outputs: dict[str, str]


def take(name: str, inputs: Mapping[str, str], here: Path, **environment: str) -> Step:
    """Run the script of a step, by its id, in a folder, with the inputs given and the others as they are by default."""
    (step,) = [one for one in ACTION["runs"]["steps"] if one.get("id") == name]
    given = {key: value.get("default", "") for key, value in ACTION["inputs"].items()} | dict(inputs)
    runner = here.parent / f"runner-{here.name}-{name}"
    runner.mkdir()
    files = {variable: runner / variable for variable in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    for path in files.values():
        path.touch()
    script = runner / "script.sh"
    script.write_text(step["run"], encoding="utf8")
    variables = {key: _filled(value, given) for key, value in step["env"].items()}
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", script], cwd=here, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": search, "GITHUB_ACTION_PATH": str(REPOSITORY), **variables, **environment,
             **{key: str(path) for key, path in files.items()}},
    )  # fmt: skip
    summary, output = (path.read_text(encoding="utf8") for path in files.values())
    return Step(done.returncode, done.stdout, summary, dict(line.split("=", 1) for line in output.splitlines()))


def _filled(text: str, inputs: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)


def write_model(here: Path, answer: str) -> None:
    """`mine.py:Mine`, which answers the same to everything."""
    (here / "mine.py").write_text(MODEL.format(answer=answer), encoding="utf8")
    card = (REPOSITORY / "vlbench" / "models" / "fake" / "model.yaml").read_text(encoding="utf8")
    (here / "model.yaml").write_text(card.replace("name: fake", "name: mine"), encoding="utf8")


@pytest.fixture
def score(tiny_world: Path, tmp_path: Path, vlbench: Command) -> Callable[..., Path]:
    """A folder in which the model was run, in this process, by what the action would have run."""

    def run(name: str, answer: str, *flags: str) -> Path:
        here = tmp_path / name
        here.mkdir()
        write_model(here, answer)
        command = ["run", "--model", here / "mine.py:Mine", "--task", "nlvr2", "--mode", "zero-shot", "--quiet"]
        done = vlbench(*command, "--data-root", tiny_world, "--output-path", here / "vlbench-results" / "runs", *flags)
        assert done.code == 0, done.err
        return here

    return run


@pytest.fixture
def baseline(score: Callable[..., Path], vlbench: Command, tmp_path: Path) -> Path:
    """What the model answered when it was good."""
    path = tmp_path / "baseline.json"
    runs = score("good", "true") / "vlbench-results" / "runs"
    assert vlbench("gate", runs, "--baseline", path, "--update-baseline", "--reason", "first").code == 0
    return path


def test_run_table_and_gate_one_after_the_other(tiny_world: Path, baseline: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    write_model(here, "true")
    arguments = f"--mode zero-shot --quiet\n--data-root '{tiny_world}'"
    inputs = {"model": "mine.py:Mine", "tasks": "nlvr2", "arguments": arguments, "baseline": str(baseline)}
    ran = take("run", inputs, here)
    assert ran.code == 0, ran.said
    table = take("table", inputs, here)
    assert (table.code, table.outputs) == (0, {"path": "vlbench-results/leaderboard.md"})
    assert (here / table.outputs["path"]).read_text(encoding="utf8") in table.summary
    assert re.search(r"\| mine-tiny +\| +\**50\.00", table.summary), "half of NLVR2's statements are true"
    assert "<html" in (here / "vlbench-results" / "leaderboard.html").read_text(encoding="utf8")
    gate = take("gate", inputs, here)
    assert (gate.code, gate.outputs) == (0, {"verdict": "pass"}), gate.said
    assert gate.summary.startswith("1 pass")
    assert 'failures="0"' in (here / "vlbench-results" / "gate.xml").read_text(encoding="utf8")


@pytest.mark.parametrize(
    ("answer", "flags", "code", "verdict"),
    [("false", (), 3, "regression"), ("true", ("--limit", "20"), 4, "inconclusive")],
)
def test_the_gate_fails_the_step(
    answer: str, flags: tuple[str, ...], code: int, verdict: str, score: Callable[..., Path], baseline: Path
) -> None:
    gate = take("gate", {"baseline": str(baseline)}, score("now", answer, *flags))
    assert (gate.code, gate.outputs) == (code, {"verdict": verdict}), gate.said
    assert "mine" in gate.summary


def test_other_faults_have_no_verdict(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    gate = take("gate", {"baseline": "nowhere.json"}, here)
    assert gate.code not in (0, 3, 4)
    assert (gate.outputs, gate.summary) == ({}, "")


@pytest.fixture
def calls(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Take a step with programs that only note how they were called; their words, call by call."""
    programs, noted = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    for name in ("vlbench", "python"):
        (programs / name).write_text(RECORD, encoding="utf8")
        (programs / name).chmod(0o755)

    def take_step(name: str, **inputs: str) -> list[list[str]]:
        here = tmp_path / "here"
        here.mkdir()
        search = os.pathsep.join([str(programs), os.environ["PATH"]])
        given = {key.replace("_", "-"): value for key, value in inputs.items()}
        step = take(name, given, here, PATH=search, CALLS=str(noted))
        assert (step.code, list(here.iterdir())) == (0, []), step.said
        return [call.split("\0")[:-1] for call in noted.read_text(encoding="utf8").split("\n\0")[:-1]]

    return take_step


def test_hostile_inputs_of_a_run_are_values(calls: Callable[..., list[list[str]]]) -> None:
    (call,) = calls("run", model=HOSTILE, tasks=HOSTILE, seeds="$(touch caught)", output_path=HOSTILE)
    expected = [f"--model={HOSTILE}", f"--task={HOSTILE}", "--seeds=$(touch caught)", f"--output-path={HOSTILE}/runs"]
    assert call == ["vlbench", "run", *expected]


def test_hostile_arguments_are_words(calls: Callable[..., list[list[str]]]) -> None:
    (call,) = calls("run", arguments="--limit 20 'two words'\n  $(touch caught) ; touch `touch caught` \"it's\" * ~")
    words = ["--limit", "20", "two words", "$(touch", "caught)", ";", "touch", "`touch", "caught`", "it's", "*", "~"]
    assert call[6:] == words


def test_hostile_inputs_of_a_gate_are_values(calls: Callable[..., list[list[str]]]) -> None:
    (call,) = calls("gate", baseline=HOSTILE, max_drop=HOSTILE, output_path=HOSTILE)
    assert call[:4] == ["vlbench", "gate", f"--baseline={HOSTILE}", f"--max-drop={HOSTILE}"]
    assert call[5:] == [f"--junit={HOSTILE}/gate.xml", "--", f"{HOSTILE}/runs"]


@pytest.mark.parametrize("requirement", [HOSTILE, "--index-url=https://example.org/simple evil"])
def test_a_hostile_requirement_is_one_requirement(requirement: str, calls: Callable[..., list[list[str]]]) -> None:
    assert calls("install", requirement=requirement) == [["python", "-m", "pip", "install", "--", requirement]]


def test_without_a_requirement_the_action_installs_what_it_comes_with(calls: Callable[..., list[list[str]]]) -> None:
    (call,) = calls("install")
    assert call == ["python", "-m", "pip", "install", "-c", str(REPOSITORY / "constraints.txt"), str(REPOSITORY)]


def test_quotes_left_open_are_a_fault_not_a_run(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    step = take("run", {"model": "fake", "tasks": "nlvr2", "arguments": "--limit '20"}, here)
    assert step.code != 0
    assert list(here.iterdir()) == []
