"""Pages of published results and the schema of their files: `python -m vlbench.report.published.pages [RUNS ...]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlbench import __version__, catalog
from vlbench.core.cards import TaskCard
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
_OWN = """## Published figures of your own

`vlbench leaderboard RUNS --published FILE|DIR` shows the figures of a YAML file, or of those in a folder, beside the
ones above, and `--expect` judges runs by them where a row says how it is rerun. The schema is
`docs/published.schema.json`; `url` says where the figures were published.

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
    """Every page below `docs/` with its text; runs: records that say what has been run."""
    cards = {task: catalog.task_card(task) for task in TASKS}
    found = collect(runs).runs if runs else ()
    texts = {Path("published") / f"{task}.md": task_page(card) for task, card in cards.items()}
    texts[Path("published/complexity.md")] = complexity_page()
    texts[Path("reproduce.md")] = reproduce_page(cards, found, __version__)
    texts[Path("published.schema.json")] = json.dumps(PublishedModel.model_json_schema(), indent=2, ensure_ascii=False)
    return {path: f"{text}\n" for path, text in texts.items()}


def task_page(card: TaskCard) -> str:
    """The page of a task: its tables, its notes, where it all comes from."""
    found = list(published(card.name))
    noted = [one for one in found if card.name in one.row.notes]
    notes = dict.fromkeys(f"- {one.name}, {one.row.protocol}: {one.row.notes[card.name]}" for one in noted)
    papers = dict.fromkeys(f"- {one.model.model}: {one.model.paper}" for one in found)
    parts = [
        f"# {card.title}: published figures",
        "Figures of papers on the real data, none of them measured here.",
        published_table(card.name, (), "md"),
        *(["## Notes", "\n".join(notes)] if notes else []),
        "## Papers",
        "\n".join(papers),
    ]
    return "\n\n".join(parts)


def complexity_page() -> str:
    """The page of what models cost."""
    found = complexity()
    headers = ["model", "visual tokens", "text tokens", "parameters (M)", "GFLOPs", "ms", "resolution"]
    rows = [
        [
            row.model, str(row.visual_tokens), f"{row.text_tokens}{' (assumed)' if row.assumed else ''}",
            f"{row.parameters_m:.1f}", f"{row.gflops:.1f}", f"~{row.milliseconds:.0f}", row.resolution or "-",
        ]
        for row in found.rows
    ]  # fmt: skip
    return "\n\n".join(
        ["# Complexity: published figures", f"{found.paper}. {found.conditions}.", table(headers, rows, "md")]
    )


def reproduce_page(cards: Mapping[str, TaskCard], runs: Sequence[FoundRun], version: str) -> str:
    """For every published row that vlbench could rerun, the command, and what the records say of it."""
    versions = {name: card.version for name, card in cards.items()}
    judged = [one for one in expectations(runs, version, versions) if one.published is not None]
    parts = [
        "# Published figures, run again",
        "`CHECKPOINT` is the weights its authors released (pretrained ones, or finetuned ones where the mode is eval), "
        "`DATA` a folder with the official data. Figures of a split without public answers come from its server, "
        "which takes the file that `vlbench submit` writes; `RUN` is the folder that `vlbench run` names last. "
        "`ANSWERS` is a JSON list of what the rows of a released head stand for; leave the flag out for a transformers "
        "folder, which brings them along.",
        "Each command finetunes on the splits that the published model was finetuned on, and selects a checkpoint on "
        "a split that is neither trained nor reported on; where there is none, it takes the last one. Runs with other "
        "training splits are not compared with the published figure.",
    ]
    for task, card in cards.items():
        rows = [
            [
                f"{one.name}, {one.row.protocol}, {one.split}",
                _said(one),
                trained_on_text(one),
                ", then ".join(f"`{command}`" for command in _commands(one, again, card)),
                "; ".join([_state(one, judged), *([] if again.released else [_UNRELEASED])]),
            ]
            for one in published(task, tuple(card.splits))
            if (again := one.row.rerun)
        ]
        if rows:
            headers = ["figures", "published", "trained on", "command", "state"]
            parts += [f"## {card.title}", table(headers, rows, "md")]
    return "\n\n".join([*parts, _OWN])


def _said(one: Published) -> str:
    return ", ".join(f"{metric} {value:.2f}" for metric, value in one.metrics.items())


def _state(one: Published, judged: Sequence[Expectation]) -> str:
    states = [
        f"{found.metric} {found.judgement}: {found.measured:.2f} [{found.low:.2f}, {found.high:.2f}]"
        for found in judged
        if (found.task, found.split, found.source) == (one.task, one.split, one.cited)
        and found.published == one.metrics.get(found.metric)
        and found.measured is not None and found.low is not None and found.high is not None
    ]  # fmt: skip
    return "; ".join(states) or "not yet run"


def _commands(one: Published, again: Rerun, card: TaskCard) -> list[str]:
    parts = ["vlbench run", f"--task {one.task}", f"--model {again.model}"]
    parts += [f"--size {again.size}"] if not again.model.startswith("hf:") else []
    parts += [f"--mode {again.mode}"] if again.mode != "finetune" else []
    parts += [f"--checkpoint {again.checkpoint}"] if again.checkpoint else []
    parts += ["--answers ANSWERS"] if again.mode == "eval" and card.min_answer_count is not None else []
    hidden = server_of(one.task, one.split)
    split = hidden[1].splits[0] if hidden else one.split
    if again.mode == "finetune":
        parts += _split_flags(one.trained_on.splits, _own_splits(again, card), split, card)
    run = " ".join([*parts, f"--split {split}", "--data-root DATA"])
    return [run, f"vlbench submit RUN --to {hidden[0]}"] if hidden else [run]


def _own_splits(again: Rerun, card: TaskCard) -> tuple[str, ...]:
    """What the model is finetuned on if no flag says otherwise."""
    return catalog.model_card(again.model).recipe(card.name, again.size).train_splits or (card.train_split,)


def _split_flags(trained: tuple[str, ...], usual: tuple[str, ...], reported: str, card: TaskCard) -> list[str]:
    """The flags that make a run train on these splits, and select on one that is apart from them and from the report.

    Where the answers of what is reported are hidden, that may be the split that the task reports by default.
    """
    apart = [*trained, reported]
    candidates = [card.select_on, *([card.report_split] if server_of(card.name, reported) else [])]
    select = next((one for one in candidates if not any(card.overlap(one, other) for other in apart)), NONE)
    return [
        *([f"--train-split {','.join(trained)}"] if trained != usual else []),
        *([f"--select-on {select}"] if select != card.select_on else []),
    ]


if __name__ == "__main__":
    for page, content in pages([Path(argument) for argument in sys.argv[1:]]).items():
        atomic_write(Path("docs") / page, content)
