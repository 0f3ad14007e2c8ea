"""The name of a run: equal for equal meaning, another one as soon as the numbers could differ."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vlbench.core.cards import Recipe
from vlbench.core.errors import DataError
from vlbench.core.spec import PLACE, RunSpec

_SAID_ELSEWHERE = frozenset({"train", "checkpoint", "model", "answers"})
"""Spec fields whose meaning lies in what they resolve to: the recipe, hashes of the weights and of what the model is
made of, and the answers."""


def fingerprint(
    spec: RunSpec,
    *,
    recipe: Recipe,
    task_version: int,
    task_sha256: str,
    manifest_sha256: str,
    weights_sha256: str,
    model_sha256: str,
    tokenizer_sha256: str,
    answers_sha256: str,
    vlbench_version: str,
) -> str:
    """Sixteen hex characters that name a run.

    Args:
        spec: the resolved spec; the fields of `core.spec.PLACE` do not count.
        recipe: the resolved recipe (the card's, over it `spec.train`).
        task_version: of the task's card.
        task_sha256: of what of that card decides a number, and of the task's code.
        manifest_sha256: of the data.
        weights_sha256: of the checkpoint begun with; empty from scratch.
        model_sha256: of all else that the model is made of where that is no part of this package, and stands for the
            model's name, which may be a path, then; empty where it is.
        tokenizer_sha256: of the tokenizer that lies beside the weights and is used; empty elsewhere.
        answers_sha256: of the answers chosen from and of those that the weights' rows stand for.
        vlbench_version: of this code.

    Raises:
        DataError: the spec's vocabulary cannot be read.
    """
    meaning = {
        "spec": _spec_meaning(spec),
        "recipe": _recipe_meaning(recipe),
        "task_version": task_version,
        "task": task_sha256,
        "manifest": manifest_sha256,
        "weights": weights_sha256,
        "model": model_sha256 or spec.model,
        "tokenizer": tokenizer_sha256,
        "answers": answers_sha256,
        "vlbench": vlbench_version,
    }
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _spec_meaning(spec: RunSpec) -> dict[str, object]:
    fields = {name: _number(value) for name, value in spec.model_dump(mode="json").items()}
    fields["controls"] = sorted(set(spec.controls or ()))
    fields["vocabulary"] = _words_sha256(spec.vocabulary) if spec.vocabulary else ""
    if spec.limit is None:
        del fields["limit_mode"]
    return {name: value for name, value in fields.items() if name not in PLACE | _SAID_ELSEWHERE}


def _recipe_meaning(recipe: Recipe) -> dict[str, object]:
    """The recipe's numbers; where steps are given, epochs say nothing."""
    fields = {name: _number(value) for name, value in recipe.model_dump(exclude_none=True).items()}
    if "steps" in fields:
        fields.pop("epochs", None)
    return fields


def _number(value: object) -> object:
    """500.0 as 500, for values that were copied into a model without validation."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _words_sha256(vocabulary: Path) -> str:
    """The sha256 of a vocabulary file, or of the vocabulary files in a folder: what it says, not where it lies."""
    path = vocabulary.expanduser()
    files = [path / name for name in ("vocab.txt", "tokenizer.json") if (path / name).is_file()] or [path]
    try:
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    except OSError as error:
        raise DataError(
            f"vocabulary {vocabulary} cannot be read ({error.strerror}): give a vocab.txt, a tokenizer.json "
            f"or a folder that holds one"
        ) from None
