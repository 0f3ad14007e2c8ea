from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlbench.core.cards import Recipe
from vlbench.core.errors import DataError
from vlbench.core.spec import PLACE, RunSpec
from vlbench.core.validate import parse
from vlbench.records.fingerprint import fingerprint

BASE = {"task": "nlvr2", "model": "cvlp", "size": "tiny", "limit": 500}


def name_of(
    spec: RunSpec,
    recipe: Recipe | None = None,
    task_version: int = 1,
    task: str = "t",
    manifest: str = "m",
    weights: str = "w",
    model: str = "",
    tokenizer: str = "",
    answers: str = "a",
    version: str = "0.1.0",
) -> str:
    return fingerprint(
        spec,
        recipe=recipe or Recipe(lr=1e-4, steps=10),
        task_version=task_version,
        task_sha256=task,
        manifest_sha256=manifest,
        weights_sha256=weights,
        model_sha256=model,
        tokenizer_sha256=tokenizer,
        answers_sha256=answers,
        vlbench_version=version,
    )


def test_sixteen_hex_characters_the_same_in_another_process() -> None:
    here = name_of(RunSpec(task="nlvr2", model="cvlp", size="tiny"))
    program = (
        "from vlbench.core.cards import Recipe\nfrom vlbench.core.spec import RunSpec\n"
        "from vlbench.records.fingerprint import fingerprint\n"
        "print(fingerprint(RunSpec(task='nlvr2', model='cvlp', size='tiny'), recipe=Recipe(lr=1e-4, steps=10),"
        " task_version=1, task_sha256='t', manifest_sha256='m', weights_sha256='w',"
        " model_sha256='', tokenizer_sha256='', answers_sha256='a', vlbench_version='0.1.0'))"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here
    assert len(here) == 16 and set(here) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "given",
    [
        RunSpec.model_validate({**BASE, "limit": 500.0}),
        RunSpec.model_validate({**BASE, "limit": "500"}),
        RunSpec.model_validate_json(json.dumps(dict(reversed(BASE.items())))),
        parse(RunSpec, BASE, "flags"),
        RunSpec.model_validate(BASE).model_copy(update={"limit": 500}),
        RunSpec.model_validate({**BASE, "controls": []}),
        RunSpec.model_validate({**BASE, "train": {"lr": 1e-4}}),
        RunSpec.model_validate({**BASE, "checkpoint": "weights/of/the/same/hash.safetensors"}),
    ],
    ids=["float", "text", "json", "parsed", "copied", "controls", "recipe", "checkpoint"],
)
def test_equal_meaning_equal_name(given: RunSpec) -> None:
    assert name_of(given) == name_of(RunSpec.model_validate(BASE))


def test_recipe_by_meaning() -> None:
    spec = RunSpec.model_validate(BASE)
    plain = name_of(spec, Recipe(lr=1.0, steps=10))
    assert plain == name_of(spec, Recipe(lr=1.0, steps=10, epochs=3))
    assert plain == name_of(spec, Recipe(steps=10).model_copy(update={"lr": 1}))
    assert plain != name_of(spec, Recipe(lr=1.0, steps=11))
    assert plain != name_of(spec, Recipe(lr=1.0, epochs=10))


def test_limit_mode_counts_only_with_a_limit() -> None:
    whole = RunSpec(task="nlvr2", model="cvlp", size="tiny")
    assert name_of(whole) == name_of(whole.model_copy(update={"limit_mode": "head"}))
    part = RunSpec.model_validate(BASE)
    assert name_of(part) != name_of(part.model_copy(update={"limit_mode": "head"}))


def test_every_field_of_the_spec_counts_unless_it_is_a_place() -> None:
    """A field added later falls under this law by itself: it needs another value here."""
    other: dict[str, object] = {
        "task": "nlvr", "model": "fake", "size": "base", "mode": "eval",
        "answer_by": "text", "data_root": Path("d"), "tasks_dir": Path("t"),
        "domain": "textured", "train_split": "dev", "select_on": "none", "split": "dev", "limit": 501.0,
        "limit_mode": "head", "select_limit": 9, "cache_images": 2.0, "controls": ("blind",), "seed": 1,
        "rerank_k": 5,
        "eval_batch_size": 1, "num_fewshot": 2, "save_every": 7, "auto_batch": True, "compile": True,
        "activation_checkpointing": True,
        "verify_data": True, "on_error": "record",
        "matmul_precision": "high", "fsdp": True,
        "dtype": "bfloat16", "allow_partial": True, "device": "cuda", "num_processes": 2, "workers": 3,
        "device_map": "auto", "quantize": "8bit", "trust_remote_code": True, "threads": 5, "log_with": ("wandb",),
            "output_path": Path("elsewhere"), "resume": False,
    }  # fmt: skip
    by_content = {"train", "checkpoint", "vocabulary", "answers"}  # tested apart
    assert other.keys() | by_content == RunSpec.model_fields.keys()
    base = RunSpec.model_validate(BASE)
    for field, value in other.items():
        changed = name_of(base.model_copy(update={field: value})) != name_of(base)
        assert changed == (field not in PLACE), field


def test_an_option_of_no_effect_leaves_the_names_of_earlier_runs() -> None:
    assert name_of(RunSpec(task="nlvr2", model="cvlp", size="tiny")) == "3216b2e5675c43b2"  # before --matmul-precision


def test_data_weights_and_versions_count() -> None:
    spec = RunSpec.model_validate(BASE)
    names = {
        name_of(spec),
        name_of(spec, task_version=2),
        name_of(spec, task="u"),
        name_of(spec, tokenizer="k"),
        name_of(spec, manifest="n"),
        name_of(spec, weights=""),
        name_of(spec, model="c"),
        name_of(spec, answers="b"),
        name_of(spec, version="0.2.0"),
    }
    assert len(names) == 9


def test_a_model_from_elsewhere_is_known_by_its_content() -> None:
    paths = ("hf:m/clip", "hf:./m/clip", "hf:m/clip/", "my/backbone.py:Mine")
    specs = [RunSpec(task="nlvr2", model=path, size="hf") for path in paths]
    assert len({name_of(spec, model="content") for spec in specs}) == 1
    assert len({name_of(spec) for spec in specs}) == len(paths)


def test_vocabulary_by_its_words(tmp_path: Path) -> None:
    first, second, folder = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "bert"
    folder.mkdir()
    for file in (first, second, folder / "vocab.txt"):
        file.write_text("[PAD]\n[UNK]\n")
    spec = RunSpec.model_validate(BASE)
    names = {name_of(spec.model_copy(update={"vocabulary": path})) for path in (first, second, folder)}
    assert len(names) == 1
    second.write_text("[PAD]\nother\n")
    assert name_of(spec.model_copy(update={"vocabulary": second})) not in names
    assert name_of(spec) not in names
    with pytest.raises(DataError, match=r"absent\.txt cannot be read"):
        name_of(spec.model_copy(update={"vocabulary": tmp_path / "absent.txt"}))
