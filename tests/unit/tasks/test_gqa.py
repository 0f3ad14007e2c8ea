"""GQA from files in the official format to a score, by the command line and by the task."""

import gzip
import json

import pytest
from pydantic import TypeAdapter

from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example
from vlbench.data.text.answers import read_answers
from vlbench.engine.score import score_file
from vlbench.engine.source import load_task

BARE = ("question", "imageId", "isBalanced")


def record(question, image, answer, structural, program, balanced=True, group=None, entailed=(), spans=({}, {})):
    operations = [step.split(": ") for step in program.split(" -> ")]
    return {
        "question": question,
        "imageId": image,
        "isBalanced": balanced,
        "answer": answer,
        "fullAnswer": answer,
        "semantic": [{"operation": step, "argument": argument, "dependencies": []} for step, argument in operations],
        "semanticStr": program,
        "types": {"structural": structural, "semantic": "rel", "detailed": "existRelS"},
        "groups": {"global": group, "local": "13-dog"},
        "entailed": list(entailed),
        "equivalent": [],
        "annotations": {"answer": {}, "question": spans[0], "fullAnswer": spans[1]},
    }


def records():
    """Two balanced questions, the first entailing the others, and one that is not balanced."""
    seen = {"2": "7", "5:7": "8"}, {"1": "7"}
    return {
        "00126851": record("Is a dog near the pond?", "2375429", "yes", "verify",
                           "select: pond (8) -> relate: dog,near,s (7) -> exist: ?",
                           entailed=["00126851", "00126852", "7"], spans=seen),
        "00126852": record("What is near the pond?", "2375429", "dog", "query",
                           "select: pond (8) -> relate: dog,near,s (7) -> query: name", group="animal"),
        "7": record("Is it dark?", "n411121", "no", "verify", "select: scene -> verify: dark", balanced=False),
    }  # fmt: skip


