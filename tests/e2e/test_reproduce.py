"""Every command of docs/reproduce.md plans its run on a stub of the official layout.

The stub is the export of the tiny built-in world, which writes the official files with few examples, without the mark
that makes it a world: it is read as real data, with the defaults of real data. Networks of size base are shrunk; cards,
recipes and splits are those that the commands meet.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.cli.main import main
from vlbench.core.cards import ModelCard
from vlbench.engine import dry_run
from vlbench.report.published.results import published
from vlbench.world.generate import is_world

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproduce.md"
COMMANDS = sorted(set(re.findall(r"`(vlbench run [^`]*)`", PAGE.read_text(encoding="utf8"))))
Call = Callable[..., Any]


def shrunk(card: ModelCard) -> ModelCard:
    """The card with a network of size tiny behind the size `base`."""
    if "base" not in card.sizes or "tiny" not in card.sizes:
        return card
    small = {"config": card.sizes["tiny"].config, "max_text": card.sizes["tiny"].max_text, "parameters": None}
    return card.model_copy(update={"sizes": {**card.sizes, "base": card.sizes["base"].model_copy(update=small)}})


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    real = catalog.model_card
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "model_card", lambda name: shrunk(real(name)))
        patch.setattr(dry_run, "ENOUGH", 1e-9)  # no larger batches are timed than the first
        yield


@pytest.fixture(scope="module")
def layout(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root as the commands expect it: the official files, with few examples."""
    root = tmp_path_factory.mktemp("official")
    for place in tiny_world.iterdir():
        if place.name not in ("world.json", "scenes", "vocab.txt"):
            (root / place.name).symlink_to(place)
    assert not is_world(root)
    return root


@pytest.fixture(scope="module")
def weights(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of a run of the shrunk model on a task, with weights, tokenizer and answers; each is made once."""
    output, made = tmp_path_factory.mktemp("weights"), {}

    def make(model: str, task: str) -> Path:
        if (model, task) not in made:
            place = output / f"{model}-{task}"
            done = main(
                [
                    "run", "--task", task, "--model", model, "--size", "base", "--checkpoint", "none", "--quiet",
                    "--vocabulary", str(tiny_world / "vocab.txt"), "--data-root", str(tiny_world), "--steps", "1",
                    "--batch-size", "4", "--train-split", "train", "--select-on", "none", "--controls", "none",
                    "--limit", "2", "--output-path", str(place),
                ]
            )  # fmt: skip
            assert done == 0
            (record,) = place.rglob("run.json")
            made[model, task] = record.parent
        return made[model, task]

    return make


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_plans_its_run(
    command: str, layout: Path, weights: Callable[[str, str], Path], make_hf: Call, vlbench: Call, tmp_path: Path
) -> None:
    words = shlex.split(command)[1:]
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    model, task, mode = flags["--model"], flags["--task"], flags.get("--mode", "finetune")
    stands_for = {"DATA": str(layout)}
    if model.startswith("hf:"):
        stands_for[model] = f"hf:{make_hf('CLIPModel')}"
    else:
        run = weights(model, "nlvr2" if mode == "finetune" else task)
        stands_for |= {"CHECKPOINT": str(run), "ANSWERS": str(run / "checkpoints" / "best" / "answers.json")}
    asked = [stands_for.get(word, word) for word in words]
    done = vlbench(*asked, "--dry-run", "--quiet", "--allow-partial", "--output-path", tmp_path / "runs")
    assert done.code == 0, done.err
    assert not (tmp_path / "runs").exists()
    (expected,) = {
        "+".join(one.trained_on.splits)
        for one in published(task)
        if (again := one.row.rerun) and (again.model, again.mode) == (model, mode)
    }
    trained = re.search(r"^train +([\w+]+),", done.out, re.MULTILINE)
    assert (trained[1] if trained else "") == (expected if mode == "finetune" else "")
