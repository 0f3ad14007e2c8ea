"""The weights that a pretraining starts from: of the whole model, or of separate networks for its towers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vlbench import catalog
from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.paths import expand_home
from vlbench.core.pretraining import HasMomentumCopies, Pretraining
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.engine.pretraining.cut import as_network
from vlbench.engine.weights.files import chosen_weights, weights_file, weights_sha256
from vlbench.engine.weights.loading import Wanted, check_frozen, load_tensors, summary
from vlbench.engine.weights.state_dict import read_state, vocabulary_of
from vlbench.models.hf.folder import PREFIX

WHOLE = "checkpoint"
"""The key of weights for the whole model."""


@dataclass(frozen=True)
class Initial:
    """The weights that training starts from.

    files: by `checkpoint` for the whole model, or by the name of a tower; empty when training from scratch. hashes: of
    those weights, by the same keys.
    """

    files: Mapping[str, Path]
    hashes: Mapping[str, str]


def find_initial(spec: PretrainSpec, card: ModelCard, size: str) -> Initial:
    """The files that `--checkpoint` or `--init` stands for.

    Raises:
        VlbenchError: both are given, or a tower that the model cannot initialise (exit 2); no such weights (exit 6).
    """
    whole = chosen_weights(spec.checkpoint or "none", card.name, size)
    towers = catalog.model_towers(card)
    if spec.init and whole is not None:
        raise VlbenchError("--checkpoint fills the whole model and --init its towers: give one of them")
    if unknown := [name for name in spec.init if name not in towers]:
        expected = f"it takes {', '.join(towers)}" if towers else "it has no tower that can start so"
        raise VlbenchError(f"--init {unknown[0]} is not for {card.name}: {expected}")
    files: dict[str, Path] = {name: _tower_file(name, source) for name, source in spec.init.items()}
    if whole is not None:
        files = {WHOLE: whole}
    return Initial(files, {name: weights_sha256(path) for name, path in files.items()})


def load_initial(module: Pretraining, card: ModelCard, initial: Initial, vocabulary: str, progress: Progress) -> None:
    """Load the initial weights, restart momentum copies from them, and reject frozen layers that got no weights.

    vocabulary: hash of the tokens that the rows of the word embeddings stand for; empty where unknown.

    Raises:
        VlbenchError: the weights do not fit (exit 6), or frozen layers would stay at random values (exit 2).
    """
    network = as_network(module)
    loaded: frozenset[str] = frozenset()
    if WHOLE in initial.files:
        report, loaded = load_tensors(network, initial.files[WHOLE], Wanted(card, vocabulary=vocabulary))
        progress.say(summary(report))
    for name, file in initial.files.items() if WHOLE not in initial.files else ():
        names = _load_tower(network, card, name, file, vocabulary)
        progress.say(f"weights: {len(names):,} tensors of the {name} tower loaded")
        loaded |= names
    if loaded and isinstance(module, HasMomentumCopies):
        module.restart_copies(loaded)
    towers = ",".join(f"{name}=hf:FOLDER" for name in catalog.model_towers(card))
    check_frozen(network, loaded, f"--checkpoint FILE, or --init {towers}" if towers else "--checkpoint FILE")


def _tower_file(name: str, source: str) -> Path:
    folder = catalog.transformers_folder(source) if source.startswith(PREFIX) else expand_home(Path(source))
    return weights_file(folder, f"--init {name}=")


def _load_tower(network: nn.Module, card: ModelCard, name: str, file: Path, vocabulary: str) -> frozenset[str]:
    """Load one tower and return its tensors' names; the file must hold all of them, with the same shapes.

    Raises:
        VlbenchError: exit 6, tensors are missing or have other shapes, or the text tower has another vocabulary.
    """
    tower, own = catalog.model_towers(card)[name], network.state_dict()
    trained = vocabulary_of(file) if name == "text" and vocabulary else ""
    if trained and trained != vocabulary:
        raise VlbenchError(
            f"--init text={file.parent} was trained with another vocabulary ({trained[:12]}...) than this model's "
            f"({vocabulary[:12]}...): give its tokenizer.json or vocab.txt as --vocabulary",
            ExitCode.WEIGHTS,
        )
    weights = tower.converted(read_state(file, own), own)
    needed = [key for key in own if key.startswith(tower.fills)]
    if missing := [key for key in needed if key not in weights]:
        raise VlbenchError(
            f"--init {name}={file.parent} lacks {len(missing)} of the tower's {len(needed)} tensors "
            f"({first_five(missing)}): give a network of the same architecture and depth, or another --size",
            ExitCode.WEIGHTS,
        )
    if misshapen := [key for key, value in weights.items() if value.shape != own[key].shape]:
        key = misshapen[0]
        raise VlbenchError(
            f"--init {name}={file.parent} has {key} of shape {list(weights[key].shape)} where this size has "
            f"{list(own[key].shape)}: give a network of the same width, or another --size or --vocabulary",
            ExitCode.WEIGHTS,
        )
    network.load_state_dict(weights, strict=False)
    return frozenset(weights)
