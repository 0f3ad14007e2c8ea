"""VQA accuracy against a plain procedure that shares nothing with it: `benchmarks/vqa_official.py`."""

import doctest
import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbench._tasks.vqa2 import metric, normalise, reference
from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example, Query
from vlbench.core.results import Prediction
from vlbench.metrics.scoring import score

BASELINE = Path(__file__).resolve().parents[3] / "benchmarks" / "vqa_official.py"
WORDS = "yes no Yes two 2 none zero ten a an the The dont don't Im im let's she's somebody'd ow's'at yall'd've cat 7"
SIGNS = """1,000 1,0 3.5 .5 3. U.S. ... cats/dogs t-shirt 10-15 50% $5 2:50 7" (red) [x] {y} <b> @ ` , ; ! ? _ = + \\
    ١,٢ ٣.٤ ß İ ﬁ 🙂"""
PIECES = [*WORDS.split(), *SIGNS.split()]
GAPS = ["", " ", "  ", "\n", "\t", "\r", "\u00a0", " ,", ", "]


@pytest.fixture(scope="module")
def official():
    spec = importlib.util.spec_from_file_location("vqa_official", BASELINE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(answer, place, **others):
    return {"answer": answer, "answer_confidence": "yes", "answer_id": place} | others


def annotation(number, answers, image=0, answer_type="other", question_type="what"):
    records = [one if isinstance(one, dict) else record(one, place) for place, one in enumerate(answers, start=1)]
    kinds = {"answer_type": answer_type, "question_type": question_type}
    return {"question_id": number, "image_id": image, "answers": records, **kinds}


def example(annotated):
    return Example(
        str(annotated["question_id"]),
        Query((), "?"),
        reference.read_answers(annotated["answers"], annotated.get("multiple_choice_answer", ""), "test"),
        str(annotated["image_id"]),
        {tag: annotated[tag] for tag in ("answer_type", "question_type")},
    )


def predictions(results):
    return [Prediction(str(result["question_id"]), result["answer"]) for result in results]


def worth(metric_, answers, answer):
    return metric_([Prediction("1", answer)], [example(annotation(1, answers))]).per_example["1"]


def nasty(toss):
    """Answers in which every rule of the normalisation has something to do."""
    text = "".join(toss.choice(PIECES) + toss.choice(GAPS) for _ in range(toss.randint(0, 4)))
    return toss.choice([text, text.strip(), text.upper(), f" {text}\n", "." * toss.randint(0, 40) + text])


def drawn(count, seed):
    """Annotations and results: people agree, nearly agree or differ; ids are sometimes absent or given twice."""
    toss = random.Random(seed)
    for number in range(count):
        known = [nasty(toss) for _ in range(toss.randint(1, 4))]
        known += [known[0].lower(), f"{known[0]}."] if toss.random() < 0.3 else []
        answers = [record(toss.choice(known), place) for place in range(1, 11)]
        if toss.random() < 0.2:
            for one in toss.sample(answers, 4):
                one.pop("answer_id") if toss.random() < 0.5 else one.update(answer_id=1)
                one["answer_confidence"] = toss.choice(["yes", "no"])
        image, kind = toss.randrange(count // 3), toss.choice(["yes/no", "number", "other"])
        annotated = annotation(number, answers, image, kind, f"what {toss.randrange(5)}")
        yield annotated, {"question_id": number, "answer": toss.choice([*known, known[0].strip(), nasty(toss)])}


@pytest.fixture(scope="module")
def questions():
    annotations, results = zip(*drawn(4000, seed=11), strict=True)
    return annotations, results


def test_the_official_procedure_gives_the_same(official, questions):
    annotations, results = questions
    metrics, tags = {"vqa_accuracy": metric.vqa_accuracy}, ("answer_type", "question_type")
    examples = list(map(example, annotations))
    expected = official.evaluate(annotations, results)
    found = metric.vqa_accuracy(predictions(results), examples)
    assert {int(name): value for name, value in found.per_example.items()} == pytest.approx(
        expected.by_question, abs=1e-12
    )
    assert {round(value, 1) for value in found.per_example.values()} >= {0, 0.3, 0.6, 0.9, 1}
    (result,) = score(metrics, "vqa_accuracy", tags, predictions(results), examples).results
    parts = {tag: {kind: part.value for kind, part in result.slices[tag].items()} for tag in tags}
    assert result.value == pytest.approx(expected.overall, abs=1e-10)
    assert parts["answer_type"] == pytest.approx(expected.by_answer_type, abs=1e-10)
    assert parts["question_type"] == pytest.approx(expected.by_question_type, abs=1e-10)
    assert result.method.startswith(f"95 % Clopper-Pearson over {len({one.group for one in examples}):,} groups")


def test_the_variants_differ_where_their_names_say(official, questions):
    annotations, results = questions
    examples = list(map(example, annotations))
    simple = metric.vqa_simple(predictions(results), examples).per_example
    lenient = metric.vqa_lenient(predictions(results), examples).per_example
    for annotated, result in zip(annotations, results, strict=True):
        answers = [official.trim(one["answer"]) for one in annotated["answers"]]
        answer = official.trim(result["answer"])
        spelt = [official.words(official.punctuation(one)) for one in [answer, *answers]]
        agreeing = spelt[1:].count(spelt[0]) if len(set(answers)) > 1 else answers.count(answer)
        name = str(annotated["question_id"])
        assert simple[name] == pytest.approx(min(agreeing / 3, 1))
        normalised = [{**one, "answer": text} for one, text in zip(annotated["answers"], spelt[1:], strict=True)]
        matches = [[other["answer"] == spelt[0] for other in normalised if other != one] for one in normalised]
        assert lenient[name] == pytest.approx(sum(min(1, sum(row) / 3) for row in matches) / 10)


@pytest.mark.parametrize(("agreeing", "value"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_people_who_agree_are_left_out_in_turn(agreeing, value):
    answers = ["net"] * agreeing + [f"other {place}" for place in range(10 - agreeing)]
    assert worth(metric.vqa_accuracy, answers, "net") == value
    assert worth(metric.vqa_simple, answers, "net") == min(agreeing / 3, 1)


@pytest.mark.parametrize("answer", ["Yes", "yes.", "the yes"])
def test_unanimous_answers_are_not_normalised(answer):
    assert worth(metric.vqa_accuracy, ["yes"] * 10, answer) == worth(metric.vqa_simple, ["yes"] * 10, answer) == 0
    assert worth(metric.vqa_lenient, ["yes"] * 10, answer) == 1
    assert worth(metric.vqa_accuracy, ["yes"] * 9 + ["no"], answer) == 1
    assert worth(metric.vqa_accuracy, [" yes\n", "\tyes", *["yes"] * 8], "yes\t") == 1


def test_equal_records_leave_each_other_out():
    ten = [record("net", place) for place in range(1, 11)]
    same = [record("net", 1) for _ in range(10)]
    assert [worth(metric.vqa_accuracy, answers, "net") for answers in (ten, same)] == [1, 0]
    three = [*same[:3], *(record(f"other {place}", place) for place in range(4, 11))]
    assert worth(metric.vqa_accuracy, three, "net") == pytest.approx(0.7)  # only the seven others count the three


@pytest.mark.parametrize(
    ("answer", "punctuated", "normal"),
    [
        ("3.", "3", "3"),
        (".5", ".5", ".5"),
        ("3.5", "3.5", "3.5"),
        ("U.S.", "US", "us"),
        ("a.b", "ab", "ab"),
        ("1..2", "1.2", "1.2"),
        ("1,000", "1000", "1000"),
        ("1,000 cats/dogs", "1000 catsdogs", "1000 catsdogs"),
        ("cats/dogs", "cats dogs", "cats dogs"),
        ("cats / dogs", "cats  dogs", "cats dogs"),
        ("cats/ dogs", "cats dogs", "cats dogs"),
        ("t-shirt", "t shirt", "t shirt"),
        ("10-15", "10 15", "10 15"),
        ("red,white", "red white", "red white"),
        ("2:50", "2:50", "2:50"),
        ("$5", "$5", "$5"),
        ("50%", "50%", "50%"),
        ('7"', "7 ", "7"),
        ("." * 40, "." * 8, "." * 8),
        ("none", "none", "0"),
        ("a", "a", ""),
        ("The One", "The One", "1"),
        ("Im", "Im", "im"),
        ("Ive dont", "Ive dont", "ive don't"),
        ("somebody'd", "somebody'd", "somebodyd"),
        ("١,٢/x", "١ ٢ x", "١ ٢ x"),
    ],
)
def test_examples_of_normalisation(official, answer, punctuated, normal):
    assert official.punctuation(answer) == punctuated
    assert normalise.normalise(answer) == normal


def test_the_contractions_are_the_official_120(official):
    assert len(official.CONTRACTIONS) == 120
    assert normalise.CONTRACTIONS == official.CONTRACTIONS


anything = st.text(st.characters(exclude_categories=())) | st.lists(st.sampled_from(PIECES + GAPS)).map("".join)


@settings(deadline=None, max_examples=500)
@given(anything)
def test_any_text_is_normalised_as_officially(official, text):
    assert normalise.plain(text) == official.trim(text)
    assert normalise.plain(normalise.plain(text)) == normalise.plain(text)
    assert normalise.normalise(text) == official.words(official.punctuation(official.trim(text)))


@settings(deadline=None)
@given(st.lists(st.sampled_from([*normalise.CONTRACTIONS, *normalise.NUMBERS, "none", "an", "cat", "7"])).map(" ".join))
def test_normal_words_stay_as_they_are(text):
    assert normalise.normalise(normalise.normalise(text)) == normalise.normalise(text)


def test_order_and_chunks_do_not_count(questions):
    annotations, results = questions
    examples, answers = list(map(example, annotations)), predictions(results)
    whole = metric.vqa_accuracy(answers, examples)
    toss = random.Random(3)
    assert metric.vqa_accuracy(toss.sample(answers, len(answers)), toss.sample(examples, len(examples))) == whole
    parts = [slice(start, start + 700) for start in range(0, len(examples), 700)]
    chunks = [metric.vqa_accuracy(answers[part], examples[part]) for part in parts]
    assert {name: value for chunk in chunks for name, value in chunk.per_example.items()} == whole.per_example
    assert sum(chunk.value * chunk.n for chunk in chunks) / whole.n == pytest.approx(whole.value, rel=1e-12)


@pytest.mark.parametrize("name", ["vqa_accuracy", "vqa_simple", "vqa_lenient"])
def test_what_has_no_answer_is_worth_nothing(name):
    unparsed = Prediction("1", "", status="unparsed")
    assert getattr(metric, name)([unparsed], [example(annotation(1, ["a", *["the"] * 9]))]).value == 0
    assert getattr(metric, name)([Prediction("1", "")], [example(annotation(1, ["a", *["the"] * 9]))]).value == 100
    assert getattr(metric, name)([unparsed], [example(annotation(1, ["a"] * 10))]).name == name


def test_ids_must_match():
    with pytest.raises(CoverageError, match="1 missing"):
        metric.vqa_accuracy([Prediction("1", "a")], [example(annotation(number, ["a"] * 10)) for number in (1, 2)])


def test_questions_without_answers_are_not_scored():
    untold = Example("1", Query((), "?"), reference.UNKNOWN, "0")
    with pytest.raises(DataError, match=r"1 of 1 questions have no answers to score against \(1\).*official server"):
        metric.vqa_accuracy([Prediction("1", "a")], [untold])


def test_the_docstring_example_holds():
    assert doctest.testmod(metric) == doctest.TestResults(failed=0, attempted=3)
