"""GQA's metrics against plain procedures over records in the official format, which share nothing with them."""

import doctest
import json
import random
from collections import Counter

import pytest

from vlbench._tasks.gqa import metric
from vlbench._tasks.gqa.attention import attention_grounding
from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example, Query, is_answered
from vlbench.core.results import MetricAbsentError, Prediction
from vlbench.engine.source import load_task
from vlbench.metrics.scoring import score

ANSWERS = ["yes", "no", "red", "Red", "wood", "color", "material", "dog", "t-shirt", "left"]
OPERATIONS = [("select", "dog (1)"), ("exist", "?"), ("query", "name"), ("query", "color"), ("choose name", "dog|cat")]
OPERATIONS += [("relate", "dog,on,s (2)"), ("filter color", "red"), ("verify exist", "?"), ("choose", "name")]
MEANS = ("accuracy", "binary", "open", "validity", "plausibility", "consistency")


def record(toss, names, image):
    spans = [{str(place): toss.choice("123") for place in range(toss.randint(0, 3))} for _ in range(2)]
    kind = toss.choice(["relS", "twoCommon", "attrC"])
    kinds = {"structural": toss.choice(["verify", "query", "choose", "logical", "compare"]), "detailed": kind}
    return {
        "question": " ".join(["Is"] * toss.randint(1, 12)) + toss.choice(["", "  ", "?"]),
        "imageId": image,
        "isBalanced": toss.random() < 0.4,
        "answer": toss.choice(ANSWERS),
        "types": kinds | {"semantic": toss.choice(["obj", "attr", "rel", "cat", "global"])},
        "groups": {"global": toss.choice([None, "color", "dog", "place"]), "local": None},
        "entailed": toss.choices(names, k=toss.choice([0, 0, 1, 3])),
        "semantic": [
            {"operation": operation, "argument": argument, "dependencies": []}
            for operation, argument in toss.choices(OPERATIONS, k=toss.randint(1, 6))
        ],
        "annotations": {"answer": {}, "question": spans[0], "fullAnswer": spans[1]},
    }


def graph(toss):
    width, height = toss.randint(300, 600), toss.randint(300, 600)
    things = {
        name: {"x": toss.randint(0, 200), "y": toss.randint(0, 200), "w": toss.randint(1, 99), "h": toss.randint(0, 99)}
        for name in "123"
    }
    return {"width": width, "height": height, "objects": things}


