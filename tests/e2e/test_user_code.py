"""Faults of the user's own model, task or metric: exit 13, with their file and line and without vlbench's frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.models import fake

Call = Callable[..., Any]

FUSE = "def fuse(self, seen, read):\n        "
METHODS = {
    "in the forward pass": f"{FUSE}return dict()['answer']",
    "in a shape": f"{FUSE}return super().fuse(seen, read).pooled @ seen.states",
    "in what it returns": f"{FUSE}return seen.states",
    "in the shape that it returns": f"{FUSE}self.width = 7\n        return super().fuse(seen, read)",
    "by an exception that is no Exception": f"{FUSE}raise type('Boom', (BaseException,), dict())",
    "in a data worker": "def prepare_texts(self, texts):\n        return dict()['answer']",
    "by leaving": f"{FUSE}import sys\n        sys.exit(0)",
    "by leaving in a data worker": "def prepare_texts(self, texts):\n        raise SystemExit",
    "while it is built": "@classmethod\n    def from_card(cls, card, size, resources):\n        return cls(3)",
}
MODULES = {
    "syntax": "class Mine(:\n",
    "import": "import no_such_module\n",
    "name": "class Mine(Fake): pass\n",
    "leaving": "import sys\nsys.exit(0)\n",
}


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], str]:
    """Writes a model of one's own with that code; returns its name."""

    def write(code: str) -> str:
        folder = tmp_path / "mine"
        folder.mkdir()
        card = Path(fake.__file__).with_name("model.yaml").read_text(encoding="utf8")
        (folder / "model.yaml").write_text(card, encoding="utf8")
        (folder / "backbone.py").write_text(code, encoding="utf8")
        return f"{folder / 'backbone.py'}:Mine"

    return write


@pytest.fixture
def run(vlbench: Call, tiny_world: Path, tmp_path: Path) -> Call:
    """A quick run of the models that are given."""
    quick = ("--limit", 16, "--steps", 2, "--controls", "none", "--quiet", "--output-path", tmp_path / "runs")
    return lambda model, *flags: vlbench(
        "run", "--task", "nlvr2", "--model", model, "--data-root", tiny_world, *quick, *flags
    )


def check(done: Any, model: str) -> str:
    """Its last line is one sentence about the user's file, and no line is about another one."""
    *frames, sentence = done.err.splitlines()
    path = model.partition(":")[0]
    assert done.code == 13 and sentence.startswith(f"vlbench: {path}"), done.err
    assert all(path in frame for frame in frames if frame.startswith("  File"))
    assert "Traceback" not in done.err and "internal error" not in done.err
    return str(sentence.removeprefix("vlbench: "))


@pytest.mark.parametrize("fault", METHODS)
def test_a_method_of_the_model(mine: Callable[[str], str], run: Call, tmp_path: Path, fault: str) -> None:
    model = mine(f"from vlbench.models.fake.backbone import Fake\n\nclass Mine(Fake):\n    {METHODS[fault]}\n")
    done = run(model, "--workers", 2 if "worker" in fault else 0)
    sentence = check(done, model)
    assert (", line " in sentence) != ("returns" in fault)
    (record,) = (tmp_path / "runs").rglob("run.json")
    values = json.loads(record.read_text(encoding="utf8"))
    assert (values["status"], values["error"]) == ("failed", sentence)


@pytest.mark.parametrize("fault", MODULES)
def test_the_module_of_the_model(mine: Callable[[str], str], run: Call, fault: str) -> None:
    model = mine(MODULES[fault])
    check(run(model), model)


def test_the_other_runs_are_done(mine: Callable[[str], str], run: Call, tmp_path: Path) -> None:
    model = mine(f"from vlbench.models.fake.backbone import Fake\n\nclass Mine(Fake):\n    {METHODS['by leaving']}\n")
    done = run(f"fake,{model}")
    assert done.code == 8 and f"{model.partition(':')[0]}, line" in done.err
    states = {json.loads(path.read_text())["status"] for path in (tmp_path / "runs").rglob("run.json")}
    assert states == {"done", "failed"}


