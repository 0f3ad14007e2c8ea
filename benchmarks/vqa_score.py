"""CPU time of `vlbench score --task vqa2` from official files to the printed scores, compared with the official script.

Run as `python benchmarks/vqa_score.py`. Writes the questions, annotations and results of as many generated questions as
VQA v2.0's val split has, then runs both sides in one process, in turn. The official side reads the three files with
`json.load`, indexes them by question and scores them; ours is the whole command, with two more metrics, all slices and
their confidence intervals. The reading of ours starts with an empty cache in every repeat.
`--peak` prints the peak memory of a process that runs the command once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sides import Side, format_spread, measure, paired_ratios
from vqa_accuracy import QUESTIONS, generate_questions
from vqa_official import OfficialScores, evaluate

from vlbench.cli.main import main as vlbench

COMMAND = "vlbench score --task vqa2"


def main() -> None:
    """Measure, check that both sides agree, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", action="store_true", help="also the peak memory of the command")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_files(root, wanted.questions)
        seconds = measure_sides(root, wanted.repeats)
        if wanted.peak:
            subprocess.run([sys.executable, "-c", f"import vqa_score; vqa_score.print_peak({folder!r})"], check=True)
    for name, taken in seconds.items():
        print(f"{name}: {format_spread(taken)} CPU-s for {wanted.questions:,} questions, {len(taken)} repeats")
    print(f"official script / {COMMAND}: {format_spread(paired_ratios(seconds))}")


def ratios(repeats: int, questions: int = QUESTIONS) -> dict[str, list[float]]:
    """The name of the comparison -> one ratio per repeat, greater is better."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), questions)
        return {f"official script / {COMMAND}": paired_ratios(measure_sides(Path(folder), repeats))}


def measure_sides(root: Path, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of both sides; stops if they differ by more than the rounding of a sum."""
    official, scores = score_officially(root), json.loads(run_command(root))
    theirs = {"all": official.overall, **official.by_answer_type, **official.by_question_type}
    slices = scores["slices"]["answer_type"] | scores["slices"]["question_type"]
    ours = {"all": scores["scores"]["vqa_accuracy"]["value"]}
    ours |= {name: part["vqa_accuracy"]["value"] for name, part in slices.items()}
    if theirs.keys() != ours.keys() or any(abs(theirs[name] - ours[name]) > 1e-9 for name in theirs):
        raise SystemExit(f"the sides differ: {theirs} and {ours}")
    sides: dict[str, Side] = {"official script": lambda: score_officially(root), COMMAND: lambda: run_command(root)}
    return measure(sides, repeats)


def write_files(root: Path, questions: int) -> None:
    """The official files of val below `root`, and `results.json`, compact as the official ones."""
    annotations, results = generate_questions(questions)
    asked = [
        {
            "image_id": one["image_id"],
            "question": f"What is number {one['question_id']}?",
            "question_id": one["question_id"],
        }
        for one in annotations
    ]
    info = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": "val2014", "license": {"name": "any"}}
    (root / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({**info, "questions": asked}))
    (root / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({**info, "annotations": annotations}))
    (root / "results.json").write_text(json.dumps(results))


def score_officially(root: Path) -> OfficialScores:
    """The three files as the official classes read them, and the official procedure."""
    questions, annotations, results = (
        json.loads((root / name).read_text())
        for name in ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json", "results.json")
    )
    by_question = {annotation["question_id"]: annotation for annotation in annotations["annotations"]}
    asked = {question["question_id"]: question for question in questions["questions"]}
    if asked.keys() != by_question.keys() or asked.keys() != {result["question_id"] for result in results}:
        raise SystemExit("questions, annotations and results are not of one split")
    return evaluate(list(by_question.values()), results)


def run_command(root: Path) -> str:
    """The output of the command, with an empty cache."""
    output, cache = io.StringIO(), root / "cache"
    os.environ["VLBENCH_CACHE"] = str(cache)
    arguments = ["score", "--task", "vqa2", "--predictions", str(root / "results.json"), "--data-root", str(root)]
    with contextlib.redirect_stdout(output):
        code = vlbench([*arguments, "--split", "val", "--allow-partial", "--json"])
    shutil.rmtree(cache, ignore_errors=True)
    if code:
        raise SystemExit(f"{COMMAND} ended with exit code {code}")
    return output.getvalue()


def print_peak(folder: str) -> None:
    """The peak memory of this process after one run of the command, without what the parent had before the fork."""
    run_command(Path(folder))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(f"{COMMAND}: peak {int(peak.split()[1]) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
