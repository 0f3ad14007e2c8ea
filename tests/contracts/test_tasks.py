"""What every task on disk keeps: its card is sane, its order is fixed, and its answers reach no query."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from vlbench import catalog
from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.core.gallery import galleries
from vlbench.core.results import MetricAbsentError, Prediction, Ranking, Score
from vlbench.core.task import Task
from vlbench.data.cache.index import annotation_files
from vlbench.engine.source import load_task
from vlbench.metrics.ranks import from_matrix

OPEN = {"answer", "multiple_choice_answer"}
"""Keys of official files whose values are answers out of no closed list."""
TABLES = ("annotations", "captions", "karpathy", "questions")
"""What a card may call the files that a split cannot do without."""
FOLDERS = catalog.task_folders()
every_task = pytest.mark.parametrize("name", FOLDERS)
answering = pytest.mark.parametrize("name", [name for name in FOLDERS if catalog.task_card(name).output != "rank"])
ranking = pytest.mark.parametrize("name", [name for name in FOLDERS if catalog.task_card(name).output == "rank"])
OpenTask = Callable[[str], Task]


def tables(task: Task, split: str) -> list[Path]:
    """The split's files that are no pictures."""
    return [path for _, path in annotation_files(task.files(split))]


def splits_there(task: Task) -> list[str]:
    def is_there(split: str) -> bool:
        files = task.files(split)
        return all(files.place(name).exists() for name in files.card.files if name in TABLES)

    return [split for split in task.card.splits if is_there(split)]


def answer(example: Example[Any]) -> str:
    """What a perfect model says; empty where the organisers keep the answers."""
    reference = example.reference
    if isinstance(reference, Label | Caption):
        return reference.value if isinstance(reference, Label) else reference.image
    given = getattr(reference, "answers", None) or [getattr(reference, "answer", "")]
    assert isinstance(given[0], str), "teach this test the new kind of reference"
    return Counter(given).most_common(1)[0][0]


def scores(task: Task, results: Sequence[Any], examples: Sequence[Example[Any]]) -> dict[str, Score]:
    """What each metric says, but for those whose evidence is not there."""
    found = {}
    for name, metric in task.metrics.items():
        with contextlib.suppress(MetricAbsentError):
            found[name] = metric(results, examples)
    assert task.card.main_metric in found
    return found


