"""CPU time of VQA accuracy for as many questions as VQA v2.0's val split has, compared with the official procedure.

Run as `python benchmarks/vqa_accuracy.py`. Both sides score the same generated questions in one process, in turn. Only
scoring is timed, with all answers in memory; ours includes matching ids and the confidence interval.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import accumulate

from sides import Side, format_spread, measure, paired_ratios
from vqa_official import Record, evaluate

from vlbench._tasks.vqa2.metric import vqa_accuracy
from vlbench._tasks.vqa2.reference import VqaAnswers, read_answers
from vlbench.core.examples import Example, Query
from vlbench.core.results import Prediction
from vlbench.metrics.scoring import score

QUESTIONS, IMAGES, STRINGS = 214_354, 40_504, 28_000
UNANIMOUS = 0.3
"""Share of questions with ten equal answers."""


def main() -> None:
    """Measure, check that both sides agree, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--repeats", type=int, default=5)
    wanted = parser.parse_args()
    report(wanted.questions, measure(make_sides(wanted.questions), wanted.repeats))


def ratios(repeats: int, questions: int = QUESTIONS) -> dict[str, list[float]]:
    """The name of the comparison -> one ratio per repeat, greater is better."""
    return ratios_of(measure(make_sides(questions), repeats))


def make_sides(questions: int) -> dict[str, Side]:
    """The sides, the official procedure first; stops if they differ."""
    annotations, results = generate_questions(questions)
    examples = [make_example(annotation) for annotation in annotations]
    predictions = [Prediction(str(result["question_id"]), result["answer"]) for result in results]
    compare(annotations, results, examples, predictions)
    slices = ("answer_type", "question_type")
    return {
        "official procedure": lambda: evaluate(annotations, results),
        "vqa_accuracy": lambda: vqa_accuracy(predictions, examples),
        "vqa_accuracy and slices": lambda: score({"a": vqa_accuracy}, "a", slices, predictions, examples),
    }


def compare(
    annotations: Sequence[Record],
    results: Sequence[Record],
    examples: Sequence[Example[VqaAnswers]],
    predictions: Sequence[Prediction],
) -> None:
    """Stop if the sides differ by more than the rounding of a sum."""
    official, ours = evaluate(annotations, results), vqa_accuracy(predictions, examples)
    differing = [
        name for name, worth in official.by_question.items() if abs(worth - ours.per_example[str(name)]) > 1e-12
    ]
    if differing or abs(official.overall - ours.value) > 1e-9:
        raise SystemExit(f"the sides differ in {len(differing):,} questions, such as {differing[:5]}")
    print(f"both: {ours.value:.4f}; ours with 95 % interval {ours.ci95}")


def report(questions: int, seconds: dict[str, list[float]]) -> None:
    """Print median and range of each side, and of its ratio to the official procedure in the same repeat."""
    for name, taken in seconds.items():
        print(f"{name}: {format_spread(taken)} CPU-s for {questions:,} questions, {len(taken)} repeats")
    for name, values in ratios_of(seconds).items():
        print(f"{name}: {format_spread(values)}")


def ratios_of(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """The first side's time over each other side's, for each repeat."""
    official, *others = seconds
    return {
        f"{official} / {name}": paired_ratios({official: seconds[official], name: seconds[name]}) for name in others
    }


def generate_questions(questions: int, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Annotations and results in the official format; the frequency of a string is proportional to 1 / rank."""
    rng = random.Random(seed)
    known = list(generate_strings(rng))
    weights = list(accumulate(1 / rank for rank in range(1, len(known) + 1)))
    annotations: list[Record] = []
    results: list[Record] = []
    for number in range(questions):
        likely = rng.choices(known, cum_weights=weights, k=4)
        given = likely[:1] * 10 if rng.random() < UNANIMOUS else rng.choices(likely, weights=(6, 2, 1, 1), k=10)
        answers = [
            {"answer": answer, "answer_confidence": rng.choice(["yes", "maybe"]), "answer_id": position}
            for position, answer in enumerate(given, start=1)
        ]
        kinds = {"answer_type": rng.choice(["yes/no", "number", "other"]), "question_type": f"type {number % 65}"}
        annotations.append(
            {
                "question_id": number,
                "image_id": rng.randrange(IMAGES),
                "multiple_choice_answer": "",
                "answers": answers,
                **kinds,
            },
        )
        results.append({"question_id": number, "answer": rng.choice(likely[:2])})
    return annotations, results


def generate_strings(rng: random.Random) -> Iterator[str]:
    """Different answers of one to four words, with punctuation, articles and numbers as in real answers."""
    letters = "etaoinshrdlucmwfgypb"
    words = ["the", "a", "two", "none", "dont", "u.s.", "1,000", "t-shirt", "3.5", "yes/no", "it's"]
    words += ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(9000)]
    unique = {"yes": None, "no": None}
    while len(unique) < STRINGS:
        unique[" ".join(rng.choices(words, k=rng.choices([1, 2, 3, 4], weights=(50, 30, 15, 5))[0]))] = None
    yield from unique


def make_example(annotation: Record) -> Example[VqaAnswers]:
    """An official annotation as the task's adapter returns it."""
    return Example(
        id=str(annotation["question_id"]),
        query=Query((), ""),
        reference=read_answers(annotation["answers"], annotation["multiple_choice_answer"], "generated"),
        group=str(annotation["image_id"]),
        tags={tag: annotation[tag] for tag in ("answer_type", "question_type")},
    )


if __name__ == "__main__":
    main()
