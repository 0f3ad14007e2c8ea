from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vlbench._tasks.gqa.evidence import Evidence
from vlbench._tasks.gqa.questions import read_questions
from vlbench.world.exporters.gqa import SHARES, export
from vlbench.world.generate import FULL, TINY
from vlbench.world.language.question_sampling import ask_evenly
from vlbench.world.rng import stream
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import collect_photographs
from vlbench.world.scenes.scene import SPLITS, make_scenes

Record = dict[str, Any]
SCENES = {split: make_scenes(split, TINY.sets(split) * 8, seed=0) for split in SPLITS}
PHOTOGRAPHS = collect_photographs("gqa", SCENES, 0)
ANSWERED = ("val", "testdev")
COLOURS, SIZES = {"red", "green", "blue", "yellow"}, {"small", "big"}


def quiet(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gqa") / "gqa"
    counts = export(root, SCENES, 0, ImagePlan(), quiet)
    for split, count in counts.items():
        tier, kept = (
            split.removesuffix("_all"),
            "all" if split.endswith("_all") or split == "submission" else "balanced",
        )
        assert len(everything(root, tier, kept)) == count > 0, split
    return root


def everything(folder: Path, tier: str, kept: str = "all") -> dict[str, Record]:
    if (tier, kept) == ("train", "all"):
        shards = sorted((folder / "train_all_questions").iterdir())
        assert [shard.name for shard in shards] == [f"train_all_questions_{number}.json" for number in range(10)]
        return {name: record for shard in shards for name, record in json.loads(shard.read_text()).items()}
    return dict(json.loads((folder / f"{tier}_{kept}_questions.json").read_text()))


@dataclass(frozen=True)
class SceneGraph:
    """A scene graph read from its file; the answers below use its names, attributes and boxes only."""

    objects: dict[str, Record]

    def fits(self, name: str, object_: str) -> bool:
        return name in ("shape", "scene") or self.objects[object_]["name"] == name

    def place(self, object_: str, axis: str) -> int:
        start, extent = ("x", "w") if axis == "h" else ("y", "h")
        middle = float(str(self.objects[object_][start])) + float(str(self.objects[object_][extent])) / 2
        return int(middle // 16)

    def value(self, object_: str, attribute: str) -> str | None:
        if attribute in ("name", "shape"):
            return str(self.objects[object_]["name"])
        if attribute.endswith("position"):
            names = ("left", None, "right") if attribute[0] == "h" else ("top", None, "bottom")
            return names[self.place(object_, attribute[0])]
        allowed = COLOURS if attribute == "color" else SIZES
        (value,) = allowed & set(self.objects[object_]["attributes"])
        return str(value)

    def stands(self, one: str, relation: str, other: str) -> bool:
        axis, sign = {
            "to the left of": ("h", -1), "to the right of": ("h", 1), "above": ("v", -1), "below": ("v", 1),
        }[relation]  # fmt: skip
        return sign * (self.place(one, axis) - self.place(other, axis)) > 0

    def answer(self, operations: list[Record]) -> str:
        """Run a record's program, step by step."""
        results: list[Any] = []
        for step in operations:
            inputs = [results[number] for number in step["dependencies"]]
            results.append(self._step(str(step["operation"]), str(step["argument"]), inputs))
        return str(results[-1])

    def _step(self, operation: str, argument: str, inputs: list[Any]) -> object:
        verb, _, attribute = operation.partition(" ")
        name = re.sub(r" \(.*\)$", "", argument).split(",")[0]
        match verb:
            case "select":
                return [one for one in self.objects if self.fits(name, one)]
            case "relate":
                (anchor,), relation = inputs[0], argument.split(",")[1]
                return [one for one in self.objects if self.fits(name, one) and self.stands(one, relation, anchor)]
            case "filter":
                return [one for one in inputs[0] if self.value(one, attribute) == argument]
            case "exist":
                return "yes" if inputs[0] else "no"
            case "and" | "or":
                truths = [one == "yes" for one in inputs]
                return "yes" if (all(truths) if verb == "and" else any(truths)) else "no"
            case "query":
                (value,) = {self.value(one, argument) for one in inputs[0]}
                return value
        if attribute == "rel":
            ((one,), (other,)), relations = inputs, argument.split(",")[1].split("|")
            true = [relation for relation in relations if self.stands(one, relation, other)]
            return true[0] if verb == "choose" else "yes" if true else "no"
        if attribute == "bigger":
            (one,), (other,) = inputs
            return self.value(max(one, other, key=lambda each: self.objects[each]["w"]), "name")
        if verb in ("same", "different"):
            (one,), (other,) = inputs
            return "yes" if (self.value(one, attribute) == self.value(other, attribute)) == (verb == "same") else "no"
        values = {self.value(one, attribute) for one in inputs[0]}
        if verb == "choose":
            (value,) = values & set(argument.split("|"))
            return value
        assert verb == "verify"
        return "yes" if values == {argument} else "no"


@pytest.mark.parametrize("tier", ["train", "val"])
def test_the_programs_run_on_the_scene_graphs_give_every_answer(folder: Path, tier: str) -> None:
    graphs = json.loads((folder / f"{tier}_sceneGraphs.json").read_text())
    asked = everything(folder, tier)
    for name, record in asked.items():
        graph = graphs[record["imageId"]]
        assert SceneGraph(graph["objects"]).answer(record["semantic"]) == record["answer"], (name, record)
    operations = {step["operation"] for record in asked.values() for step in record["semantic"]}
    assert len(operations) > 20


def test_the_scene_graphs_are_those_of_the_images(folder: Path) -> None:
    graphs = json.loads((folder / "val_sceneGraphs.json").read_text())
    assert set(graphs) == {one.name for one in PHOTOGRAPHS["dev"]}
    for one in PHOTOGRAPHS["dev"]:
        graph = graphs[one.name]
        parsed = SceneGraph(graph["objects"])
        assert (graph["width"], graph["height"]) == (48, 48)
        boxes = [(o["x"], o["y"], o["x"] + o["w"], o["y"] + o["h"]) for o in graph["objects"].values()]
        assert boxes == [thing.box for thing in one.scene.things]
        for name, object_ in graph["objects"].items():
            related = {(relation["name"], relation["object"]) for relation in object_["relations"]}
            assert related == {
                (relation, other)
                for other in graph["objects"]
                for relation in ("to the left of", "to the right of", "above", "below")
                if parsed.stands(name, relation, other)
            }


def test_records_have_the_official_fields(folder: Path, shared_data: Path) -> None:
    real = json.loads((shared_data / "gqa_sample" / "val_balanced_questions.json").read_text())
    official = next(iter(real.values()))
    for record in everything(folder, "val").values():
        assert {name: type(value) for name, value in record.items()} == {
            name: type(value) for name, value in official.items()
        }
        for part in ("types", "groups", "annotations"):
            assert set(record[part]) == set(official[part])
        for step in record["semantic"]:
            assert set(step) == set(official["semantic"][0])


@pytest.mark.parametrize("tier", ["train", *ANSWERED])
def test_the_balanced_questions_are_those_among_all_and_half_of_them(folder: Path, tier: str) -> None:
    asked = everything(folder, tier)
    balanced = everything(folder, tier, "balanced")
    assert balanced == {name: record for name, record in asked.items() if record["isBalanced"]}
    assert 1.7 * len(balanced) < len(asked) < 3 * len(balanced)
    assert all(re.fullmatch(r"\d{8,9}", name) for name in asked)
    assert all(name.startswith("0") for name in asked) == (tier == "train")
    images = {one.name for split in SPLITS for one in PHOTOGRAPHS[split]}
    assert {record["imageId"] for record in asked.values()} <= images


@pytest.mark.parametrize("tier", ["train", *ANSWERED])
def test_balanced_texts_and_global_groups_have_even_answers(folder: Path, tier: str) -> None:
    by: dict[str, dict[object, Counter[object]]] = {"text": defaultdict(Counter), "group": defaultdict(Counter)}
    for record in everything(folder, tier, "balanced").values():
        by["text"][record["question"]][record["answer"]] += 1
        by["group"][record["groups"]["global"]][record["answer"]] += 1
    for counts in (*by["text"].values(), *(by["group"][group] for group in ("color", "shape", "size", "position"))):
        assert len(counts) > 1 and len(set(counts.values())) == 1, counts
    assert set(by["group"]) == {None, "color", "shape", "size", "position"}


def test_all_structural_and_semantic_types_are_there_in_their_shares() -> None:
    scenes = {split: make_scenes("dev", FULL.dev * 8, seed=1) if split == "dev" else [] for split in SPLITS}
    asked = list(ask_evenly(collect_photographs("gqa", scenes, 1)["dev"], SHARES, 3000, stream("test")))
    kinds = Counter(one.kind for one in asked)
    assert sum(SHARES.values()) == 100
    for kind, share in SHARES.items():
        assert 100 * kinds[kind] / kinds.total() == pytest.approx(share, abs=1.5), kind


def test_the_five_structural_and_five_semantic_types_occur(folder: Path) -> None:
    types = [record["types"] for record in everything(folder, "train", "balanced").values()]
    structural = Counter(one["structural"] for one in types)
    assert set(structural) == {"verify", "query", "choose", "logical", "compare"}
    assert {one["semantic"] for one in types} == {"obj", "attr", "rel", "cat", "global"}
    assert 0.3 < structural["query"] / structural.total() < 0.5


@pytest.mark.parametrize("tier", ["train", *ANSWERED])
def test_entailed_and_equivalent_questions_are_asked_about_the_same_image(folder: Path, tier: str) -> None:
    asked, following = everything(folder, tier), 0
    for name, record in asked.items():
        assert name in record["equivalent"] and name not in record["entailed"]
        for other in (*record["entailed"], *record["equivalent"]):
            assert asked[other]["imageId"] == record["imageId"]
        for other in record["equivalent"]:
            assert (asked[other]["semantic"], asked[other]["answer"]) == (record["semantic"], record["answer"])
            assert other == name or other in record["entailed"]
        following += len(record["entailed"]) > 0
    assert following > 0.4 * len(asked)


def test_annotated_words_name_their_objects(folder: Path) -> None:
    graphs = json.loads((folder / "val_sceneGraphs.json").read_text())
    spans = 0
    for record in everything(folder, "val").values():
        objects = graphs[record["imageId"]]["objects"]
        for part, text in (("question", record["question"]), ("fullAnswer", record["fullAnswer"])):
            words = re.sub("[?.,]", "", str(text).lower()).split()
            for word, object_ in record["annotations"][part].items():
                noun = words[int(word)].removesuffix("s")
                assert noun in (objects[object_]["name"], "shape", "object", "thing", "something"), (record, part)
                spans += 1
        for object_ in record["annotations"]["answer"].values():
            assert objects[object_]["name"] == record["answer"]
    assert spans > 500


def test_full_answers_say_the_answer(folder: Path) -> None:
    for record in everything(folder, "train").values():
        sentence, answer = str(record["fullAnswer"]), str(record["answer"])
        assert re.fullmatch(r"[A-Z][a-z ,]+\.", sentence) and "  " not in sentence
        if answer in ("yes", "no"):
            assert sentence.lower().startswith(f"{answer},")
        else:
            assert answer in sentence, record


@pytest.mark.parametrize("tier", ANSWERED)
def test_answers_are_among_the_choices(folder: Path, tier: str) -> None:
    choices = json.loads((folder / f"{tier}_choices.json").read_text())
    asked = everything(folder, tier)
    assert set(choices) == set(asked)
    for name, record in asked.items():
        assert record["answer"] in choices[name]["plausible"]
        assert set(choices[name]["plausible"]) <= set(choices[name]["valid"])


def test_what_is_not_public_has_no_answers(folder: Path) -> None:
    asked = everything(folder, "test")
    assert everything(folder, "submission") == everything(folder, "challenge") == asked
    assert everything(folder, "challenge", "balanced") == everything(folder, "test", "balanced")
    for record in asked.values():
        assert set(record) == {"question", "imageId", "isBalanced"}


@pytest.mark.parametrize("tier", ANSWERED)
def test_the_task_reads_what_is_written(folder: Path, tier: str) -> None:
    path = folder / f"{tier}_balanced_questions.json"
    read = {question.id: question for question in read_questions(path, True, Evidence({}, {}))}
    written = everything(folder, tier, "balanced")
    assert {name: question.answer.answer for name, question in read.items()} == {
        name: record["answer"] for name, record in written.items()
    }
    assert {question.tags["structural"] for question in read.values()} >= {"verify", "query", "choose"}


def test_the_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    export(tmp_path, SCENES, 0, ImagePlan(), quiet)
    assert {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.json")} == {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")
    }
