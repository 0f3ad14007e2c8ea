"""The workflows, the action and the example of docs/ci.md: by their schemas, and by what a schema cannot see."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from vlbench.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[1]
ACTION = REPOSITORY / "action.yml"
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
FILES = [*WORKFLOWS, ACTION]
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
VARIABLE = re.compile(r"\$\{?([A-Z][A-Z_]+)")
RUNNERS = {"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ACTION_PATH"}
"""Variables that GitHub sets."""

by_name = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
by_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


@cache
def read(path: Path) -> dict[str, Any]:
    """The file with every scalar as text; YAML 1.1 would take the key `on` for true."""
    values: dict[str, Any] = yaml.load(path.read_text(encoding="utf8"), Loader=yaml.BaseLoader)
    return values


def steps(path: Path) -> list[dict[str, Any]]:
    values = read(path)
    jobs = [values["runs"]] if "runs" in values else values["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def scripts(path: Path) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


def commands(script: str) -> Iterator[list[str]]:
    """The words of each line, lines that end in a backslash put together."""
    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars=";|&<>(){}\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in lexer:
        if set(word) <= set(";|&(){}\n"):
            yield words
            words = []
        elif words or word not in ("do", "then", "else"):
            words.append(word)
    yield words


def check(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def schemas(path: Path) -> list[str]:
    if path == ACTION:
        return ["vendor.github-actions"]
    return ["vendor.github-workflows", "custom.github-workflows-require-timeout"]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The workflow of docs/ci.md."""
    text = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    path = tmp_path / "example.yml"
    path.write_text(block, encoding="utf8")
    return path


@by_name
def test_it_follows_the_schema(path: Path) -> None:
    for schema in schemas(path):
        done = check(schema, path)
        assert done.returncode == 0, done.stdout


@by_name
def test_the_schema_sees_a_wrong_key(path: Path, tmp_path: Path) -> None:
    wrong = tmp_path / path.name
    wrong.write_text(path.read_text(encoding="utf8").replace("steps:", "stages:"), encoding="utf8")
    assert check(schemas(path)[0], wrong).returncode == 1


def test_the_example_follows_schema_and_action(example: Path) -> None:
    for schema in schemas(example):
        done = check(schema, example)
        assert done.returncode == 0, done.stdout
    (step,) = [step for step in steps(example) if "vlbench@" in step.get("uses", "")]
    assert step["with"].keys() <= read(ACTION)["inputs"].keys()


@by_name
def test_no_expression_enters_a_script(path: Path) -> None:
    assert [script for script in scripts(path) if EXPRESSION.search(script)] == []


@by_name
def test_scripts_stop_at_the_first_fault_and_pass_shellcheck(path: Path) -> None:
    program = Path(sys.executable).with_name("shellcheck")
    for script in scripts(path):
        assert "\n" not in script.strip() or script.startswith("set -euo pipefail\n")
        command = [program, "--shell=bash", "--enable=all", "--exclude=SC2154,SC2250", "-"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@by_name
def test_variables_of_scripts_are_given_to_them(path: Path) -> None:
    for step in steps(path):
        named = set(VARIABLE.findall(step.get("run", "")))
        assert named - RUNNERS == step.get("env", {}).keys(), step


@by_name
def test_expressions_name_what_there_is(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    inside = [*EXPRESSION.findall(text), *re.findall(r"if: ([^$\n]+)", text)]
    inputs = {name for part in inside for name in re.findall(r"inputs\.([\w-]+)", part)}
    assert inputs == set(read(path).get("inputs", {}))
    ids = {name for part in inside for name in re.findall(r"steps\.([\w-]+)\.outputs", part)}
    assert ids <= {step["id"] for step in steps(path) if "id" in step}


def test_outputs_are_written_by_their_steps() -> None:
    for output in read(ACTION)["outputs"].values():
        (found,) = re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", output["value"])
        (script,) = [step["run"] for step in steps(ACTION) if step.get("id") == found[0]]
        assert re.search(rf"printf '{found[1]}=%s\\n' .* >> \"\$GITHUB_OUTPUT\"", script)


@by_workflow
def test_jobs_may_do_little_and_not_for_long(path: Path) -> None:
    values = read(path)
    assert values["permissions"] == {"contents": "read"}
    for job in values["jobs"].values():
        assert "permissions" not in job
        assert 0 < int(job["timeout-minutes"]) <= 240
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


@by_name
def test_actions_are_pinned_by_version(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"\./|actions/[a-z-]+@v\d+", name)] == []


@by_workflow
def test_targets_of_make_exist(path: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\b([A-Z]+) \?=", makefile)) | set(re.findall(r"\(if \$\(([A-Z]+)\)", makefile))
    made = [words[1:] for script in scripts(path) for words in commands(script) if words[:1] == ["make"]]
    assert made
    for target, *settings in made:
        assert target in targets, f"make {target}"
        assert {setting.partition("=")[0] for setting in settings} <= variables


def test_every_job_of_the_house_is_run_by_a_workflow() -> None:
    made = {words[1] for path in WORKFLOWS for script in scripts(path) for words in commands(script) if "make" in words}
    assert made >= {"lint", "test", "test-slow", "gate-frozen", "gate-trained", "check-tables"}
    pythons = read(REPOSITORY / ".github" / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    classifiers = (REPOSITORY / "pyproject.toml").read_text(encoding="utf8")
    assert pythons == re.findall(r"Python :: (3\.\d+)", classifiers)


def test_flags_of_vlbench_exist() -> None:
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf8").replace("$(BIN)/", "")
    recipes = "".join(re.findall(r"^\t@?(.*\n)", makefile, re.MULTILINE)).replace("$", "")
    called = [words for text in (*scripts(ACTION), recipes) for words in commands(text) if words[:1] == ["vlbench"]]
    assert {verb for _, verb, *_ in called} >= {"run", "leaderboard", "gate", "report"}
    for _, verb, *words in called:
        known = {flag for parameter in verbs[verb].params for flag in (*parameter.opts, *parameter.secondary_opts)}
        flags = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
        assert flags <= known, f"vlbench {verb}: {flags - known}"
