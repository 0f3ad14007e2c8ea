"""What a run's fingerprint counts besides its spec: the task's card and code, and all that a plug-in consists of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.errors import DataError, VlbenchError
from vlbench.engine.evaluate import run
from vlbench.engine.execute import _preprocessing
from vlbench.engine.job import Job
from vlbench.records import provenance

MakeJob = Callable[..., Job]
METRIC = "from vlbench.metrics.accuracy import accuracy\n"
CARD_EDITS = {
    "prompt": ('prompt: "', 'prompt: "Look. '),
    "extraction": ("extraction: named_label", "extraction: short_answer"),
    "claims": ("metrics:\n", "claims: {'True': it is so}\nmetrics:\n"),
    "slices": ("slices: [", "slices: [directory, "),
    "metrics": ("metrics:\n", "metrics:\n  own: metric:accuracy\n"),
    "labels": ("labels: [", "labels: [Perhaps, "),
    "version": ("version: ", "version: 9"),
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with a copy of nlvr2 that has a metric and a sub-module of its own."""
    folder = tmp_path / "tasks" / "nlvr2"
    shutil.copytree(catalog.task_folders()["nlvr2"], folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "parts").mkdir()
    (folder / "metric.py").write_text(METRIC)
    (folder / "parts" / "helper.py").write_text("x = 1\n")
    (folder / "words.txt").write_text("one\n")
    return folder.parent


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf8")


@pytest.mark.parametrize("what", CARD_EDITS)
def test_every_part_of_a_card_that_decides_a_number_counts(make_job: MakeJob, tasks: Path, what: str) -> None:
    before = make_job(tasks_dir=tasks)
    edit(tasks / "nlvr2" / "task.yaml", *CARD_EDITS[what])
    after = make_job(tasks_dir=tasks)
    assert after.fingerprint != before.fingerprint and after.task_sha256 != before.task_sha256


@pytest.mark.parametrize("name", ["adapter.py", "metric.py", "parts/helper.py", "words.txt"])
def test_every_module_and_data_file_of_a_task_counts(make_job: MakeJob, tasks: Path, name: str) -> None:
    before = make_job(tasks_dir=tasks).fingerprint
    path = tasks / "nlvr2" / name
    path.write_text(path.read_text(encoding="utf8") + "# changed\n", encoding="utf8")
    assert make_job(tasks_dir=tasks).fingerprint != before


def test_what_decides_no_number_of_a_task_does_not_count(make_job: MakeJob, tasks: Path) -> None:
    before, folder = make_job(tasks_dir=tasks).fingerprint, tasks / "nlvr2"
    edit(folder / "task.yaml", "description: ", "description: In other words, ")
    edit(folder / "task.yaml", "homepage: ", "# a remark\nhomepage: http")
    (folder / "README.md").write_text("Changed.\n")
    (folder / "downloads.yaml").unlink()
    (folder / "test_nlvr2.py").write_text("assert True\n")
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "adapter.pyc").write_bytes(b"changed")
    assert make_job(tasks_dir=tasks).fingerprint == before
    moved = shutil.copytree(tasks, tasks.parent / "elsewhere")
    assert make_job(tasks_dir=moved).fingerprint == before