CHOICES = {
    "00126851": {"valid": ["yes", "no"], "plausible": ["yes", "no"]},
    "00126852": {"valid": ["dog", "cat", "pond"], "plausible": ["dog", "cat"]},
}
GRAPHS = {
    "2375429": {
        "width": 500,
        "height": 400,
        "objects": {
            "7": {"name": "dog", "x": 50, "y": 100, "w": 100, "h": 200, "attributes": [], "relations": []},
            "8": {"name": "pond", "x": 0, "y": 0.5, "w": 500, "h": 40},
        },
    }
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def results(path, **answers):
    return write(path, [{"questionId": name.removeprefix("q"), "prediction": said} for name, said in answers.items()])


@pytest.fixture
def root(tmp_path):
    """A data root as the official archives leave it, with three questions of val."""
    balanced = {name: asked for name, asked in records().items() if asked["isBalanced"]}
    write(tmp_path / "questions1.2/val_balanced_questions.json", balanced)
    write(tmp_path / "questions1.2/val_all_questions.json", records())
    write(tmp_path / "eval/val_choices.json", CHOICES)
    write(tmp_path / "sceneGraphs/val_sceneGraphs.json", GRAPHS)
    return tmp_path


def opened(root, allow_partial=True):
    return load_task("gqa", root, allow_partial=allow_partial)


def test_a_balanced_question_becomes_an_example(root):
    first, second = opened(root).load("val")
    assert (first.id, first.group, first.query.text) == ("00126851", "2375429", "Is a dog near the pond?")
    (ref,) = first.query.images
    assert (ref.path, ref.key) == (root / "images/2375429.jpg", "2375429")
    assert first.tags == {
        "structural": "verify", "semantic": "rel", "detailed": "existRelS", "length": "6", "steps": "2"
    }  # fmt: skip
    assert second.tags == first.tags | {"structural": "query", "length": "5", "global": "animal"}
    dog, pond = (0.1, 0.25, 0.2, 0.5), (0.0, 0.00125, 1.0, 0.1)
    assert first.reference == GqaAnswer(
        answer="yes",
        is_balanced=True,
        structural="verify",
        detailed="existRelS",
        entailed=("00126852", "7"),
        valid=("yes", "no"),
        plausible=("yes", "no"),
        boxes=(dog, pond, dog),
    )
    assert (second.reference.global_group, second.reference.boxes) == ("animal", ())


def test_other_questions_keep_their_answer_only(root):
    *_, last = opened(root).load("val_all")
    assert (last.id, last.query.images[0].key) == ("7", "n411121")
    assert last.reference == GqaAnswer("no", False, "verify")
    assert not last.tags


def test_evidence_need_not_be_there(root):
    (root / "eval/val_choices.json").unlink()
    first, _ = opened(root).load("val")
    assert (first.reference.valid, first.reference.plausible, len(first.reference.boxes)) == (None, None, 3)
    write(root / "sceneGraphs/val_sceneGraphs.json", {})
    assert opened(root).load("val")[0].reference.boxes is None
    write(root / "eval/val_choices.json", {"00126852": CHOICES["00126852"]})
    first, second = opened(root).load("val")
    assert (first.reference.valid, second.reference.plausible) == (None, ("dog", "cat"))


def test_an_object_that_no_scene_graph_has_leaves_no_boxes(root):
    graphs = json.loads(json.dumps(GRAPHS))
    del graphs["2375429"]["objects"]["8"]
    write(root / "sceneGraphs/val_sceneGraphs.json", graphs)
    assert [example.reference.boxes for example in opened(root).load("val")] == [None, ()]


def test_examples_can_be_written_and_read_by_their_type(root):
    kind = TypeAdapter(list[Example[GqaAnswer]])
    examples = opened(root).load("val_all")
    assert kind.validate_json(kind.dump_json(examples)) == examples


@pytest.mark.parametrize("inner", ["", "gqa"])
@pytest.mark.parametrize("folder", ["", "questions", "questions1.2"])
def test_files_lie_in_any_official_place(tmp_path, inner, folder):
    home = tmp_path / inner
    write(home / folder / "val_balanced_questions.json", records())
    write(home / "val_choices.json", CHOICES)
    write(home / "val_sceneGraphs.json", GRAPHS)
    task = opened(tmp_path)
    first = task.load("val")[0]
    assert (task.root, len(first.reference.valid), len(first.reference.boxes)) == (home, 2, 3)
    (tmp_path / "vg/images").mkdir(parents=True)
    assert task.load("val")[0].query.images[0].path == tmp_path / "vg/images/2375429.jpg"


@pytest.mark.parametrize("split", ["test", "challenge", "test_all", "challenge_all", "submission"])
def test_splits_without_public_answers_have_questions_only(root, split, vlbench):
    stem = {"submission": "submission_all"}.get(split, split if split.endswith("_all") else f"{split}_balanced")
    asked = {name: {key: given[key] for key in BARE} for name, given in records().items()}
    write(root / f"questions/{stem}_questions.json", asked)
    first, _, last = opened(root).load(split)
    assert (first.id, first.query.text, first.reference, dict(first.tags)) == (
        "00126851", "Is a dog near the pond?", GqaAnswer("", True), {},
    )  # fmt: skip
    assert last.reference == GqaAnswer("", False)
    answers = results(root / "results.json", q00126851="yes", q00126852="dog", q7="no")
    done = vlbench("score", "--task", "gqa", "--predictions", answers, "--data-root", root, "--split", split,
                   "--allow-partial")  # fmt: skip
    assert (done.code, done.out) == (5, "")
    assert "3 of 3 questions have no answers to score against" in done.err


def shards(root, numbers=range(10)):
    for number in numbers:
        asked = {f"{number}{name}": given for name, given in records().items()}
        write(root / f"train_all_questions/train_all_questions_{number}.json", asked)


def test_train_all_comes_in_shards_or_in_one_file(root):
    shards(root / "questions1.2")
    names = [f"{number}{name}" for number in range(10) for name in records()]
    assert [example.id for example in opened(root).load("train_all")] == names
    write(root / "train_all_questions.json", records())
    assert [example.id for example in opened(root).load("train_all")] == list(records())


def test_a_missing_shard_is_named(root):
    shards(root, [0, 1, 2, 4, 5, 6, 7, 9])
    with pytest.raises(DataError, match=r"lacks train_all_questions_3\.json, train_all_questions_8\.json: expected 10"):
        opened(root).load("train_all")


def test_a_question_in_two_shards_is_named(root):
    shards(root)
    write(root / "train_all_questions/train_all_questions_9.json", {"200126852": records()["00126852"]})
    with pytest.raises(DataError, match="holds ids twice: 200126852"):
        opened(root).load("train_all")


def test_a_score_by_the_command_line(root, vlbench):
    answers = results(root / "results.json", q7="yes", q00126852="cat", q00126851="yes")
    arguments = ("score", "--task", "gqa", "--predictions", answers, "--data-root", root, "--split", "val_all")
    assert vlbench(*arguments).code == 5, "the split is not whole"
    arguments = (*arguments, "--allow-partial")
    done = vlbench(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert (report["task"], report["split"], report["n"]) == ("gqa", "val_all", 3)
    assert {name: (score["value"], score["n"]) for name, score in report["scores"].items()} == {
        "accuracy": (50, 2), "binary": (100, 1), "open": (0, 1), "validity": (100, 2), "plausibility": (100, 2),
        "consistency": (0, 1), "distribution": (0.01, 1),
    }  # fmt: skip
    assert report["slices"]["structural"].keys() == {"verify", "query"}
    assert report["slices"]["steps"]["2"]["accuracy"]["value"] == 50
    assert report["slices"].keys() == {"structural", "semantic", "detailed", "length", "steps"}
    table = vlbench(*arguments)
    assert table.code == 0
    assert "grounding is absent: predictions carry no attention" in table.out


def test_balanced_questions_alone_leave_consistency_out(root):
    report = score_file(opened(root), "val", results(root / "results.json", q00126852="dog", q00126851="no"))
    values = {result.metric: result.value for result in report.results}
    assert values == {"accuracy": 50, "binary": 0, "open": 100, "validity": 100, "plausibility": 100, "distribution": 0}
    assert any("consistency is absent: 1 questions" in note and "val_all" in note for note in report.notes)


def test_a_check_by_the_command_line(root, vlbench):
    (root / "eval/val_choices.json").unlink()
    done = vlbench("data", "check", "--task", "gqa", "--data-root", root, "--allow-partial", "--json")
    report = json.loads(done.out)
    assert done.code == 0
    found = {
        name: [split[key] for key in ("examples", "groups", "expected")] for name, split in report["splits"].items()
    }
    assert found == {"val": [2, 1, 132_062], "val_all": [3, 2, 2_011_853]}
    write(root / "testdev_balanced_questions.json", records())
    done = vlbench("data", "check", "--task", "gqa", "--data-root", root, "--split", "testdev", "--json")
    assert done.code == 5
    assert json.loads(done.out)["splits"]["testdev"]["faults"] == ["3 examples where 12,578 are expected"]


def test_leading_zeros_tell_questions_apart(root):
    write(root / "questions1.2/val_balanced_questions.json", {"07": records()["00126851"], "7": records()["00126852"]})
    task = opened(root)
    assert [example.id for example in task.load("val")] == ["07", "7"]
    assert score_file(task, "val", results(root / "r.json", q7="dog", q07="yes")).results[0].value == 100
    with pytest.raises(CoverageError, match=r"1 missing \(07\), 1 extra \(007\)"):
        score_file(task, "val", results(root / "r.json", q7="dog", q007="yes"))
    with pytest.raises(CoverageError, match=r"1 missing \(07\), 1 duplicate \(7\)"):
        score_file(task, "val", write(root / "r.json", [{"questionId": 7, "prediction": "dog"}] * 2))


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ({"q7": "no", "q00126851": "yes"}, 7, "1 missing (00126852)"),
        ({"q7": "no", "q00126851": "yes", "q00126852": "dog", "q5": "x" * 10**5}, 7, "1 extra (5)"),
        ({"q7": 1}, 5, "'prediction' is 1 where a string is expected"),
    ],
)
def test_faulty_results_end_without_a_score(root, answers, code, message):
    with pytest.raises((CoverageError, DataError)) as caught:
        score_file(opened(root), "val_all", results(root / "results.json", **answers))
    assert caught.value.exit_code == code
    assert message in caught.value.message
    assert len(caught.value.message) < 500