def leaves(value: object) -> Iterator[object]:
    """Everything reachable from a value, down to texts and paths."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from leaves(part)
    else:
        yield value


@every_task
def test_a_folder_is_complete(name: str) -> None:
    folder = FOLDERS[name]
    assert (folder / "README.md").read_text(encoding="utf8").startswith("# ")
    tree = ast.parse((folder / "adapter.py").read_text(encoding="utf8"))
    public = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert public == ["examples"]
    assert not [node for node in tree.body if isinstance(node, ast.ClassDef)], "a task is a card plus one function"


@every_task
def test_a_card_is_sane(name: str, tmp_path: Path) -> None:
    card = catalog.task_card(name)
    assert card.name == name
    assert card.version >= 1
    assert card.train_split != card.select_on != card.report_split != card.train_split
    assert len(set(card.labels)) == len(card.labels)
    assert all([card.title, card.description, card.homepage, card.licence, card.citation])
    assert catalog.load_task(name, tmp_path, "real").metrics.keys() == card.metrics.keys()
    for split in card.splits.values():
        assert split.files.keys() & set(TABLES)
        assert split.count is None or split.count > 0
        assert split.md5.keys() <= split.files.keys()
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in split.md5.values())
        for places in split.files.values():
            assert places
            assert len(set(places)) == len(places)
            assert not any(PurePosixPath(place).is_absolute() or ".." in place for place in places)


@every_task
def test_order_and_ids_are_fixed(name: str, open_task: OpenTask) -> None:
    task = open_task(name)
    assert {task.card.select_on, task.card.report_split} <= set(splits_there(task))
    for split in splits_there(task):
        examples = task.load(split)
        assert examples == task.load(split)
        assert len({example.id for example in examples}) == len(examples) == task.counts.get(split, len(examples))
        for example in examples:
            assert len(example.query.images) == task.card.images_per_example
            assert not task.card.labels or answer(example) in task.card.labels
            assert not example.tags or set(task.card.slices) - {"kind"} <= example.tags.keys()
    assert any(example.tags for example in task.load(task.card.report_split)) == bool(task.card.slices)


@every_task
def test_a_query_holds_pictures_and_text_only(name: str, open_task: OpenTask) -> None:
    task = open_task(name)
    for split in splits_there(task):
        for example in task.load(split):
            assert type(example.query) is Query
            assert all(type(ref) is ImageRef for ref in example.query.images)
            for leaf in leaves(example.query):
                assert isinstance(leaf, str | Path)
                assert leaf is not example.reference


@answering
def test_other_answers_leave_every_query_as_it_is(name: str, open_task: OpenTask, tmp_path: Path) -> None:
    task = open_task(name)
    splits = splits_there(task)
    shutil.copytree(task.root, tmp_path / name)
    for path in {path.relative_to(task.root) for split in splits for path in tables(task, split)}:
        replace_answers(tmp_path / name / path, task.card.labels)
    changed = load_task(name, tmp_path, allow_partial=True)
    for split in splits:
        before, after = task.load(split), changed.load(split)
        assert list(map(seen, before)) == list(map(seen, after))
        assert all(answer(one) != answer(other) or not answer(one) for one, other in zip(before, after, strict=True))


def replace_answers(path: Path, labels: Sequence[str]) -> None:
    """Every label in a file of JSON or JSON lines becomes the next one; open answers, found by key, become others."""
    follower = {label.lower(): labels[(place + 1) % len(labels)] for place, label in enumerate(labels)}

    def replaced(value: object) -> object:
        if isinstance(value, dict):
            return {key: changed_answer(part) if key in OPEN else replaced(part) for key, part in value.items()}
        if isinstance(value, list):
            return [replaced(part) for part in value]
        return follower.get(value.lower(), value) if isinstance(value, str) else value

    def changed_answer(value: object) -> object:
        return f"other than {value}" if isinstance(value, str) and not labels else replaced(value)

    if path.suffix == ".tsv":
        return
    lines = path.read_text(encoding="utf8").splitlines()
    path.write_text("".join(json.dumps(replaced(json.loads(line))) + "\n" for line in lines), encoding="utf8")


def seen(example: Example[Any]) -> tuple[object, ...]:
    """All of an example but its reference and the slice named after it, wherever the data lies."""
    pictures = [(ref.key, ref.path.name) for ref in example.query.images]
    tags = {name: value for name, value in example.tags.items() if value != answer(example)}
    return example.id, pictures, example.query.text, example.group, tags


@answering
def test_references_score_best_and_their_opposites_0(name: str, open_task: OpenTask) -> None:
    task = open_task(name)
    examples = task.load(task.card.report_split)
    right = [Prediction(example.id, answer(example)) for example in examples]
    others = {label: next(other for other in task.card.labels if other != label) for label in task.card.labels}
    wrong = [Prediction(one.example_id, others.get(one.answer, "no answer at all")) for one in right]
    for score in scores(task, right, examples).values():
        assert score.value == (100.0 if score.higher_is_better else 0.0), score.name
    for score in scores(task, wrong, examples).values():
        assert score.value == 0.0 or not score.higher_is_better, score.name


@answering
def test_the_order_of_predictions_does_not_count(name: str, open_task: OpenTask) -> None:
    task, toss = open_task(name), random.Random(5)
    examples = task.load(task.card.report_split)
    labels = task.card.labels or sorted({answer(example) for example in examples})
    guesses = [Prediction(example.id, toss.choice(labels)) for example in examples]
    assert scores(task, toss.sample(guesses, len(guesses)), examples) == scores(task, guesses, examples)


def ranked(examples: Sequence[Example[Any]], worth: Callable[[bool], float]) -> list[Ranking]:
    """Rankings by a score for each pair that knows only whether it is right."""
    found: list[Ranking] = []
    for gallery in galleries(examples):
        owner = np.asarray(gallery.owner)
        right = owner == np.arange(len(gallery.images))[:, None]
        found += from_matrix(np.vectorize(worth)(right), gallery)
    return found


@ranking
def test_a_perfect_ranking_scores_best_and_a_reversed_one_worst(name: str, open_task: OpenTask) -> None:
    task = open_task(name)
    examples = task.load(task.card.report_split)
    best, worst = (scores(task, ranked(examples, worth), examples) for worth in (float, lambda right: -float(right)))
    figures = [name for name in best if name.startswith(("tr_r", "ir_r"))]
    assert {best[name].value for name in figures} == {100.0} and best["rsum"].value == 600.0
    assert {best[name].value for name in ("tr_medr", "ir_medr", "tr_meanr", "ir_meanr")} == {1.0}
    assert worst["tr_r1"].value == worst["ir_r1"].value == 0.0


@ranking
def test_the_order_of_rankings_does_not_count(name: str, open_task: OpenTask) -> None:
    task, toss = open_task(name), random.Random(5)
    examples = task.load(task.card.report_split)
    guesses = ranked(examples, lambda right: float(toss.randrange(9)))
    assert scores(task, toss.sample(guesses, len(guesses)), examples) == scores(task, guesses, examples)


@ranking
def test_an_image_has_its_texts_together_and_at_most_five(name: str, open_task: OpenTask) -> None:
    task = open_task(name)
    for split in splits_there(task):
        for gallery in galleries(task.load(split)):
            assert gallery.owner == sorted(gallery.owner)
            assert set(Counter(gallery.owner).values()) <= set(range(1, 6))


@every_task
def test_a_split_within_another_holds_no_example_of_its_own(name: str, open_task: OpenTask) -> None:
    task = open_task(name)
    there = splits_there(task)
    for split in there:
        for larger in task.card.larger_splits(split):
            if larger in there:
                asked = {example.id: example.query for example in task.load(larger)}
                assert all(asked.get(example.id) == example.query for example in task.load(split)), (split, larger)
