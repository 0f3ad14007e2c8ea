"""CPU time of VQA accuracy over as many questions as VQA v2.0's val split has, beside the official procedure.

Run as `python benchmarks/vqa_accuracy.py`. Both sides score the same generated questions in one process, in turn. What
is timed is scoring: the files are read, the answers are in memory. Of ours that includes matching ids and the interval.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from sides import Side, measure, ratios, spread
from vqa_official import evaluate

from vlbench._tasks.vqa2.metric import vqa_accuracy
from vlbench._tasks.vqa2.reference import VqaAnswers, read_answers
from vlbench.core.examples import Example, Query
from vlbench.core.results import Prediction
from vlbench.metrics.scoring import score

QUESTIONS, IMAGES, STRINGS = 214_354, 40_504, 28_000
UNANIMOUS = 0.3
"""Share of questions that all ten people answer alike."""


def main() -> None:
    """Measure, check that both sides agree, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--repeats", type=int, default=5)
    wanted = parser.parse_args()
    annotations, results = generated(wanted.questions)
    examples = [example(annotation) for annotation in annotations]
    predictions = [Prediction(str(result["question_id"]), result["answer"]) for result in results]
    compare(annotations, results, examples, predictions)

    slices = ("answer_type", "question_type")
    sides: dict[str, Side] = {
        "official procedure": lambda: evaluate(annotations, results),
        "vqa_accuracy": lambda: vqa_accuracy(predictions, examples),
        "vqa_accuracy and slices": lambda: score({"a": vqa_accuracy}, "a", slices, predictions, examples),
    }
    report(wanted.questions, measure(sides, wanted.repeats))


def compare(
    annotations: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    examples: Sequence[Example[VqaAnswers]],
    predictions: Sequence[Prediction],
) -> None:
    """Stop where the two sides differ by more than the rounding of a sum."""
    official, ours = evaluate(annotations, results), vqa_accuracy(predictions, examples)
    differing = [
        name for name, worth in official.by_question.items() if abs(worth - ours.per_example[str(name)]) > 1e-12
    ]
    if differing or abs(official.overall - ours.value) > 1e-9:
        raise SystemExit(f"the two sides differ in {len(differing):,} questions, such as {differing[:5]}")
    print(f"both: {ours.value:.4f}; ours with 95 % interval {ours.ci95}")


def report(questions: int, seconds: dict[str, list[float]]) -> None:
    """Median and range of each side, and of its ratio to the official procedure in the same round."""
    official, *others = seconds
    for name, taken in seconds.items():
        print(f"{name}: {spread(taken)} CPU-s for {questions:,} questions, {len(taken)} repeats")
    for name in others:
        print(f"{official} / {name}: {spread(ratios({official: seconds[official], name: seconds[name]}))}")


def generated(questions: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Annotations and results in the official format; how often a string comes falls off as 1 / rank."""
    toss = random.Random(seed)
    known = list(strings(toss))
    weights = list(accumulate(1 / rank for rank in range(1, len(known) + 1)))
    annotations, results = [], []
    for number in range(questions):
        likely = toss.choices(known, cum_weights=weights, k=4)
        said = likely[:1] * 10 if toss.random() < UNANIMOUS else toss.choices(likely, weights=(6, 2, 1, 1), k=10)
        answers = [
            {"answer": answer, "answer_confidence": toss.choice(["yes", "maybe"]), "answer_id": place}
            for place, answer in enumerate(said, start=1)
        ]
        kinds = {"answer_type": toss.choice(["yes/no", "number", "other"]), "question_type": f"type {number % 65}"}
        annotations.append(
            {
                "question_id": number,
                "image_id": toss.randrange(IMAGES),
                "multiple_choice_answer": "",
                "answers": answers,
                **kinds,
            },
        )
        results.append({"question_id": number, "answer": toss.choice(likely[:2])})
    return annotations, results


def strings(toss: random.Random) -> Iterator[str]:
    """Different answers of one to four words, with the signs, articles and numbers that real ones have."""
    letters = "etaoinshrdlucmwfgypb"
    words = ["the", "a", "two", "none", "dont", "u.s.", "1,000", "t-shirt", "3.5", "yes/no", "it's"]
    words += ["".join(toss.choices(letters, k=toss.randint(3, 9))) for _ in range(9000)]
    seen = {"yes": None, "no": None}
    while len(seen) < STRINGS:
        seen[" ".join(toss.choices(words, k=toss.choices([1, 2, 3, 4], weights=(50, 30, 15, 5))[0]))] = None
    yield from seen


def example(annotation: dict[str, Any]) -> Example[VqaAnswers]:
    """An official annotation as the task's adapter hands it on."""
    return Example(
        id=str(annotation["question_id"]),
        query=Query((), ""),
        reference=read_answers(annotation["answers"], annotation["multiple_choice_answer"], "generated"),
        group=str(annotation["image_id"]),
        tags={tag: annotation[tag] for tag in ("answer_type", "question_type")},
    )


if __name__ == "__main__":
    main()
