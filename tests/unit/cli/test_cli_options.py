"""Flags generated from a spec: help, defaults, bounds, completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vlbench.cli.options import GroupedCommand, with_options_of
from vlbench.cli.spec import read_sources
from vlbench.core.errors import VlbenchError
from vlbench.core.options import declared_options, option
from vlbench.core.profile import ProfileSpec
from vlbench.core.spec import PretrainSpec, RunSpec
from vlbench.core.validate import parse

SPECS = {"run": RunSpec, "pretrain": PretrainSpec, "profile": ProfileSpec}
by_verb = pytest.mark.parametrize("verb", SPECS)
VLBENCH = Path(sys.executable).with_name("vlbench")


class Coloured(RunSpec):
    """A spec with one option more: this line is all that an option takes."""

    colour: str = option("red", "Colour of the curtains.", "Data")


def flags_of(spec: type[RunSpec], *arguments: str) -> tuple[str, Mapping[str, object]]:
    """What a command with the spec's flags prints, and the values that it was given."""
    app, seen = typer.Typer(rich_markup_mode=None), dict[str, object]()

    @app.command(cls=GroupedCommand)
    @with_options_of(spec)
    def verb(given: Mapping[str, object], loud: bool = False) -> None:
        """A verb."""
        seen.update(given)

    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output, seen


def test_an_option_is_one_declaration(tmp_path: Path) -> None:
    text, _ = flags_of(Coloured, "--help")
    assert re.search(r"Data:\n(  .*\n)*  --colour NAME +Colour of the curtains. \[default:\s+red\]", text)
    assert flags_of(Coloured, "--colour", "blue")[1] == {"colour": "blue"}
    (tmp_path / "run.yaml").write_text("task: nlvr2\nmodel: cvlp\ncolour: green\n")
    values: dict[str, object] = {}
    for _, source in read_sources(Coloured, {}, tmp_path / "run.yaml", []):
        values |= source
    assert parse(Coloured, values, "run").colour == "green"
    with pytest.raises(VlbenchError, match="unknown key 'color', did you mean 'colour'"):
        parse(Coloured, {**values, "color": "green"}, "run")
    schema = Coloured.model_json_schema()["properties"]["colour"]
    assert schema == {"default": "red", "description": "Colour of the curtains.", "title": "Colour", "type": "string"}


def test_flags_have_the_types_of_their_fields() -> None:
    _, given = flags_of(RunSpec, "--limit", "0.5", "--steps", "3", "--data-root", "x", "--no-compile", "--resume",
        "--batch-size", "auto", "--log-with", "a,b")  # fmt: skip
    assert given == {
        "limit": 0.5, "steps": 3, "data_root": Path("x"), "compile": False, "resume": True, "batch_size": "auto",
        "log_with": "a,b",
    }  # fmt: skip


@by_verb
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_groups_and_every_default(verb: str, flag: str, vlbench: Callable[..., Any]) -> None:
    done = vlbench(verb, flag)
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    options = [known for known in declared_options(SPECS[verb]) if known.option.group]
    assert {f"{known.option.group}:" for known in options} <= set(re.findall(r"^[A-Z].*:$", done.out, re.MULTILINE))
    for known in options:
        start = text.index(f" --{known.name.replace('_', '-')} ")
        assert known.help in text[start:]
        ending = text[start + text[start:].index(known.help) :]
        assert re.match(r"[^\[\]]*\[(required|default: [^\[\]]+)\]", ending[len(known.help) :]), known.name


@pytest.mark.parametrize("arguments", [(), ("data",), ("list",), ("gate",), ("data", "check")])
def test_h_is_help(arguments: tuple[str, ...], vlbench: Callable[..., Any]) -> None:
    short, long = vlbench(*arguments, "-h"), vlbench(*arguments, "--help")
    assert short.code == 0 and short.out == long.out != ""


def completed(*words: str) -> list[str]:
    """The completions of a shell while the last word is typed."""
    line = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_VLBENCH_COMPLETE": "complete_bash"}
    done = subprocess.run([VLBENCH], env={**os.environ, **line}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("vlbench", "pro"), ["profile"]),
        (("vlbench", "run", "--sel"), ["--select-on", "--select-limit"]),
        (("vlbench", "run", "--mode", "z"), ["zero-shot"]),
        (("vlbench", "run", "--task", "nlvr2,vq"), ["nlvr2,vqa2"]),
        (("vlbench", "pretrain", "--model", "cv"), ["cvlp"]),
        (("vlbench", "run", "--batch-size", ""), ["auto"]),
        (("vlbench", "profile", "--scenario", "latency,thr"), ["latency,throughput"]),
    ],
)
def test_a_shell_completes(words: tuple[str, ...], found: list[str]) -> None:
    assert completed(*words) == found


