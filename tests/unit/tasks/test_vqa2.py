"""VQA v2.0 from files in the official format to a score, by the command line and by the task."""

import gzip
import json

import pytest

from vlbench.core.errors import CoverageError, DataError
from vlbench.engine.score import score_file
from vlbench.engine.source import load_task

IMAGES = [458752, 458752, 42]
QUESTIONS = [458752000, 458752001, 42000]
PEOPLE = [["net"] * 7 + ["Net.", "a net", "fence"], ["yes"] * 10, ["1"] * 3 + ["2"] * 4 + ["many"] * 3]
KINDS = [("other", "what is this"), ("yes/no", "is the"), ("number", "how many")]


def questions(subtype="val2014", **changes):
    asked = [
        {"image_id": image, "question": f"What is in {image}?", "question_id": number}
        for image, number in zip(IMAGES, QUESTIONS, strict=True)
    ]
    return {"info": {}, "task_type": "Open-Ended", "data_subtype": subtype, "questions": asked} | changes


def annotations(subtype="val2014", **changes):
    given = [
        {
            "question_type": question_type,
            "multiple_choice_answer": people[0],
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": place}
                for place, answer in enumerate(people, start=1)
            ],
            "image_id": image,
            "answer_type": answer_type,
            "question_id": number,
        }
        for image, number, people, (answer_type, question_type) in zip(IMAGES, QUESTIONS, PEOPLE, KINDS, strict=True)
    ]
    return {"info": {}, "data_subtype": subtype, "annotations": given} | changes


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def results(path, *answers):
    return write(path, [{"question_id": number, "answer": answer} for number, answer in answers])


@pytest.fixture
def root(tmp_path):
    """A data root as the official archives leave it, with its first three questions."""
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", questions())
    write(tmp_path / "v2_mscoco_val2014_annotations.json", annotations())
    return tmp_path


def opened(root, allow_partial=True):
    return load_task("vqa2", root, allow_partial=allow_partial)


def test_an_annotated_question_becomes_an_example(root):
    first, _, last = opened(root).load("val")
    assert (first.id, first.group, first.query.text) == ("458752000", "COCO_val2014_000000458752", "What is in 458752?")
    assert last.query.images[0].path == root / "val2014/COCO_val2014_000000000042.jpg"
    assert last.query.images[0].key == last.group == "COCO_val2014_000000000042"
    assert first.tags == {"answer_type": "other", "question_type": "what is this"}
    assert first.reference.answers == tuple(PEOPLE[0])
    assert first.reference.records == tuple(range(10))