class Drawn:
    """Records, choices, scene graphs and answers drawn at random, and the task over files that hold them."""

    def __init__(self, root, count=700, seed=4):
        toss = random.Random(seed)
        names = [f"{number:05d}" for number in range(count)]
        images = [f"n{number}" for number in range(count // 8)]
        self.records = {name: record(toss, names, toss.choice(images)) for name in names}
        self.choices = {
            name: {"valid": toss.sample(ANSWERS, 5), "plausible": toss.sample(ANSWERS, 3)} for name in names
        }
        self.graphs = {image: graph(toss) for image in images}
        self.given = {
            name: record["answer"] if toss.random() < 0.6 else toss.choice([*ANSWERS, "nonsense"])
            for name, record in self.records.items()
        }
        self.attention = {name: [[toss.random() for _ in range(7)] for _ in range(7)] for name in names}
        for stem, content in (("all_questions", self.records), ("choices", self.choices), ("sceneGraphs", self.graphs)):
            (root / f"val_{stem}.json").write_text(json.dumps(content))
        self.task = load_task("gqa", root, allow_partial=True)
        self.examples = self.task.load("val_all")
        self.predictions = [Prediction(name, answer) for name, answer in self.given.items()]
        self.balanced = {name: record for name, record in self.records.items() if record["isBalanced"]}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return Drawn(tmp_path_factory.mktemp("gqa"))


def percent(values):
    values = list(values)
    return 100 * sum(values) / len(values)


def official(drawn):
    """The official procedure: question by question over the balanced ones."""
    scores = {name: [] for name in MEANS}
    gold, said = {}, {}
    for name, asked in drawn.balanced.items():
        answer, predicted = asked["answer"], drawn.given[name]
        correct = 1.0 if predicted == answer else 0.0
        scores["accuracy"].append(correct)
        scores["open" if asked["types"]["structural"] == "query" else "binary"].append(correct)
        for kind, key in (("validity", "valid"), ("plausibility", "plausible")):
            allowed = drawn.choices[name][key]
            if "Common" in asked["types"]["detailed"]:
                allowed = ["color", "material", "shape"]
            scores[kind].append(1.0 if predicted in allowed else 0.0)
        inferred = [other for other in asked["entailed"] if other != name]
        if correct and inferred:
            hits = [1.0 if drawn.given[other] == drawn.records[other]["answer"] else 0.0 for other in inferred]
            scores["consistency"].append(sum(hits) / len(hits))
        group = asked["groups"]["global"]
        if group is not None:
            gold.setdefault(group, Counter())[answer] += 1
            said.setdefault(group, Counter())[predicted] += 1
    return {name: percent(values) for name, values in scores.items()} | {"distribution": chi_square(gold, said)}


def chi_square(gold, said):
    total, weight = 0.0, 0
    for group, answers in gold.items():
        chi = 0.0
        for answer, expected in answers.items():
            chi += (said[group].get(answer, 0) - expected) ** 2 / expected
        total += chi * sum(answers.values())
        weight += sum(answers.values())
    return total / weight / 100


def test_the_official_procedure_gives_the_same(drawn):
    expected = official(drawn)
    found = {name: drawn.task.metric(name)(drawn.predictions, drawn.examples) for name in expected}
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected, rel=1e-12)
    assert all(expected[name] not in (0, 100) for name in MEANS), "the drawn answers do not tell measures apart"
    assert [found[name].name for name in expected] == list(expected)
    assert found["accuracy"].n == len(drawn.balanced) == found["binary"].n + found["open"].n == found["validity"].n
    assert found["consistency"].n < found["accuracy"].n
    assert all(found[name].higher_is_better for name in MEANS)
    assert (found["distribution"].higher_is_better, found["distribution"].ci95) == (False, None)
    groups = {record["imageId"] for record in drawn.balanced.values()}
    assert f"over {len(groups)} groups" in found["accuracy"].method


def test_slices_hold_balanced_questions_only(drawn):
    tags = drawn.task.card.slices
    (result,) = score({"accuracy": metric.accuracy}, "accuracy", tags, drawn.predictions, drawn.examples).results
    found = {tag: {kind: (part.value, part.n) for kind, part in result.slices[tag].items()} for tag in tags}
    kinds = {
        "structural": lambda asked: asked["types"]["structural"],
        "semantic": lambda asked: asked["types"]["semantic"],
        "detailed": lambda asked: asked["types"]["detailed"],
        "length": lambda asked: str(len(asked["question"].split())),
        "steps": official_steps,
    }
    for tag, kind in kinds.items():
        parts = {}
        for name, asked in drawn.balanced.items():
            parts.setdefault(kind(asked), []).append(drawn.given[name] == asked["answer"])
        assert found[tag] == {value: (pytest.approx(percent(right)), len(right)) for value, right in parts.items()}


def official_steps(asked):
    said = ["{operation}: {argument}".format(**operation) for operation in asked["semantic"]]
    return str(
        len([one for one in said if "exist" not in one and "query: name" not in one and "choose name" not in one])
    )


def test_attention_is_held_against_boxes(drawn):
    examples = drawn.examples
    expected = []
    for name, asked in drawn.balanced.items():
        graph, spans = drawn.graphs[asked["imageId"]], asked["annotations"]
        total = 0.0
        for thing in [*spans["question"].values(), *spans["fullAnswer"].values()]:
            box = graph["objects"][thing]
            left, top = box["x"] / graph["width"], box["y"] / graph["height"]
            right, bottom = (box["x"] + box["w"]) / graph["width"], (box["y"] + box["h"]) / graph["height"]
            for i in range(7):
                for j in range(7):
                    wide = max(0, min(right, (i + 1) / 7) - max(left, i / 7))
                    high = max(0, min(bottom, (j + 1) / 7) - max(top, j / 7))
                    total += drawn.attention[name][i][j] * wide * high * 49
        expected.append(total)
    found = attention_grounding(drawn.attention, examples)
    assert (found.value, found.n) == (pytest.approx(percent(expected)), len(expected))
    with pytest.raises(CoverageError, match="1 questions have no attention map"):
        attention_grounding(drawn.attention, [*examples, asked_about("x")])
    with pytest.raises(DataError, match=r"'x' has shape \(7,\): expected 7 x 7"):
        attention_grounding({"x": [1.0] * 7}, [asked_about("x", boxes=())])
    with pytest.raises(MetricAbsentError, match="no boxes: add its image's scene graph"):
        attention_grounding({"x": [[0.0] * 7] * 7}, [asked_about("x")])


def test_order_does_not_count(drawn):
    toss = random.Random(9)
    for name in (*MEANS, "distribution"):
        measure = drawn.task.metric(name)
        shuffled = [toss.sample(items, len(items)) for items in (drawn.predictions, drawn.examples)]
        assert measure(*shuffled) == measure(drawn.predictions, drawn.examples)


def asked_about(name, answer="yes", structural="verify", balanced=True, image="p", **evidence):
    return Example(name, Query((), "?"), GqaAnswer(answer, balanced, structural, **evidence), image)


def say(*answers):
    return [Prediction(str(number), answer) for number, answer in enumerate(answers)]


def test_answers_must_be_equal_letter_for_letter():
    examples = [asked_about(str(number)) for number in range(4)]
    assert metric.accuracy(say("yes", "Yes", "yes ", "yes."), examples).value == 25
    unparsed = [Prediction("0", "yes", status="unparsed"), *say("no", "yes", "yes", "yes")[1:]]
    assert metric.accuracy(unparsed, examples).per_example == {"0": 0, "1": 1, "2": 1, "3": 1}


def test_an_answer_that_could_not_be_read_is_no_answer():
    failed = [Prediction("0", "red", status="error")]
    examples = [asked_about("0", "red", "query", valid=("red",), plausible=("red",), global_group="color")]
    assert metric.validity(failed, examples).value == 0
    assert metric.distribution(failed, examples).value == pytest.approx(0.01)


def test_what_is_common_has_choices_of_its_own():
    examples = [asked_about("0", "color", detailed="twoCommon", valid=("red",), plausible=())]
    assert [metric.validity(say(answer), examples).value for answer in ("red", "shape")] == [0, 100]
    assert [metric.plausibility(say(answer), examples).value for answer in ("red", "material")] == [0, 100]


def test_entailed_questions_that_are_not_balanced_count_for_consistency():
    examples = [
        asked_about("0", entailed=("1", "2")),
        asked_about("1", balanced=False),
        asked_about("2", balanced=False),
    ]
    assert metric.consistency(say("yes", "yes", "no"), examples).value == 50
    nothing_right = metric.consistency(say("no", "yes", "yes"), examples)
    assert (nothing_right.value, nothing_right.n, nothing_right.stderr) == (0, 0, None)


@pytest.mark.parametrize("name", [*MEANS, "distribution"])
@pytest.mark.parametrize(
    ("predictions", "count", "message"),
    [
        (say("yes"), 3, r"2 missing \(1, 2\)"),
        (say("yes", "yes"), 1, r"1 extra \(1\)"),
        ([*say("yes"), *say("yes", "no")], 2, r"1 duplicate \(0\)"),
        ([], 0, "there are no examples"),
    ],
)
def test_ids_must_match(drawn, name, predictions, count, message):
    with pytest.raises(CoverageError, match=message):
        drawn.task.metric(name)(
            predictions, [asked_about(str(number), balanced=number == 0) for number in range(count)]
        )


def test_answers_that_are_right_nowhere_do_not_count_for_the_distribution():
    asked = zip("aabc", ["one", "one", "one", None], strict=True)
    examples = [asked_about(str(n), answer, "query", global_group=group) for n, (answer, group) in enumerate(asked)]
    assert metric.distribution(say("a", "b", "a", "a"), examples).value == 0
    assert metric.distribution(say("z", "z", "z", "z"), examples).value == pytest.approx((2 + 1) / 100)
    assert metric.distribution(say("b", "b", "b", "a"), examples).n == 3


@pytest.mark.parametrize(
    ("name", "examples", "reason"),
    [
        ("accuracy", [asked_about("0", balanced=False)], "none of the 1 questions is balanced"),
        ("binary", [asked_about("0", structural="query")], "none of the 1 balanced questions is binary"),
        ("open", [asked_about("0")], "none of the 1 balanced questions is open"),
        ("validity", [asked_about("0")], "question '0' has no choices"),
        ("plausibility", [asked_about("0", valid=("yes",))], "question '0' has no choices"),
        ("consistency", [asked_about("0")], "no balanced question entails another"),
        ("consistency", [asked_about("0", entailed=("7",))], r"1 questions .* not among the examples \(7\): .*val_all"),
        ("distribution", [asked_about("0")], "no balanced question has a global group"),
        ("grounding", [asked_about("0", boxes=())], "predictions carry no attention"),
    ],
)
def test_a_measure_without_its_evidence_is_absent(drawn, name, examples, reason):
    for answer in ("yes", "no"):
        with pytest.raises(MetricAbsentError, match=reason):
            drawn.task.metric(name)(say(answer), examples)


@pytest.mark.parametrize("name", [*MEANS, "distribution"])
def test_questions_without_answers_are_not_scored(drawn, name):
    with pytest.raises(DataError, match=r"1 of 1 questions have no answers to score against \(0\).*official server"):
        drawn.task.metric(name)(say("yes"), [asked_about("0", "")])


def test_a_reference_is_what_a_classifier_learns_from():
    known, unknown = GqaAnswer("left", True), GqaAnswer("", True)
    assert is_answered(known)
    assert (known.consensus, known.worths(), unknown.consensus, unknown.worths()) == ("left", {"left": 1.0}, "", {})


def test_the_docstring_example_holds():
    assert doctest.testmod(metric) == doctest.TestResults(failed=0, attempted=3)
