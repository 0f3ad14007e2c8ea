"""Pages of published results and the schema of their files: `python -m vlbench.report.published.pages [RUNS ...]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlbench import __version__, catalog
from vlbench.core.cards import TaskCard
from vlbench.core.modes import MODES
from vlbench.core.splits import NONE
from vlbench.data.cache.folder import atomic_write
from vlbench.records.collect import FoundRun, collect
from vlbench.report.published.reproduction import Expectation, expectations
from vlbench.report.published.results import Published, PublishedModel, Rerun, complexity, published
from vlbench.report.published.text import published_table, trained_on_text
from vlbench.report.submit import server_of
from vlbench.report.tables.markup import table

_UNRELEASED = "the weights of this network were not released: pretrain it first"
TASKS = ("vqa2", "gqa", "nlvr2", "snli_ve", "coco_retrieval", "flickr30k_retrieval")
_OWN = """## Your own published results

`vlbench leaderboard RUNS --published FILE|DIR` shows the results of a YAML file, or of all YAML files of a folder, next
to the ones above; `--expect` compares runs with the rows that have a `rerun`. The schema is
`docs/published.schema.json`; `url` is where the results were published.

```yaml
model: Ours
paper: "Somebody 2026, A paper"
url: https://example.org/paper
rows:
  - variant: base
    source: table 3
    confidence: read  # or derived, or unverified
    rerun: {model: cvlp, size: base}
    scores:
      nlvr2: {dev: 80.1, test-p: 80.9}
      vqa2: {test-dev: 74.2}
      coco_retrieval: {test: {tr: [70.1, 90.2, 95.0], ir: [53.0, 80.3, 88.1]}}  # recall at 1, 5 and 10
    trained_on:  # [] where it was not finetuned
      nlvr2: [train]
      vqa2: {splits: [train, val], confidence: unverified, besides: with questions of Visual Genome}
      coco_retrieval: [train]
```"""


def pages(runs: list[Path] | None = None) -> dict[Path, str]:
    """Every page below `docs/` with its text; runs: records whose results the pages report."""
    cards = {task: catalog.task_card(task) for task in TASKS}
    records = collect(runs).runs if runs else ()
    texts = {Path("published") / f"{task}.md": task_page(card) for task, card in cards.items()}
    texts[Path("published/complexity.md")] = complexity_page()
    texts[Path("reproduce.md")] = reproduce_page(cards, records, __version__)
    texts[Path("published.schema.json")] = json.dumps(PublishedModel.model_json_schema(), indent=2, ensure_ascii=False)
    return {path: f"{text}\n" for path, text in texts.items()}


def task_page(card: TaskCard) -> str:
    """The page of a task: its tables, notes and papers."""
    rows = list(published(card.name))
    noted = [row for row in rows if card.name in row.row.notes]
    notes = dict.fromkeys(f"- {row.name}, {row.row.protocol}: {row.row.notes[card.name]}" for row in noted)
    papers = dict.fromkeys(f"- {row.model.model}: {row.model.paper}" for row in rows)
    title = f"# {card.title}: published results"
    about = "Results of papers on the real data; none of them were measured here."
    parts = [title, about, published_table(card.name, (), "md")]
    parts += ["## Notes", "\n".join(notes)] if notes else []
    return "\n\n".join([*parts, "## Papers", "\n".join(papers)])


def complexity_page() -> str:
    """The page of model costs."""
    costs = complexity()
    headers = ["model", "visual tokens", "text tokens", "parameters (M)", "GFLOPs", "ms", "resolution"]
    rows = [
        [
            row.model, str(row.visual_tokens), f"{row.text_tokens}{' (assumed)' if row.assumed else ''}",
            f"{row.parameters_m:.1f}", f"{row.gflops:.1f}", f"~{row.milliseconds:.0f}", row.resolution or "-",
        ]
        for row in costs.rows
    ]  # fmt: skip
    source = f"{costs.paper}. {costs.conditions}."
    return "\n\n".join(["# Complexity: published results", source, table(headers, rows, "md")])


def reproduce_page(cards: Mapping[str, TaskCard], runs: Sequence[FoundRun], version: str) -> str:
    """The command for every published row that vlbench can reproduce, and the result of the records."""
    versions = {name: card.version for name, card in cards.items()}
    judged = [entry for entry in expectations(runs, version, versions) if entry.published is not None]
    parts = [
        "# Reproducing published results",
        "`CHECKPOINT` stands for the weights that the authors released (pretrained, or finetuned if the mode is eval), "
        "`DATA` for a folder with the official data. A split without public answers is scored by its server, "
        "which takes the file that `vlbench submit` writes; `RUN` is the run folder that `vlbench run` prints last. "
        "`ANSWERS` is a JSON list of the answers of a released head, row by row; leave the flag out for a transformers "
        "folder, which contains them.",
        "Each command finetunes on the splits that the published model was finetuned on, and selects a checkpoint on "
        "a split that is neither trained nor reported on; if there is none, it takes the last checkpoint. Runs with "
        "other training splits are not compared with the published result.",
    ]
    for task, card in cards.items():
        rows = [
            [
                f"{entry.name}, {entry.row.protocol}, {entry.split}",
                ", ".join(f"{metric} {value:.2f}" for metric, value in entry.metrics.items()),
                trained_on_text(entry),
                ", then ".join(f"`{command}`" for command in _commands(entry, again, card)),
                "; ".join([_state(entry, judged), *([] if again.released else [_UNRELEASED])]),
            ]
            for entry in published(task, tuple(card.splits))
            if (again := entry.row.rerun)
        ]
        if rows:
            headers = ["result", "published", "trained on", "command", "state"]
            parts += [f"## {card.title}", table(headers, rows, "md")]
    return "\n\n".join([*parts, _OWN])


def _state(row: Published, judged: Sequence[Expectation]) -> str:
    states = [
        f"{expectation.metric} {expectation.judgement}: {expectation.measured:.2f} "
        f"[{expectation.low:.2f}, {expectation.high:.2f}]"
        for expectation in judged
        if (expectation.task, expectation.split, expectation.source) == (row.task, row.split, row.cited)
        and expectation.published == row.metrics.get(expectation.metric)
        and expectation.measured is not None and expectation.low is not None and expectation.high is not None
    ]  # fmt: skip
    return "; ".join(states) or "not yet run"


def _commands(row: Published, again: Rerun, card: TaskCard) -> list[str]:
    facts = MODES[again.mode]
    parts = ["vlbench run", f"--task {row.task}", f"--model {again.model}"]
    parts += [f"--size {again.size}"] if not again.model.startswith("hf:") else []
    parts += [f"--mode {again.mode}"] if not facts.trains_backbone else []
    parts += [f"--checkpoint {again.checkpoint}"] if again.checkpoint else []
    parts += ["--answers ANSWERS"] if facts.loads_head and card.min_answer_count is not None else []
    hidden = server_of(row.task, row.split)
    split = hidden[1].splits[0] if hidden else row.split
    if facts.trains_backbone:
        usual = catalog.model_card(again.model).recipe(card.name, again.size).train_splits or (card.train_split,)
        parts += _split_flags(row.trained_on.splits, usual, split, card)
    run = " ".join([*parts, f"--split {split}", "--data-root DATA"])
    return [run, f"vlbench submit RUN --to {hidden[0]}"] if hidden else [run]


def _split_flags(trained: tuple[str, ...], usual: tuple[str, ...], reported: str, card: TaskCard) -> list[str]:
    """Flags that make a run train on these splits and select on a split apart from them and from the reported one. If
    the answers of the reported split are hidden, that may be the split that the task reports by default.
    """
    apart = [*trained, reported]
    candidates = [card.select_on, *([card.report_split] if server_of(card.name, reported) else [])]
    select = next((split for split in candidates if not any(card.overlap(split, other) for other in apart)), NONE)
    return [
        *([f"--train-split {','.join(trained)}"] if trained != usual else []),
        *([f"--select-on {select}"] if select != card.select_on else []),
    ]


if __name__ == "__main__":
    for page, content in pages([Path(argument) for argument in sys.argv[1:]]).items():
        atomic_write(Path("docs") / page, content)