def test_records_are_told_apart_by_all_but_their_answer(root):
    changed = annotations()
    answers = changed["annotations"][0]["answers"]
    answers[3].update(answer_id=1)
    answers[4].update(answer_id=1, answer_confidence="no")
    write(root / "v2_mscoco_val2014_annotations.json", changed)
    assert opened(root).load("val")[0].reference.records == (0, 1, 2, 0, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize("folders", [("questions", "annotations"), ("Questions", "Annotations")])
def test_files_lie_in_any_official_place(root, folders):
    inner = root / "vqa2"
    names = ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")
    for name, folder in zip(names, folders, strict=True):
        write(inner / folder / name, (root / name).read_bytes())
    task = opened(root)
    assert task.root == inner
    assert len(task.load("val")) == 3


@pytest.mark.parametrize("inner", ["", "vqa2"])
def test_images_may_lie_in_the_folder_that_tasks_share(root, inner):
    if inner:
        (root / inner).mkdir()
        for path in root.glob("*.json"):
            path.rename(root / inner / path.name)
    (root / "coco/val2014").mkdir(parents=True)
    assert opened(root).load("val")[2].query.images[0].path == root / "coco/val2014/COCO_val2014_000000000042.jpg"
    (root / inner / "images/val2014").mkdir(parents=True)
    own = root / inner / "images/val2014/COCO_val2014_000000000042.jpg"
    assert opened(root).load("val")[2].query.images[0].path == own


@pytest.mark.parametrize(("split", "subtype"), [("test", "test2015"), ("test-dev", "test-dev2015")])
def test_test_splits_have_questions_about_test_images_only(root, split, subtype):
    write(root / f"v2_OpenEnded_mscoco_{subtype}_questions.json", questions(subtype))
    first = opened(root).load(split)[0]
    assert first.query.images[0].path == root / "test2015/COCO_test2015_000000458752.jpg"
    assert (first.reference.answers, dict(first.tags)) == ((), {})


def test_lxmerts_lists_pick_questions_of_val(root):
    record = {"answer_type": "number", "img_id": "COCO_val2014_000000000042", "label": {"2": 1}, "sent": "How many?"}
    write(root / "minival.json", [record | {"question_id": 42000, "question_type": "how many"}])
    (example,) = opened(root).load("minival")
    assert (example.id, example.query.text, example.group) == ("42000", "How many?", "COCO_val2014_000000000042")
    assert example.reference.answers == tuple(PEOPLE[2])
    write(root / "nominival.json", [record | {"question_id": 42000, "img_id": "COCO_train2014_000000000042"}])
    with pytest.raises(DataError, match=r"nominival\.json, entry 1: 'img_id' is 'COCO_train2014_000000000042'"):
        opened(root).load("nominival")


def test_a_score_by_the_command_line(root, vlbench):
    answers = results(root / "results.json", (42000, "one"), (458752001, "Yes"), (458752000, "The net!"))
    done = vlbench("score", "--task", "vqa2", "--predictions", answers, "--data-root", root, "--split", "val",
                   "--allow-partial", "--json")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert (report["task"], report["split"], report["n"]) == ("vqa2", "val", 3)
    values = {name: score["value"] for name, score in report["scores"].items()}
    assert values == pytest.approx({"vqa_accuracy": 190 / 3, "vqa_simple": 200 / 3, "vqa_lenient": 290 / 3})
    assert {tag: {kind: part["vqa_accuracy"]["value"] for kind, part in parts.items()}
            for tag, parts in report["slices"].items()} == {
        "answer_type": {"other": 100, "yes/no": 0, "number": 90},
        "question_type": {"what is this": 100, "is the": 0, "how many": 90},
    }  # fmt: skip
    table = vlbench("score", "--task", "vqa2", "--predictions", answers, "--data-root", root, "--split", "val",
                    "--allow-partial")  # fmt: skip
    assert table.code == 0
    assert "63.33" in table.out
    assert "3 examples where 214,354 are expected" in table.out


def test_a_check_by_the_command_line(root, vlbench):
    done = vlbench("data", "check", "--task", "vqa2", "--data-root", root, "--json")
    report = json.loads(done.out)
    assert done.code == 5
    assert list(report["splits"]) == ["val"]
    found = report["splits"]["val"]
    assert (found["examples"], found["expected"], found["groups"], found["images"]) == (3, 214354, 2, 2)
    assert found["faults"] == ["3 examples where 214,354 are expected"]


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ([(42000, "1"), (458752001, "yes")], 7, "1 missing (458752000)"),
        ([(42000, "1"), (42000, "2"), (458752001, "yes"), (458752000, "net")], 7, "1 duplicate (42000)"),
        ([(42000, "1"), (458752001, "yes"), (458752000, "net"), (5, "x" * 10**5)], 7, "1 extra (5)"),
        ([(42000, 1)], 5, "'answer' is 1 where a string is expected"),
        ([("net", None)], 5, "'answer' is None where a string is expected"),
    ],
)
def test_faulty_results_end_without_a_score(root, answers, code, message):
    predictions = results(root / "results.json", *answers)
    with pytest.raises((CoverageError, DataError)) as caught:
        score_file(opened(root), "val", predictions)
    assert caught.value.exit_code == code
    assert message in caught.value.message
    assert len(caught.value.message) < 500