def test_a_metric_and_an_adapter(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    assert vlbench("new", "task", "paint", "--into", tmp_path / "tasks").code == 0
    folder = tmp_path / "tasks" / "paint"
    adapter = folder / "adapter.py"
    whole = adapter.read_text(encoding="utf8")
    flags = ("--tasks-dir", tmp_path / "tasks", "--model", "fake", "--limit", 4, "--steps", 1, "--controls", "none")
    yields_none = "def examples(files):\n    yield None\n"
    codes = {"def examples(files):\n    yield from None\n": str(adapter), f"{whole}\nTAGS[3]\n": str(adapter)}
    for code, named in {**codes, yields_none: "the adapter yields a NoneType"}.items():
        adapter.write_text(code, encoding="utf8")
        place = ("--data-root", folder / "sample", "--output-path", tmp_path / "runs", "--quiet")
        done = vlbench("run", "--task", "paint", *flags, *place)
        assert done.code == 13 and named in done.err, done.err


CHANGES = {
    "at import": ("import os\nos.chdir('/')\n", "pass"),
    "while it is built": (
        "import os\n",
        "@classmethod\n    def from_card(cls, card, size, resources):\n        os.chdir('/')\n        return cls()",
    ),
    "in the forward pass": (
        "import os\n",
        f"{FUSE}os.chdir('/')\n        return super().fuse(seen, read)",
    ),
}


@pytest.mark.parametrize("place", CHANGES)
def test_relative_paths_are_those_of_the_start(
    mine: Callable[[str], str],
    vlbench: Call,
    tiny_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """Code of a model may change the working directory: data, runs and cache stay where the user named them."""
    imports, body = CHANGES[place]
    mine(f"{imports}from vlbench.models.fake.backbone import Fake\n\nclass Mine(Fake):\n    {body}\n")
    (tmp_path / "data").symlink_to(tiny_world)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLBENCH_CACHE", "cache")
    flags = ("--limit", 16, "--steps", 2, "--controls", "none", "--quiet", "--output-path", "runs")
    done = vlbench("run", "--task", "nlvr2", "--model", "mine/backbone.py:Mine", "--data-root", "data", *flags)
    assert done.code == 0, done.err
    (record,) = (tmp_path / "runs").rglob("run.json")
    values = json.loads(record.read_text(encoding="utf8"))
    assert values["status"] == "done" and values["spec"]["output_path"] == "runs"
    assert Path.cwd() == tmp_path and done.out.splitlines()[-1] == str(record.parent.relative_to(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} <= {"mine", "data", "runs", "cache"}


def test_success_is_a_record_that_is_done(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlbench.engine import evaluate

    whole = evaluate.run

    def unfinished(*arguments: Any) -> Any:
        record, folder = whole(*arguments)
        return record.model_copy(update={"status": "started"}), folder

    monkeypatch.setattr(evaluate, "run", unfinished)
    done = run("fake")
    assert done.code == 1 and "its record says 'started'" in done.err


def test_modules_beside_a_model_in_processes_with_workers(
    mine: Callable[[str], str], run: Call, tmp_path: Path
) -> None:
    code = "import helper\nfrom vlbench.models.fake.backbone import Fake\n\nclass Mine(Fake):\n    "
    model = mine(f"{code}def prepare_texts(self, texts):\n        return helper.act(super().prepare_texts(texts))\n")
    helper = tmp_path / "mine" / "helper.py"
    helper.write_text("def act(prepared):\n    return prepared\n", encoding="utf8")
    flags = ("--num-processes", 2, "--workers", 1)
    assert run(model, *flags).code == 0
    helper.write_text("def act(prepared):\n    return {}['answer']\n", encoding="utf8")
    done = run(model, *flags)
    assert done.code == 13 and f"{helper}, line 2, in act" in done.err
