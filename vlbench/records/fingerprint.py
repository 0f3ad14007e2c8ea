"""The fingerprint of a run: equal for runs of the same meaning, different as soon as their numbers could differ."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vlbench.core.cards import Recipe
from vlbench.core.errors import DataError
from vlbench.core.modes import MODES
from vlbench.core.paths import expand_home
from vlbench.core.spec import PLACE, RunSpec

_RESOLVED_FIELDS = frozenset({"train", "checkpoint", "model", "answers"})
"""Spec fields that count by what they resolve to: the recipe, the hashes of weights and model, and the answers."""


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
        recipe: the resolved recipe (the card's, overridden by `spec.train`).
        task_version: the version of the task's card.
        task_sha256: the hash of the task's code and of the fields of its card that affect numbers.
        manifest_sha256: the hash of the data.
        weights_sha256: the hash of the initial checkpoint; empty from scratch.
        model_sha256: the hash of the code, card and settings of a model outside this package, in place of the model's
            name, which may be a path; empty for a model of this package.
        tokenizer_sha256: the hash of a tokenizer that is loaded from beside the weights; else empty.
        answers_sha256: the hash of the candidate answers and of those that the rows of the weights stand for.
        vlbench_version: the version of this package.

    Raises DataError: the spec's vocabulary cannot be read.
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
    fields["vocabulary"] = _vocabulary_sha256(spec.vocabulary) if spec.vocabulary else ""
    if spec.limit is None:
        del fields["limit_mode"]
    if spec.matmul_precision == "highest":  # as in runs from before it was an option
        del fields["matmul_precision"]
    if spec.dtype != "float32" and not MODES[spec.mode].trains_backbone:  # other runs compute in it, but do not hold it
        fields["weights_held_in"] = spec.dtype
    return {name: value for name, value in fields.items() if name not in PLACE | _RESOLVED_FIELDS}


def _recipe_meaning(recipe: Recipe) -> dict[str, object]:
    """The recipe's numbers; epochs do not count where steps are given."""
    fields = {name: _number(value) for name, value in recipe.model_dump(exclude_none=True).items()}
    if "steps" in fields:
        fields.pop("epochs", None)
    return fields


def _number(value: object) -> object:
    """500.0 as 500: values may be copied into a spec without validation."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _vocabulary_sha256(vocabulary: Path) -> str:
    """The sha256 of the content of a vocabulary file, or of the vocabulary files in a folder."""
    path = expand_home(vocabulary)
    files = [path / name for name in ("vocab.txt", "tokenizer.json") if (path / name).is_file()] or [path]
    try:
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    except OSError as error:
        raise DataError(
            f"vocabulary {vocabulary} cannot be read ({error.strerror}): give a vocab.txt, a tokenizer.json "
            f"or a folder that holds one"
        ) from None
