"""Weights and preprocessing that belong to a model of transformers; without torch."""

from __future__ import annotations

from pathlib import Path

from vlbench import catalog
from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.weights.files import weights_file

PRETRAINED = "pretrained"
"""The `checkpoint` of a spec that means them."""


def own_weights(card: ModelCard) -> Path:
    """The file of the weights that the card's model has.

    Raises:
        VlbenchError: it has none (exit 2), or they are not to be had (exit 6).
    """
    if not card.pretrained:
        raise VlbenchError(f"--checkpoint {PRETRAINED} is for models of transformers (hf:), not for {card.name}")
    folder = catalog.pretrained_folder(card)
    try:
        return weights_file(folder)
    except VlbenchError:
        raise VlbenchError(
            f"{card.name} holds no weights (model.safetensors or pytorch_model.bin): save them into the same folder, "
            f"or begin from scratch with --checkpoint none",
            ExitCode.WEIGHTS,
        ) from None


def own_processor_sha256(card: ModelCard) -> str:
    """Identifies the preprocessing of a model that brings its own."""
    return catalog.processor_sha256(catalog.pretrained_folder(card, weights=False))
