"""Changed cards and configurations: a sentence, or a card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbench import catalog
from vlbench.cli.run import make_specs

WORDS = ("!!python/object/apply:os.system ['true']", "&a [*a, *a]", "*a", "!!binary x", "1e3", ".nan", "0x1F",
         "2001-01-01", "9" * 5000, "? [a]", "|", ">", "%YAML 9", "---", "...", "null", "{a: 1, a: 2}", "!!set {a}",
         "\ttab: 1", "<<: {a: 1}", "[" * 3000, "a: " * 50)  # fmt: skip
"""YAML of the kinds that surprise."""
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")


def change_yaml(content: bytes, rng: Random, mutate: Callable[..., bytes]) -> bytes:
    if rng.random() < 0.4:
        return mutate(yaml_as_json(content), rng)  # JSON is YAML
    lines = content.decode().split("\n")
    row = rng.randrange(len(lines))
    key, colon, _ = lines[row].partition(":")
    lines[row] = f"{key}{colon} {rng.choice(WORDS)}" if rng.random() < 0.7 else rng.choice(WORDS)
    return mutate("\n".join(lines).encode(), rng, False) if rng.random() < 0.3 else "\n".join(lines).encode()


def yaml_as_json(content: bytes) -> bytes:
    return json.dumps(yaml.safe_load(content)).encode()


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    """A task's and a model's card, and a run's configuration, in places of their own; and what they are."""
    root = tmp_path_factory.mktemp("cards")
    tasks, models = catalog.task_folders(), catalog.model_folders()
    (root / "tasks" / "mine").mkdir(parents=True)
    config = {"task": "nlvr2", "model": "cvlp", "seed": 1, "train": {"lr": 1e-3, "betas": [0.9, 0.99]}, "limit": 5}
    return {
        "task": (root / "tasks" / "mine" / "task.yaml", (tasks["nlvr2"] / "task.yaml").read_bytes()),
        "model": (root / "model.yaml", (models["soho"] / "model.yaml").read_bytes()),
        "config": (root / "run.yaml", yaml.safe_dump(config).encode()),
    }


def offer(kind: str, cards: dict[str, tuple[Path, bytes]], rng: Random, mutate: Any, allowed: Any) -> None:
    path, content = cards[kind]
    path.write_bytes(change_yaml(content, rng, mutate))
    with allowed():
        if kind == "task":
            card = catalog.task_card("mine", path.parents[1])
            assert card.main_metric in card.metrics
        elif kind == "model":
            model = catalog.model_card(f"{path.parent / 'model.py'}:Mine")
            assert all(model.recipe("vqa2", size) for size in model.sizes)
        else:
            assert all(spec.task and spec.model for spec in make_specs({}, path, []))


@pytest.mark.parametrize("kind", ["task", "model", "config"])
@settings(max_examples=80)
@given(rng=st.randoms(use_true_random=False))
def test_cards(kind: str, rng: Random, cards: Any, mutate: Any, sentence_or_result: Any) -> None:
    offer(kind, cards, rng, mutate, sentence_or_result)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["task", "model", "config"])
@settings(max_examples=600, derandomize=False)
@given(rng=st.randoms(use_true_random=False))
def test_cards_for_long(kind: str, rng: Random, cards: Any, mutate: Any, sentence_or_result: Any) -> None:
    offer(kind, cards, rng, mutate, sentence_or_result)


@settings(max_examples=60)
@given(text=st.text(max_size=40) | st.sampled_from([f"train.lr={word}" for word in WORDS]))
def test_settings(text: str, sentence_or_result: Any) -> None:
    with sentence_or_result():
        make_specs({"task": "nlvr2", "model": "cvlp"}, None, [text])


def test_no_object_is_made_and_no_code_is_run(tmp_path: Path, sentence_or_result: Any) -> None:
    """YAML that names code is refused, wherever it stands."""
    made = tmp_path / "made"
    for text in (f"!!python/object/apply:os.mkdir ['{made}']", f"task: !!python/object/new:os.mkdir ['{made}']"):
        (tmp_path / "run.yaml").write_text(text)
        (tmp_path / "model.yaml").write_text(text)
        for attempt in (
            lambda: make_specs({}, tmp_path / "run.yaml", []),
            lambda: catalog.model_card(f"{tmp_path / 'model.py'}:Mine"),
            lambda text=text: make_specs({}, None, [f"a={text}"]),
        ):
            refused = False
            with sentence_or_result():
                refused = True
                attempt()
                refused = False
            assert refused
    assert not made.exists()
