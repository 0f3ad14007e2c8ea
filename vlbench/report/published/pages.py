"""Pages of published results and the schema of their files: `python -m vlbench.report.published.pages [RUNS ...]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vlbench import __version__, catalog
from vlbench.data.cache.folder import atomic_write
from vlbench.records.collect import collect
from vlbench.report.published.results import PublishedModel
from vlbench.report.published.text import TASKS, complexity_page, reproduce_page, task_page


def pages(runs: list[Path] | None = None) -> dict[Path, str]:
    """Every page below `docs/` with its text; runs: records that say what has been run."""
    cards = {task: catalog.task_card(task) for task in TASKS}
    found = collect(runs).runs if runs else ()
    texts = {Path("published") / f"{task}.md": task_page(card) for task, card in cards.items()}
    texts[Path("published/complexity.md")] = complexity_page()
    texts[Path("reproduce.md")] = reproduce_page(cards, found, __version__)
    texts[Path("published.schema.json")] = json.dumps(PublishedModel.model_json_schema(), indent=2, ensure_ascii=False)
    return {path: f"{text}\n" for path, text in texts.items()}


if __name__ == "__main__":
    for page, content in pages([Path(argument) for argument in sys.argv[1:]]).items():
        atomic_write(Path("docs") / page, content)