def changed(*path_and_value):
    """The records with one value of the first one replaced, or taken out where it is None."""
    content = records()
    *path, key, value = path_and_value
    inner = content["00126851"]
    for step in path:
        inner = inner[step]
    if value is None:
        del inner[key]
    else:
        inner[key] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((changed(key, None), rf"questions\.json, question '00126851': '{key}' is missing")
          for key in ("question", "imageId", "isBalanced", "answer", "types", "groups", "entailed", "annotations")),
        *((changed("types", key, None), rf"question '00126851': '{key}' is missing")
          for key in ("structural", "semantic", "detailed")),
        (changed("semantic", None), "'semantic' is missing where a JSON list"),
        (changed("isBalanced", "true"), "'isBalanced' is 'true' where true or false is expected"),
        (changed("answer", 3), "'answer' is 3 where a string"),
        (changed("imageId", "../2375429"), "'imageId' is '../2375429' where the name of one folder"),
        (changed("types", "structural", "other"), '\'structural\' is \'other\' where "verify" or "query" or'),
        (changed("groups", "global", 4), r"'global' is \[4\] where strings only"),
        (changed("entailed", ["1", 2]), r"'entailed' is \['1', 2\] where strings only"),
        (changed("semantic", ["exist"]), r"'exist' is found where a JSON object"),
        (changed("semantic", [{"operation": "exist"}]), r"'argument' is missing"),
        (changed("annotations", "question", {"1": ["7"]}), r"'annotations' is \[\['7'\]\] where strings only"),
        (changed("annotations", "fullAnswer", None), r"'fullAnswer' is missing"),
        ({"1": 7}, r"question '1': 7 is found where a JSON object"),
        ({}, r"split 'val' of gqa below .* is empty"),
        ([], r"questions\.json: not JSON \(a JSON object is expected"),
        (b'{"1": {', r"questions\.json: not JSON \(.* at character 7\)"),
        (b'{"1": {}, "1": {}}', r"question '1': 'imageId' is missing"),
        (gzip.compress(b"{}", mtime=0), r"questions\.json is compressed by gzip"),
    ],
)  # fmt: skip
def test_faults_of_questions_are_named(root, content, message):
    write(root / "questions1.2/val_balanced_questions.json", content)
    with pytest.raises(DataError, match=message):
        opened(root).load("val")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("eval/val_choices", {"1": {"valid": []}}, r"choices\.json, question '1': 'plausible' is missing"),
        ("eval/val_choices", {"1": {"valid": "yes", "plausible": []}}, r"'valid' is 'yes' where a JSON list"),
        ("eval/val_choices", {"1": {"valid": [1], "plausible": []}}, r"'valid' is \[1\] where strings only"),
        ("sceneGraphs/val_sceneGraphs", {"p": {"width": 0, "height": 4}}, r"Graphs\.json, image 'p': .* has 0 x 4"),
        ("sceneGraphs/val_sceneGraphs", {"p": {"width": 9}}, r"'height' is missing where a number"),
        ("sceneGraphs/val_sceneGraphs", {"p": {"width": True, "height": 4}}, r"'width' is True where a number"),
        ("sceneGraphs/val_sceneGraphs", {"p": {"width": 1, "height": 4}}, r"'objects' is missing"),
        ("sceneGraphs/val_sceneGraphs", {"p": {"width": 1, "height": 4, "objects": {"7": {"x": 1}}}},
         r"image 'p', object '7': 'y' is missing"),
        ("sceneGraphs/val_sceneGraphs", [], r"Graphs\.json: not JSON \(a JSON object is expected"),
    ],
)  # fmt: skip
def test_faults_of_the_evidence_are_named(root, name, content, message):
    write(root / f"{name}.json", content)
    with pytest.raises(DataError, match=message):
        opened(root).load("val")


