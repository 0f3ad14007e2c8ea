"""Training on several splits at once: what is read, which answers are known, and what must be apart."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.cli.run import make_specs
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.splits import split_tuple
from vlbench.data.cache.index import Joined
from vlbench.engine.job import Job
from vlbench.records.folder import read_run
from vlbench.report.tables.protocol import protocol

MakeJob = Callable[..., Job]
BOTH = {"task": "vqa2", "train_split": "train,nominival", "select_on": "none"}


FILES = {"train": "v2_OpenEnded_mscoco_train2014_questions.json", "nominival": "nominival.json"}


def question_ids(world: Path, split: str) -> list[str]:
    """The ids of a split, out of its official file."""
    (path,) = world.rglob(FILES[split])
    values = json.loads(path.read_text())
    rows = values["questions"] if isinstance(values, dict) else values
    return [str(row["question_id"]) for row in rows]


def test_all_splits_are_trained_on_one_after_the_other(make_job: MakeJob, tiny_world: Path) -> None:
    job = make_job(**BOTH, answers=None)
    everything = question_ids(tiny_world, "train") + question_ids(tiny_world, "nominival")
    left_out = len(everything) - len(job.train)
    assert job.spec.train_split == ("train", "nominival")
    known = [example.id for example in job.train]
    assert known == [name for name in everything if name in set(known)] and len(set(known)) == len(known)
    assert bool(left_out) == bool(job.notes)
    assert set(question_ids(tiny_world, "nominival")) & set(known)


def test_the_answer_vocabulary_counts_all_of_them(make_job: MakeJob, tiny_world: Path) -> None:
    """Nine times over both splits together, in the official annotations: also answers that neither has nine times."""
    given = {
        str(row["question_id"]): row["multiple_choice_answer"]
        for path in (tiny_world / "vqa2").glob("v2_mscoco_*_annotations.json")
        for row in json.loads(path.read_text())["annotations"]
    }
    parts = [Counter(given[name] for name in question_ids(tiny_world, split)) for split in ("train", "nominival")]
    both, *alone = ({answer for answer, n in counts.items() if n >= 9} for counts in (sum(parts, Counter()), *parts))
    assert set(make_job(**BOTH).labels) == both
    assert both > alone[0] | alone[1]


def test_manifest_and_fingerprint_cover_all_of_them(make_job: MakeJob, tiny_world: Path, tmp_path: Path) -> None:
    both, one = make_job(**BOTH), make_job(**{**BOTH, "train_split": "train"})
    assert both.manifest_sha256 != one.manifest_sha256 and both.fingerprint != one.fingerprint
    assert make_job(**{**BOTH, "train_split": ["train", "nominival"]}).fingerprint == both.fingerprint
    assert make_job(**{**BOTH, "train_split": "nominival,train"}).fingerprint != both.fingerprint  # other batches
    changed = shutil.copytree(tiny_world, tmp_path / "world")
    (path,) = changed.rglob("nominival.json")
    path.write_text(path.read_text() + "\n")
    assert make_job(**BOTH, data_root=changed).manifest_sha256 != both.manifest_sha256
    assert make_job(**{**BOTH, "train_split": "train"}, data_root=changed).manifest_sha256 == one.manifest_sha256


SELECT = ["--select-on nominival shares", "another --select-on, or none"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        # The default selection split of vqa2 is nominival.
        ({"train_split": "train,nominival"}, [*SELECT, "'nominival'", "another --train-split than train+nominival"]),
        # minival is a part of val, and so is nominival.
        ({"train_split": "train,val"}, [*SELECT, "--split minival shares", "'val'", "another --split"]),
        ({"train_split": "train,val", "select_on": "none"}, ["--split minival shares", "'val'", "another --split"]),
        ({"select_on": "train"}, ["--select-on train shares", "which the model is trained on", "another --select-on"]),
        (
            {"train_split": "val,minival", "select_on": "none", "split": "train"},
            ["'minival' shares", "'val'", "each is trained on once"],
        ),
        ({"train_split": "train,nomnival"}, ["unknown split of vqa2 'nomnival'", "'nominival'"]),
    ],
)
def test_what_overlaps_is_an_error(fields: dict[str, object], said: list[str], make_job: MakeJob) -> None:
    with pytest.raises(VlbenchError) as caught:
        make_job(task="vqa2", **fields)
    assert caught.value.exit_code == 2 and "\n" not in caught.value.message
    assert all(part in caught.value.message for part in said), caught.value.message


def test_selecting_on_what_is_trained_on_is_an_error_also_for_one_split(make_job: MakeJob) -> None:
    with pytest.raises(VlbenchError, match="--select-on train shares 192 examples with 'train'"):
        make_job(select_on="train")


def test_flag_then_recipe_then_task_card(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = make_job(task="vqa2", select_on="none", train=Recipe(train_splits=("train", "nominival")))
    assert asked.spec.train_split == ("train", "nominival") and asked.spec.train.train_splits is None
    assert asked.fingerprint == make_job(**BOTH).fingerprint
    card = catalog.model_card("fake")
    recipe = card.recipes["default"].merged(Recipe(train_splits=("train", "nominival")))
    changed = card.model_copy(update={"recipes": {**card.recipes, "vqa2": recipe}})
    real = catalog.model_card
    monkeypatch.setattr(catalog, "model_card", lambda name: changed if name == "fake" else real(name))
    assert make_job(task="vqa2", select_on="none").spec.train_split == ("train", "nominival")
    assert make_job(task="vqa2", select_on="none", train_split="train").spec.train_split == "train"
    by_recipe = make_job(task="vqa2")
    assert by_recipe.spec.select_on == "none", "the recipe trains on the split that the task selects on"
    assert make_job(task="vqa2", train_split="train").spec.select_on == "nominival"
    with pytest.raises(VlbenchError, match="--select-on nominival shares"):
        make_job(task="vqa2", train_split="train,nominival")
    assert make_job(task="gqa").spec.train_split == "train"
    with pytest.raises(
        VlbenchError, match=r"--train-split train and train\.train_splits train\+val say the same thing twice"
    ):
        make_job(task="vqa2", train_split="train", train=Recipe(train_splits=("train", "val")))


@pytest.mark.parametrize(
    ("model", "size", "task", "splits"),
    [
        ("lxmert", "base", "vqa2", ("train", "nominival")),
        ("lxmert", "base", "gqa", ("train", "val")),
        ("cvlp", "base", "vqa2", ("train", "nominival")),
        ("cvlp", "base", "gqa", ("train", "val")),
        ("vilt", "base", "vqa2", ("train", "val")),
        ("vilt", "base", "flickr30k_retrieval", ("train", "val")),
        ("vilt", "base", "coco_retrieval", None),  # Karpathy's train with restval is the task's train split
        ("vilt", "base", "nlvr2", None),
        ("soho", "official", "vqa2", ("train", "val")),
        ("soho", "base", "vqa2", ("train", "val")),
        ("soho", "small", "vqa2", None),
        ("lxmert", "small", "vqa2", None),
    ],
)
def test_the_papers_splits_stand_in_the_recipes(
    model: str, size: str, task: str, splits: tuple[str, ...] | None
) -> None:
    assert catalog.model_card(model).recipe(task, size).train_splits == splits


def every_recipe(card: ModelCard) -> list[tuple[str, str, Recipe]]:
    return [
        (size, task, card.recipe(task, size)) for size in card.sizes for task in (*catalog.task_folders(), "pretrain")
    ]


def test_recipes_name_splits_that_there_are_and_only_for_the_papers_sizes() -> None:
    for name in catalog.model_folders():
        for size, task, recipe in every_recipe(catalog.model_card(name)):
            if recipe.train_splits:
                assert (
                    size in ("base", "official") and set(recipe.train_splits) <= catalog.task_card(task).splits.keys()
                )


def test_yaml_and_flags(tmp_path: Path) -> None:
    for text in (
        "train_split: train,nominival",
        "train_split: [train, nominival]",
        "train_split:\n- train\n- nominival",
    ):
        (tmp_path / "run.yaml").write_text(f"task: vqa2\nmodel: fake\n{text}\n")
        (found,) = make_specs({}, tmp_path / "run.yaml", [])
        assert found.train_split == ("train", "nominival")
    (found,) = make_specs({"task": "vqa2", "model": "fake"}, None, ["train.train_splits=train,val"])
    assert found.train.train_splits == ("train", "val")


def test_a_run_over_both_is_recorded_and_labelled(
    vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path
) -> None:
    common = (
        "run", "--task", "vqa2", "--model", "fake", "--data-root", tiny_world, "--train-split", "train,nominival",
        "--select-on", "none", "--steps", 1, "--controls", "none", "--output-path", tmp_path / "runs",
    )  # fmt: skip
    plan = vlbench(*common, "--dry-run")
    assert plan.code == 0 and "train+nominival" in plan.out
    done = vlbench(*common, "--quiet")
    record = read_run(done.run)
    assert record.train.train_split == record.spec.train_split == ("train", "nominival")
    assert protocol(record) == "finetune on train+nominival"
    assert "finetune on train+nominival" in vlbench("leaderboard", done.run).out
    assert vlbench(*common, "--quiet").run == done.run
    reported = tmp_path / "run.html"
    assert vlbench("report", done.run, "--html", reported).code == 0 and "train+nominival" in reported.read_text()


def test_joined_sequences() -> None:
    made = [Example(f"e-{number}", Query((), ""), Label("True"), "g") for number in range(7)]
    found = Joined([made[:3], [], made[3:4], made[4:]])
    assert len(found) == 7 and list(found) == made and [found[row] for row in range(-7, 7)] == made + made
    assert found[1:6:2] == made[1:6:2] and found.ids == [example.id for example in made]
    for row in (7, -8):
        with pytest.raises(IndexError):
            found[row]
    assert split_tuple(("a", "b")) == ("a", "b") and not Joined([])