def test_long_answers_are_scored(root):
    predictions = results(root / "results.json", (42000, "2, " * 50_000), (458752001, "y" * 10**5), (458752000, "net"))
    assert score_file(opened(root), "val", predictions).results[0].value == pytest.approx(100 / 3)


def test_a_split_without_public_answers_is_not_scored(root, vlbench):
    write(root / "v2_OpenEnded_mscoco_test2015_questions.json", questions("test2015"))
    answers = results(root / "results.json", *((number, "yes") for number in QUESTIONS))
    done = vlbench("score", "--task", "vqa2", "--predictions", answers, "--data-root", root, "--split", "test",
                   "--allow-partial")  # fmt: skip
    assert (done.code, done.out) == (5, "")
    assert "3 of 3 questions have no answers to score against" in done.err


ASKED, GIVEN = questions()["questions"], annotations()["annotations"]


def without(content, key, entries="annotations"):
    del content[entries][1][key]
    return content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("questions", questions("train2014"), r"holds questions of 'train2014' where those of 'val2014' are expected"),
        ("annotations", annotations("train2014"), r"holds annotations of 'train2014' where those of 'val2014'"),
        ("questions", questions(questions=ASKED * 2), r"ids twice: 42000, 458752000, 458752001"),
        ("annotations", annotations(annotations=GIVEN * 2), r"annotation 4: question 458752000 has two"),
        ("annotations", annotations(annotations=GIVEN[1:]), r"question 458752000 .* no annotation"),
        ("questions", questions(questions=[ASKED[2] | {"image_id": 1}]), "has no annotation"),
        ("questions", questions(questions={}), r"questions\.json: 'questions' is \{\} where a JSON list"),
        ("questions", questions(questions=[]), r"split 'val' of vqa2 below .* is empty"),
        ("questions", questions(questions=[7]), r"question 1: 7 is found where a JSON object"),
        ("questions", without(questions(), "question", "questions"), r"question 2: 'question' is missing"),
        ("questions", without(questions(), "image_id", "questions"), r"question 2: 'image_id' is missing"),
        ("questions", [], r"is empty"),
        ("questions", b'"text"', r"questions\.json: 'text' is found where a JSON object"),
        ("annotations", [], r"annotations\.json: \[\] is found where a JSON object"),
        ("annotations", {"annotations": []}, r"'data_subtype' is missing"),
        ("annotations", without(annotations(), "answers"), r"annotation 2: 'answers' is missing where a JSON list"),
        ("annotations", without(annotations(), "answer_type"), r"annotation 2: 'answer_type' is missing"),
        ("annotations", b'{"data_subtype": "val2014", "annotations": [', r"annotations\.json: not JSON"),
        ("annotations", gzip.compress(b"{}", mtime=0), r"annotations\.json is compressed by gzip"),
    ],
)  # fmt: skip
def test_faults_of_the_files_are_named(root, name, content, message):
    stem = "v2_OpenEnded_mscoco_val2014_questions" if name == "questions" else "v2_mscoco_val2014_annotations"
    write(root / f"{stem}.json", content)
    with pytest.raises(DataError, match=message):
        opened(root).load("val")


@pytest.mark.parametrize("answers", [[], [{"answer": 3}], ["net"], [{"answer_id": 1}]])
def test_faults_of_answers_are_named(root, answers):
    changed = annotations()
    changed["annotations"][2]["answers"] = answers
    write(root / "v2_mscoco_val2014_annotations.json", changed)
    with pytest.raises(DataError, match=r"annotations\.json, annotation 3: .* expected"):
        opened(root).load("val")


def test_byte_order_marks_and_line_ends_do_not_count(root):
    for path in root.glob("*.json"):
        text = json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n", 40)
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(opened(root).load("val")) == 3


def test_another_number_of_questions_is_an_error(root):
    with pytest.raises(DataError, match=r"holds 3 examples where 214,354 are expected"):
        opened(root, allow_partial=False).load("val")
