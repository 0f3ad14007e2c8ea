"""CPU time of all of GQA's metrics for a million generated questions.

Run as `python benchmarks/gqa_metrics.py`. Only scoring is timed, with questions and predictions in memory,
including matching ids and the confidence intervals; each metric by itself, then all with the slices of accuracy.
Grounding is left out, since predictions have no attention.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

from sides import Side, format_spread, measure

from vlbench._tasks.gqa import metric
from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.examples import Example, Query
from vlbench.core.results import Prediction
from vlbench.metrics.scoring import score

QUESTIONS, ANSWERS, GROUPS, KINDS = 1_000_000, 1_800, 1_500, 100
PER_IMAGE = 12
METRICS = {
    "accuracy": metric.accuracy,
    "binary": metric.binary,
    "open": metric.open_ended,
    "validity": metric.validity,
    "plausibility": metric.plausibility,
    "consistency": metric.consistency,
    "distribution": metric.distribution,
}
SLICES = ("structural", "semantic", "detailed", "length", "steps")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--balanced", type=float, default=1.0, help="share of balanced questions")
    parser.add_argument("--repeats", type=int, default=3)
    wanted = parser.parse_args()
    examples = list(generate_examples(wanted.questions, wanted.balanced))
    rng = random.Random(1)
    predictions = [
        Prediction(example.id, example.reference.answer if rng.random() < 0.6 else f"answer {rng.randrange(ANSWERS)}")
        for example in examples
    ]
    sides: dict[str, Side] = {
        name: lambda measure=measure: measure(predictions, examples)  # type: ignore[misc]
        for name, measure in METRICS.items()
    }
    sides["all of them, and accuracy by five kinds"] = lambda: score(METRICS, "accuracy", SLICES, predictions, examples)
    for name, taken in measure(sides, wanted.repeats).items():
        print(f"{name}: {format_spread(taken)} CPU-s")


def generate_examples(questions: int, balanced: float, seed: int = 0) -> Iterator[Example[GqaAnswer]]:
    """Questions as the adapter returns them: twelve per image, and entailed ones of the same image."""
    rng = random.Random(seed)
    answers = [f"answer {number}" for number in range(ANSWERS)]
    choices = [tuple(rng.sample(answers, 40)) for _ in range(200)]
    for number in range(questions):
        first = number - number % PER_IMAGE
        entailed = {rng.randrange(first, min(first + PER_IMAGE, questions)) for _ in range(rng.choice((0, 0, 2, 5)))}
        kinds = {
            "structural": rng.choice(("verify", "query", "choose", "logical", "compare")),
            "semantic": rng.choice(("obj", "attr", "rel", "cat", "global")),
            "detailed": f"kind {rng.randrange(KINDS)}",
            "length": str(rng.randint(3, 25)),
            "steps": str(rng.randint(1, 8)),
        }
        reference = GqaAnswer(
            answer=rng.choice(answers),
            is_balanced=rng.random() < balanced,
            structural=kinds["structural"],
            detailed=kinds["detailed"],
            global_group=f"group {rng.randrange(GROUPS)}" if rng.random() < 0.5 else None,
            entailed=tuple(f"{other:08d}" for other in sorted(entailed - {number})),
            valid=rng.choice(choices),
            plausible=rng.choice(choices),
        )
        tags = kinds if reference.is_balanced else {}
        yield Example(f"{number:08d}", Query((), ""), reference, f"image {first}", tags)


if __name__ == "__main__":
    main()
