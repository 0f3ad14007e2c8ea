"""Names in one flag; values from flags, YAML and `--set`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlbench import catalog
from vlbench.cli import pretrain, run
from vlbench.cli.run import make_specs
from vlbench.cli.spec import split_models
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import PretrainSpec, RunSpec
from vlbench.report.published import results as published


def test_a_comma_in_a_path_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "backbone.py").touch()
    for model in (f"hf:{tmp_path}/a,b", f"{tmp_path}/a,b/backbone.py:Mine"):
        assert split_models(model) == [model]
    assert split_models(f"hf:{tmp_path},vilt") == [f"hf:{tmp_path}", "vilt"]
    assert split_models("cvlp, vilt") == ["cvlp", "vilt"]


@pytest.mark.parametrize("text", ["hf:absent,", "cvlp,cvlp"])
def test_names_that_are_empty_or_twice(text: str) -> None:
    with pytest.raises(VlbenchError, match="--model"):
        split_models(text)


def test_a_key_given_twice_is_rejected_wherever_yaml_is_read(vlbench: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("task: nlvr2\nmodel: fake\ntrain:\n  steps: 1\n  lr: 1.0\n  steps: 2\n")
    done = vlbench("run", "--config", config)
    assert done.code == 2
    assert f"--config {config} gives the key 'steps' twice, in lines 4 and 6: leave one of them out" in done.err
    task = shutil.copytree(catalog.task_folders()["nlvr2"], tmp_path / "tasks" / "mine")
    lines = (task / "task.yaml").read_text(encoding="utf8").splitlines()
    place = next(row for row, line in enumerate(lines, start=1) if line.startswith("labels:"))
    (task / "task.yaml").write_text("\n".join([*lines, "labels: ['True', 'False']"]), encoding="utf8")
    done = vlbench("run", "--task", "mine", "--tasks-dir", tmp_path / "tasks", "--model", "fake")
    assert done.code == 2
    assert f"{task / 'task.yaml'} gives the key 'labels' twice, in lines {place} and {len(lines) + 1}" in done.err
    shutil.copy(catalog.model_folders()["fake"] / "model.yaml", tmp_path)
    (tmp_path / "backbone.py").touch()
    with (tmp_path / "model.yaml").open("a", encoding="utf8") as card:
        card.write("\nvisual: regions\n")
    done = vlbench("run", "--task", "nlvr2", "--model", f"{tmp_path}/backbone.py:Mine")
    assert done.code == 2 and f"{tmp_path / 'model.yaml'} gives the key 'visual' twice" in done.err
    figures = tmp_path / "mine.yaml"
    figures.write_text("model: Mine\npaper: ''\nrows:\n  - variant: a\n    variant: b\n")
    with pytest.raises(VlbenchError, match=r"mine\.yaml gives the key 'variant' twice, in lines 4 and 5"):
        published._yaml(figures)


BASE = {"task": "nlvr2", "model": "cvlp"}
SAME = [
    ("steps", 5, ["--steps", 5]),
    ("lr", 0.01, ["--lr", 0.01]),
    ("batch_size", 8, ["--batch-size", 8]),
    ("batch_size", "auto", ["--batch-size", "auto"]),
    ("epochs", 2, ["--epochs", 2]),
    ("seeds", [0, 1], ["--seeds", "0,1"]),
    ("controls", "none", ["--controls", "none"]),
    ("controls", ["blind"], ["--controls", "blind"]),
    ("log_with", "tensorboard", ["--log-with", "tensorboard"]),
    ("log_with", ["tensorboard", "wandb"], ["--log-with", "tensorboard,wandb"]),
    ("task", ["nlvr2", "gqa"], ["--task", "nlvr2,gqa"]),
    ("model", ["cvlp", "vilt"], ["--model", "cvlp,vilt"]),
    ("train_split", ["train", "dev"], ["--train-split", "train,dev"]),
    ("data-root", "~/x", ["--data-root", "~/x"]),
    ("compile", True, ["--compile"]),
    ("resume", False, ["--no-resume"]),
    ("limit", 0.5, ["--limit", 0.5]),
]


def asked(monkeypatch: pytest.MonkeyPatch, vlbench: Callable[..., Any], *arguments: object) -> list[RunSpec]:
    """The runs that a command line asks for."""
    asked: list[RunSpec] = []
    monkeypatch.setattr(run, "_runnable", lambda specs: asked.extend(specs) or specs)
    monkeypatch.setattr(run, "_print_plans", lambda specs, quiet: None)
    done = vlbench("run", "--dry-run", *arguments)
    assert done.code == 0, done.err
    return asked


@pytest.mark.parametrize(("name", "value", "flags"), SAME, ids=lambda value: str(value))
def test_flags_yaml_and_set_are_equivalent(
    name: str, value: object, flags: list[object], vlbench: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    base = [word for key, text in BASE.items() if key != name for word in (f"--{key}", text)]
    by_flag = asked(monkeypatch, vlbench, *base, *flags)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({name: value}))
    assert asked(monkeypatch, vlbench, *base, "--config", tmp_path / "run.yaml") == by_flag
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({name.replace("_", "-"): flags[-1] if flags[1:] else value}))
    assert asked(monkeypatch, vlbench, *base, "--config", tmp_path / "run.yaml") == by_flag
    assert asked(monkeypatch, vlbench, *base, "--set", f"{name}={json.dumps(value)}") == by_flag
    assert by_flag != [RunSpec(**BASE)]  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"train": {"steps": 5, "batch-size": 8}}, {"steps": 5, "train": {"batch_size": 8}}])
def test_recipe_keys_are_flat_or_nested(values: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE | values))
    (spec,) = make_specs({}, tmp_path / "run.yaml")
    assert spec.train == Recipe(steps=5, batch_size=8)


def test_flags_win_over_yaml_and_set_over_flags(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE | {"steps": 5, "lr": 0.1, "seeds": [4, 5], "limit": 9}))
    (spec,) = make_specs({"steps": 6, "limit": 8, "seed": 1}, tmp_path / "run.yaml", ["train.steps=7"])
    assert (spec.train.steps, spec.train.lr, spec.limit, spec.seed) == (7, 0.1, 8, 1)
    assert [spec.seed for spec in make_specs({"seeds": "2,3"}, tmp_path / "run.yaml")] == [2, 3]


@pytest.mark.parametrize(
    ("values", "flags", "settings", "said"),
    [
        ({"seed": 1, "seeds": [0, 1]}, {}, [], "seed 1 and seeds [0, 1] are the same setting: give --seed or --seeds"),
        ({}, {"seed": 1}, ["seeds=[0, 1]"], "seed 1 and seeds [0, 1] are the same setting"),
        ({}, {"seeds": "0,1"}, ["seed=1"], "seed 1 and seeds '0,1' are the same setting"),
        ({"steps": 1, "train": {"steps": 2}}, {}, [], "run.yaml: steps and train.steps are the same setting: give one"),
        ({"train": 5, "steps": 1}, {}, [], "train is 5: expected keys with values"),
        ({"seeds": ["a"]}, {}, [], "--seeds ['a'] are no whole numbers"),
        ({"seeds": [True]}, {}, [], "--seeds [True] are no whole numbers"),
        ({"seeds": []}, {}, [], "--seeds [] are no whole numbers"),
        ({"task": ["nlvr2", "nlvr2"]}, {}, [], "--task names nlvr2 more than once"),
        ({"task": [1]}, {}, [], "task is [1]: expected a name, or a list of names"),
        ({"model": {"a": 1}}, {}, [], "model is {'a': 1}: expected a name, or a list of names"),
        ({"controls": ""}, {}, [], "controls is '': holds an empty name"),
        ({"log_with": "a,,b"}, {}, [], "log_with is 'a,,b': holds an empty name"),
        ({"stps": 4}, {}, [], "unknown key 'stps', did you mean 'train.steps'?"),
        ({"batch_sizes": 4}, {}, [], "unknown key 'batch_sizes', did you mean 'train.batch_size'?"),
    ],
)
def test_what_contradicts_or_makes_no_sense_is_one_sentence(
    values: dict[str, object], flags: dict[str, object], settings: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**BASE, **values}))
    with pytest.raises(VlbenchError) as caught:
        make_specs(flags, tmp_path / "run.yaml", settings)
    assert said in caught.value.message and "\n" not in caught.value.message


def test_pretraining_reads_the_same_names(vlbench: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    specs: list[PretrainSpec] = []
    monkeypatch.setattr(pretrain, "_pretrained", lambda spec, quiet: specs.append(spec) or "folder")
    flags = ("--model", "cvlp", "--task", "gqa,vqa2", "--objectives", "mlm,itm", "--init", "vision=a,text=hf:b",
             "--steps", 3, "--texts", "a.json", "--log-with", "wandb", "--split", "train,val")  # fmt: skip
    values = {"model": "cvlp", "task": ["gqa", "vqa2"], "objectives": "mlm,itm", "steps": 3,
              "init": {"vision": "a", "text": "hf:b"}, "texts": "a.json", "log_with": "wandb",
              "split": ["train", "val"]}  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    settings = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    for arguments in (flags, ("--config", tmp_path / "run.yaml"), settings):
        assert vlbench("pretrain", *arguments).code == 0
    assert specs[0] == specs[1] == specs[2]
    assert specs[0].init == {"vision": "a", "text": "hf:b"} and specs[0].texts == (Path("a.json"),)
    done = vlbench("pretrain", "--model", "cvlp", "--batch-size", "auto")
    assert done.code == 2 and "--batch-size" in done.err and "valid integer" in done.err