@pytest.mark.parametrize(
    ("task", "edited"),
    [
        *((name, f"{name}/adapter.py") for name in ("nlvr2", "nlvr", "vqa2", "gqa", "snli_ve", "coco_retrieval")),
        ("vqa2", "vqa2/metric.py"),
        ("vqa2", "vqa2/normalise.py"),
        ("gqa", "gqa/metric.py"),
        ("gqa", "gqa/evidence.py"),
    ],
)
def test_built_in_tasks_count_as_well(task: str, edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(catalog._built_in_tasks(), tmp_path / "built_in")
    monkeypatch.setattr(catalog, "_built_in_tasks", lambda: copy)
    before = {name: catalog.task_sha256(name) for name in catalog.task_folders()}
    (copy / edited).write_text((copy / edited).read_text(encoding="utf8") + "# changed\n", encoding="utf8")
    after = {name: catalog.task_sha256(name) for name in catalog.task_folders()}
    assert [name for name in before if before[name] != after[name]] == [task]


def test_a_metric_elsewhere_that_the_card_names_counts(
    make_job: MakeJob, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = tmp_path / "site" / "metric_kit"
    kit.mkdir(parents=True)
    (kit / "__init__.py").touch()
    (kit / "inner.py").write_text("x = 1\n")
    (kit / "scores.py").write_text(f"{METRIC}from metric_kit.inner import x\n")
    monkeypatch.syspath_prepend(str(kit.parent))
    edit(tasks / "nlvr2" / "task.yaml", "metrics:\n", "metrics:\n  own: metric_kit.scores:accuracy\n")
    names = [make_job(tasks_dir=tasks).fingerprint]
    for name in ("scores.py", "inner.py"):
        (kit / name).write_text((kit / name).read_text() + "# changed\n")
        names.append(make_job(tasks_dir=tasks).fingerprint)
    assert len(set(names)) == 3


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a plug-in model with modules and weights beside it and below."""
    folder = tmp_path / "own"
    for name in ("parts/net.py", "parts/deep/block.py", "weights/inner.pt", "layers.py", "start.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")
    (folder / "backbone.py").write_text("import outside_kit\n")
    (folder / "config.json").write_text("{}")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "outside_kit.py").write_text("x = 1\n")
    shutil.copy(catalog.model_folders()["fake"] / "model.yaml", folder)
    return folder


@pytest.mark.parametrize(
    "name",
    ["backbone.py", "layers.py", "parts/net.py", "parts/deep/block.py", "start.safetensors", "weights/inner.pt",
     "config.json", "model.yaml", "../outside/outside_kit.py"],
)  # fmt: skip
def test_all_of_a_plug_in_counts(make_job: MakeJob, model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(model.parent / "outside"))
    asked = f"{model}/backbone.py:Mine"
    before = make_job(model=asked)
    (model / name).write_text((model / name).read_text() + "\n# 2\n")
    after = make_job(model=asked)
    assert after.fingerprint != before.fingerprint and after.model_sha256 != before.model_sha256


def test_what_lies_beside_a_plug_in_by_the_way_does_not_count(make_job: MakeJob, model: Path) -> None:
    """So that a run that writes beside its model, or a log of it, can be resumed."""
    asked = f"{model}/backbone.py:Mine"
    before = make_job(model=asked).fingerprint
    for name in ("README.md", "log.txt", "runs/nlvr2/own/run.json", "runs/nlvr2/own/checkpoints/best/model.safetensors",
                 "test_own.py", ".git/hook.py", "__pycache__/backbone.pyc"):  # fmt: skip
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("1")
    assert make_job(model=asked).fingerprint == before


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
     "tokenizer_config.json", "vocab.txt", "merges.txt", "chat_template.jinja", "tokenizer.model", "qwen.tiktoken",
     "modeling_own.py", "additional_chat_templates/other.jinja"],
)  # fmt: skip
def test_all_that_prepares_the_input_of_a_transformers_model_counts(
    make_job: MakeJob, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "clip"
    (folder / name).parent.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "clip", "architectures": ["CLIPModel"]}')
    (folder / name).touch()
    before = make_job(model=f"hf:{folder}", checkpoint="none").fingerprint if name != "config.json" else ""
    (folder / name).write_text('{"model_type": "clip", "architectures": ["CLIPModel"], "x": 1}')
    after = make_job(model=f"hf:{folder}", checkpoint="none").fingerprint
    assert after != before
    (folder / "README.md").write_text("changed")
    assert make_job(model=f"hf:{folder}", checkpoint="none").fingerprint == after


def test_the_tokenizer_beside_weights_counts(make_job: MakeJob, tmp_path: Path) -> None:
    """It is what a run with these weights reads texts by, unless a vocabulary is given."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    asked = {"model": "cvlp", "checkpoint": str(tmp_path)}
    names = [make_job(**asked).fingerprint]
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / name).write_text("[PAD]\n")
        names.append(make_job(**asked).fingerprint)
    (tmp_path / "tokenizer.json").write_text("[PAD]\n[UNK]\n")
    names.append(make_job(**asked).fingerprint)
    assert len(set(names)) == 4
    (tmp_path / "words.txt").write_text("[PAD]\n")
    given = {**asked, "vocabulary": tmp_path / "words.txt"}
    before = make_job(**given).fingerprint
    (tmp_path / "tokenizer.json").write_text("[MASK]\n")
    assert make_job(**given).fingerprint == before


def test_a_finished_run_of_other_code_is_named(
    make_job: MakeJob, told: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_job(train={"steps": 1}, controls=()).spec
    first, _ = run(spec)
    assert first.tool.code_sha256 == provenance.code_sha256() and len(first.tool.code_sha256) == 64
    run(spec, told)
    assert told.lines[-1] == "already done: this is the record of that run"
    for place in ("engine.evaluate", "engine.execute", "records.provenance"):
        monkeypatch.setattr(f"vlbench.{place}.code_sha256", lambda: "f" * 64)
    again, _ = run(spec, told)
    assert again == first
    assert told.lines[-1] == (
        f"already done by other code of vlbench ({first.tool.code_sha256[:8]}; now ffffffff), --no-resume runs it "
        f"again: this is the record of that run"
    )
    anew, _ = run(spec.model_copy(update={"resume": False}), told)
    assert (anew.tool.code_sha256, anew.tool.earlier_code) == ("f" * 64, ())


def test_a_run_that_other_code_resumes_is_recorded(
    make_job: MakeJob, told: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_job(train={"steps": 4}, controls=(), save_every=1).spec
    from vlbench.engine.evaluators import classification

    def fails(*_: object) -> None:
        raise VlbenchError("stop")

    with monkeypatch.context() as patch, pytest.raises(VlbenchError):
        patch.setattr(classification, "classify", fails)
        run(spec)
    now = provenance.code_sha256()
    for place in ("engine.evaluate", "engine.execute", "records.provenance"):
        monkeypatch.setattr(f"vlbench.{place}.code_sha256", lambda: "f" * 64)
    record, _ = run(spec, told)
    said = f"resumed from work of other code of vlbench ({now[:8]})"
    assert f"{said}: --no-resume runs it from the beginning" in told.lines
    assert record.tool.earlier_code == (now,) and record.tool.code_sha256 == "f" * 64
    assert said in record.task.notes
    run(spec, told)
    assert told.lines[-1].startswith(f"already done by other code of vlbench ({now[:8]}, then ffffffff; now ffffffff)")


def test_the_hash_of_the_code_is_of_code_and_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vlbench"
    (package / "models" / "one").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "a.py").write_text("a = 1")
    (package / "models" / "one" / "model.yaml").write_text("name: one")
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    names = [provenance.code_sha256()]
    for name in ("a.py", "models/one/model.yaml"):
        (package / name).write_text((package / name).read_text() + " # changed")
        names.append(provenance.code_sha256())
    assert len(set(names)) == 3
    for name in ("README.md", "__pycache__/a.py", "models/one/tiny.safetensors"):
        (package / name).write_text("changed")
    assert provenance.code_sha256() == names[-1]


def test_an_installed_package_has_the_hash_of_its_checkout(tmp_path: Path) -> None:
    """There the tasks lie within the package, and nothing but what it declares is installed."""
    package, tasks = tmp_path / "vlbench", catalog._built_in_tasks()
    left = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(catalog.HERE, package, ignore=left)
    for name in ("_tasks", "_published"):
        shutil.copytree(tasks, package / name, ignore=left, dirs_exist_ok=True)
    code = "from vlbench.records.provenance import code_sha256, _PACKAGE; print(_PACKAGE, code_sha256())"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    ).stdout.split()  # fmt: skip
    assert told == [str(package), provenance.code_sha256()]


def test_models_over_pixels_say_what_resizes_them(make_job: MakeJob) -> None:
    found = {name: _preprocessing(make_job(model=name)).get("image_backend") for name in ("vilt", "soho", "cvlp")}
    assert found == {"vilt": "pil", "soho": "pil", "cvlp": None}


@pytest.fixture
def world(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world that may be changed, and a cache of its own."""
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


def test_verified_data_is_counted_and_compared(make_job: MakeJob, world: Path, told: object) -> None:
    from vlbench.engine.job import plan

    plain = make_job(data_root=world)
    spec = plain.spec.model_copy(update={"verify_data": True})
    assert plan(spec, told).fingerprint == plain.fingerprint
    beside = 1 + len(list((world / "nlvr2" / "features").iterdir()))  # the annotations, and tables of features
    assert [line.split(":")[0] for line in told.lines[-3:]] == [
        f"first verification of {192 + beside} files of split 'train' of nlvr2",
        f"first verification of {96 + beside} files of split 'dev' of nlvr2",
        f"first verification of {96 + beside} files of split 'test-p' of nlvr2",
    ]
    plan(spec, told)
    assert all(line.startswith("verified ") for line in told.lines[-3:])
    image = sorted((world / "nlvr2" / "images" / "dev").iterdir())[3]
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(bytes(content))
    assert make_job(data_root=world).fingerprint == plain.fingerprint  # its size is as it was
    with pytest.raises(DataError, match=r"1 file of split 'dev' of nlvr2 is not as verified on") as caught:
        plan(spec, told)
    assert caught.value.exit_code == 5 and str(image) in caught.value.message