def test_a_question_asked_twice_is_named(root):
    text = json.dumps(records())
    write(root / "questions1.2/val_all_questions.json", (text[:-1] + ", " + text[1:]).encode())
    with pytest.raises(DataError, match="holds the key '00126851' twice"):
        opened(root).load("val_all")


def test_byte_order_marks_and_line_ends_do_not_count(root):
    expected = opened(root).load("val_all")
    for path in root.rglob("*.json"):
        text = json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n", 40)
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert opened(root).load("val_all") == expected


def test_the_real_records_score(shared_data, tmp_path):
    task = load_task("gqa", shared_data / "gqa_sample", allow_partial=True)
    examples = task.load("val")
    assert [example.id for example in examples][:2] == ["00126851", "00137872"]
    assert all(example.query.images[0].path.is_file() for example in examples)
    given = {example.id: example.reference.answer for example in examples} | {"00137872": "cameras"}
    report = score_file(task, "val", results(tmp_path / "r.json", **given))
    values = {result.metric: (result.value, result.n) for result in report.results}
    assert values == {"accuracy": (80, 5), "binary": (100, 3), "open": (50, 2), "distribution": (0.005, 2)}
    assert report.notes[0] == "split 'val' of gqa holds 5 examples where 132,062 are expected"
    assert len(report.notes) == 4
    first = examples[0]
    assert (first.tags["length"], first.tags["steps"], examples[1].tags["steps"]) == ("6", "2", "3")
    assert first.reference == GqaAnswer("yes", True, "verify", "existRelS")
    assert examples[1].reference.entailed == ("00137861", "00137875", "00137871")


def test_the_list_of_answers_in_use_is_read(shared_data):
    assert len(read_answers(shared_data / "answers/gqa_1842.json")) == 1842
