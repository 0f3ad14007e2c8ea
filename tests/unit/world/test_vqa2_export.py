from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from vlbench._tasks.vqa2.questions import read_annotations, read_questions
from vlbench.world.exporters.vqa2 import MAX_PER_PHOTOGRAPH, SHARES, export, question_type
from vlbench.world.generate import FULL, TINY
from vlbench.world.language.programs import answers, solve
from vlbench.world.language.question_sampling import AskedQuestion, ask_evenly
from vlbench.world.rng import stream
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import collect_photographs
from vlbench.world.scenes.scene import COLOURS, SHAPES, SIZES, SPLITS, Scene, Split, Thing, make_scenes

SCENES = {split: make_scenes(split, TINY.sets(split) * 8, seed=0) for split in SPLITS}
PHOTOGRAPHS = collect_photographs("coco", SCENES, 0)
OPEN_NOUNS = ("shape", "object", "thing")


def quiet(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vqa2") / "vqa2"
    assert set(export(root, SCENES, 0, ImagePlan(), quiet)) == {
        "train",
        "val",
        "nominival",
        "minival",
        "test-dev",
        "test",
    }
    return root


@pytest.fixture(scope="module")
def full_dev() -> list[AskedQuestion]:
    """The questions of 1,024 photographs."""
    scenes = {split: make_scenes("dev", FULL.dev * 8, seed=1) if split == "dev" else [] for split in SPLITS}
    return list(ask_evenly(collect_photographs("coco", scenes, 1)["dev"], SHARES, 3000, stream("test")))


def questions_of(folder: Path, subtype: str) -> list[dict[str, Any]]:
    content = json.loads((folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json").read_text())
    assert set(content) == {"info", "task_type", "data_type", "license", "data_subtype", "questions"}
    assert (content["task_type"], content["data_type"], content["data_subtype"]) == ("Open-Ended", "mscoco", subtype)
    return list(content["questions"])


def annotations_of(folder: Path, subtype: str) -> list[dict[str, Any]]:
    content = json.loads((folder / f"v2_mscoco_{subtype}_annotations.json").read_text())
    assert set(content) == {"info", "license", "data_subtype", "annotations", "data_type"}
    return list(content["annotations"])


def test_the_counts_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    counts = export(tmp_path, SCENES, 0, ImagePlan(), quiet)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    for split, subtype in {
        "train": "train2014",
        "val": "val2014",
        "test-dev": "test-dev2015",
        "test": "test2015",
    }.items():
        assert counts[split] == len(questions_of(folder, subtype)) > 0
    for name in ("nominival", "minival"):
        assert counts[name] == len(json.loads((folder / f"{name}.json").read_text()))
    assert counts["nominival"] + counts["minival"] == counts["val"]
    assert 270 <= counts["train"] <= 300


@pytest.mark.parametrize("subtype", ["train2014", "val2014", "test2015", "test-dev2015"])
def test_questions_have_the_official_fields_and_are_about_images_that_exist(folder: Path, subtype: str) -> None:
    splits: dict[str, tuple[Split, ...]] = {"train2014": ("train",), "val2014": ("dev", "test1")}
    images = {one.number for split in splits.get(subtype, ("test2",)) for one in PHOTOGRAPHS[split]}
    asked = questions_of(folder, subtype)
    ids = [question["question_id"] for question in asked]
    assert len(set(ids)) == len(ids)
    for question in asked:
        assert set(question) == {"image_id", "question", "question_id"}
        assert question["image_id"] in images
        assert question["question_id"] // MAX_PER_PHOTOGRAPH == question["image_id"]
    assert len({question["image_id"] for question in asked}) > 0.75 * len(images)


@pytest.mark.parametrize("subtype", ["train2014", "val2014"])
def test_annotations_have_the_official_fields_and_ten_answers(folder: Path, subtype: str) -> None:
    texts = {question["question_id"]: str(question["question"]) for question in questions_of(folder, subtype)}
    annotations = annotations_of(folder, subtype)
    assert [one["question_id"] for one in annotations] == list(texts)
    for one in annotations:
        assert set(one) == {
            "question_type", "multiple_choice_answer", "answers", "image_id", "answer_type", "question_id",
        }  # fmt: skip
        typed = [answer["answer"] for answer in one["answers"]]
        assert [answer["answer_id"] for answer in one["answers"]] == list(range(1, 11))
        assert typed.count(one["multiple_choice_answer"]) >= 6
        most = str(one["multiple_choice_answer"])
        kind = "yes/no" if most in ("yes", "no") else "number" if most.isdigit() else "other"
        assert one["answer_type"] == kind
        assert texts[one["question_id"]].lower().startswith(str(one["question_type"])) or (
            one["question_type"] == "none of the above"
        )
    agreed = sum(len({answer["answer"] for answer in one["answers"]}) == 1 for one in annotations)
    assert 0.15 < agreed / len(annotations) < 0.35


def test_the_task_reads_what_is_written(folder: Path) -> None:
    annotations = read_annotations(folder / "v2_mscoco_val2014_annotations.json", "val2014")
    for name in ("nominival", "minival"):
        listed = json.loads((folder / f"{name}.json").read_text())
        read = list(read_questions(folder / f"{name}.json", "val2014"))
        assert [question.number for question in read] == [entry["question_id"] for entry in listed]
        for question, entry in zip(read, listed, strict=True):
            annotation = annotations[question.number]
            assert (question.text, question.image) == (entry["sent"], annotation.image)
            assert annotation.answers.worths() == pytest.approx(entry["label"])
            assert annotation.answers.worths()[annotation.answers.consensus] == 1
            assert entry["question_type"] == annotation.tags["question_type"]
            assert entry["answer_type"] == annotation.tags["answer_type"]
    assert len({answer for one in annotations.values() for answer in one.answers.worths()}) > 30


@pytest.mark.parametrize("subtype", ["train2014", "val2014"])
def test_each_question_text_has_each_of_its_answers_equally_often(folder: Path, subtype: str) -> None:
    texts = {question["question_id"]: question["question"] for question in questions_of(folder, subtype)}
    by_text: dict[object, Counter[object]] = defaultdict(Counter)
    for one in annotations_of(folder, subtype):
        by_text[texts[one["question_id"]]][one["multiple_choice_answer"]] += 1
    assert {len(counts) for counts in by_text.values()} == {2, 3, 4, 5}
    for text, counts in by_text.items():
        assert len(set(counts.values())) == 1, (text, counts)


def test_every_kind_has_its_share_and_its_answers_are_even(full_dev: list[AskedQuestion]) -> None:
    kinds = Counter(one.kind for one in full_dev)
    assert set(kinds) == set(SHARES) and sum(SHARES.values()) == 100
    for kind, share in SHARES.items():
        assert 100 * kinds[kind] / kinds.total() == pytest.approx(share, abs=1.5), kind
    for kind in ("colour", "shape", "size", "place", "count", "exist", "verify", "both", "either", "more"):
        counts = Counter(one.answer for one in full_dev if one.kind == kind)
        assert len(set(counts.values())) == 1, (kind, counts)
    assert len({(one.photograph.number, one.program) for one in full_dev}) == len(full_dev)


def test_the_solver_answers_every_question(full_dev: list[AskedQuestion]) -> None:
    for one in full_dev:
        assert solve(one.program, one.photograph.scene) == one.answer
        assert one.answer in answers(one.program)


def fitting(phrase: str, scene: Scene) -> list[Thing]:
    """What a phrase such as "small red circles" names in a scene, read word by word."""
    words = [word.removesuffix("s") for word in phrase.split()]
    assert all(word in (*COLOURS, *SHAPES, *SIZES, *OPEN_NOUNS) for word in words), phrase
    named = {word for word in words if word not in OPEN_NOUNS}
    return [thing for thing in scene.things if named <= {thing.colour, thing.shape, thing.size}]


PHRASE = r"((?:small |big )?(?:\w+ )?\w+)"
READ = {
    f"how many {PHRASE} (?:are there|can be seen)": lambda things: str(len(things)),
    f"is there an? {PHRASE}(?: in the \\w+)?": lambda things: "yes" if things else "no",
    f"are there any {PHRASE}(?: in the \\w+)?": lambda things: "yes" if things else "no",
    f"wh\\w+ colour (?:is|are) the {PHRASE}": lambda things: things[0].colour,
    f"what is the shape of the {PHRASE}": lambda things: things[0].shape,
    f"how (?:big|large) (?:is|are) the {PHRASE}": lambda things: things[0].size,
}


def readings(asked: Sequence[dict[str, Any]], scenes: dict[object, Scene]) -> Iterator[tuple[object, str]]:
    """Question id and true answer of the questions that are easy to read."""
    for question in asked:
        text = str(question["question"]).lower().rstrip("?")
        for pattern, answer in READ.items():
            match = re.fullmatch(pattern, text)
            words = match[1].split() if match else []
            if match and set(words[:-1]) <= {*COLOURS, *SIZES} and words[-1] not in ("colours",):
                yield question["question_id"], answer(fitting(match[1], scenes[question["image_id"]]))


def test_answers_are_true_of_the_image_as_the_words_say(folder: Path) -> None:
    scenes: dict[object, Scene] = {one.number: one.scene for one in PHOTOGRAPHS["train"]}
    given = {one["question_id"]: one["multiple_choice_answer"] for one in annotations_of(folder, "train2014")}
    read = dict(readings(questions_of(folder, "train2014"), scenes))
    assert len(read) > 40
    assert {name: given[name] for name in read} == read


def test_a_question_type_is_its_longest_known_beginning() -> None:
    assert question_type("What colour is the circle?") == "what colour is the"
    assert question_type("What colour does the circle have?") == "what colour"
    assert question_type("How many circles are there?") == "how many"
    assert question_type("Of what?") == "none of the above"