def test_completion_is_shown_and_loads_nothing_heavy() -> None:
    shown = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [VLBENCH, "--show-completion", "bash"]
    done = subprocess.run(command, env={**os.environ, **shown}, capture_output=True, text=True, check=True)
    assert "_VLBENCH_COMPLETE=complete_bash" in done.stdout
    code = (
        "import sys, runpy; from vlbench.cli.main import main\ntry: main([])\nfinally:"
        " print(sorted({'torch', 'pandas', 'matplotlib', 'transformers'} & set(sys.modules)))"
    )
    line = {"COMP_WORDS": "vlbench run --task nl", "COMP_CWORD": "3", "_VLBENCH_COMPLETE": "complete_bash"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **line}, capture_output=True, text=True,
        check=False)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]" and "nlvr2" in done.stdout


HUGE = 10**22


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("run", ("--seed", HUGE), "seed is 10000000000000000000000: expected a number of at most 9,223,372,036"),
        ("run", ("--seed", -HUGE), "seed is -10000000000000000000000: expected a number of at least -9,223"),
        ("run", ("--seeds", f"1,{HUGE}"), "seed is 10000000000000000000000: expected a number of at most"),
        ("run", ("--limit", "inf"), "limit is inf: expected a finite number"),
        ("run", ("--limit", "nan"), "limit is nan: expected a finite number"),
        ("run", ("--lr", "inf"), "train.lr is inf: expected a finite number"),
        ("run", ("--lr", "1e300"), "train.lr is 1e+300: expected a number of at most 1,000,000,000, give a smaller"),
        ("run", ("--batch-size", HUGE), "train.batch_size is"),
        ("run", ("--steps", HUGE), "train.steps is 10000000000000000000000: expected a number of at most"),
        ("run", ("--epochs", HUGE), "train.epochs is"),
        ("run", ("--eval-batch-size", HUGE), "eval_batch_size is"),
        ("run", ("--workers", HUGE), "workers is"),
        ("run", ("--workers", 100_000), "workers is 100000: expected a number of at most 4,096, give a smaller one"),
        ("run", ("--threads", HUGE), "threads is"),
        ("run", ("--num-processes", HUGE), "num_processes is"),
        ("run", ("--num-fewshot", HUGE), "num_fewshot is"),
        ("run", ("--select-limit", HUGE), "select_limit is"),
        ("run", ("--rerank-k", HUGE), "rerank_k is"),
        ("run", ("--save-every", HUGE), "save_every is"),
        ("run", ("--split", ""), "split is '': expected a name, and it is empty: name one or leave it out"),
        ("run", ("--select-on", ""), "select_on is '': expected a name"),
        ("run", ("--size", ""), "size is ''"),
        ("run", ("--set", "train.warmup=.nan"), "train.warmup is nan: expected a finite number"),
        ("run", ("--set", "train.betas=[0.9, .inf]"), "train.betas.1 is inf: expected a finite number"),
        ("pretrain", ("--seed", HUGE), "seed is"),
        ("pretrain", ("--lr", "nan"), "train.lr is nan"),
        ("pretrain", ("--workers", HUGE), "workers is"),
        ("pretrain", ("--set", "options.momentum=.inf"), "momentum is inf, expected a finite number"),
        ("profile", ("--seconds", "inf"), "seconds is inf: expected a finite number"),
        ("profile", ("--max-seconds", "nan"), "max_seconds is nan"),
        ("profile", ("--precision", "inf"), "precision is inf"),
        ("profile", ("--iterations", HUGE), "iterations is"),
        ("profile", ("--words", HUGE), "words is"),
        ("profile", ("--batch-sizes", f"1,{HUGE}"), "batches.1 is"),
        ("profile", ("--threads", HUGE), "threads is"),
        ("profile", ("--seed", HUGE), "seed is"),
    ],
    ids=lambda value: " ".join(str(part)[:12] for part in value) if isinstance(value, tuple) else "",
)
def test_numbers_are_finite_and_bounded(
    verb: str, arguments: tuple[object, ...], said: str, vlbench: Callable[..., Any], tmp_path: Path
) -> None:
    names = ["--model", "fake", *(() if verb == "profile" else ("--task", "coco_retrieval"))]
    done = vlbench(verb, *names, "--output-path", tmp_path / "out", *arguments)
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err.startswith("vlbench: ") and done.err.count("\n") == 1
    assert said in done.err
    assert not (tmp_path / "out").exists()


@by_verb
def test_every_number_of_a_spec_has_bounds(verb: str) -> None:
    """Whatever field is added: a number without bounds is found here."""
    schema = json.loads(json.dumps(SPECS[verb].model_json_schema()))
    unbounded: list[str] = []

    def visit(value: object, name: str) -> None:
        if isinstance(value, dict):
            if value.get("type") in ("integer", "number") and name != "options":
                lower, upper = {"minimum", "exclusiveMinimum"} & value.keys(), {"maximum", "exclusiveMaximum"}
                if not (lower and upper & value.keys()):
                    unbounded.append(name)
            for key, inner in value.items():
                for part in inner.items() if key in ("properties", "$defs") and isinstance(inner, dict) else ():
                    visit(part[1], part[0])
                if key not in ("properties", "$defs"):
                    visit(inner, name)
        elif isinstance(value, list):
            for inner in value:
                visit(inner, name)

    visit(schema, verb)
    assert unbounded == []
