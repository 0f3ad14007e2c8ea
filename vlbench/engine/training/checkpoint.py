"""A run's weights and training state on disk: safetensors and plain tensors, no pickled code, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import StateDict

from vlbench.core.errors import DataError, shortage
from vlbench.data.text.answers import ANSWERS_FILE, write_answers
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.runtime.randomness import RandomState, random_state, restore_random_state
from vlbench.engine.training.atomic_folder import previous, recover_folder, replace_folder
from vlbench.engine.training.lora import merged_state
from vlbench.engine.weights.files import STANDS_ON
from vlbench.engine.weights.state_dict import VOCABULARY, read_safetensors

Weights = Literal["plain", "ema"]
State = Mapping[str, Tensor]
"""A module's `state_dict`."""


class Kept(Protocol):
    """A module or an optimizer, whose tensors may be sharded."""

    def state_dict(self) -> dict[str, Any]:
        """The state of whole tensors."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Restore the state; raises an error of any type if it does not fit."""


@dataclass(frozen=True)
class Best:
    """Which weights are in `best`.

    step: the optimizer step after which they were selected. weights: plain or averaged. value: of the selection metric;
    None where nothing was measured.
    """

    step: int
    weights: Weights
    value: float | None


@dataclass
class TrainState:
    """How far training is, in optimizer steps.

    selected_at: the last step after which weights were selected. best: which weights are kept as the best.
    accumulation: forward passes per step, where they were found by trying; None where the recipe sets them.
    """

    step: int = 0
    selected_at: int = 0
    best: Best | None = None
    accumulation: int | None = None


@dataclass(frozen=True)
class Checkpoints:
    """The folders `best` and `last` below a run's folder.

    `best` holds weights, tokenizer and the list of open answers. `last` holds the training state; the one before it is
    kept too, in case the newest is damaged.

    text: the tokenizer. names: metadata of the weights, such as model and size. answers: the open answers that the
    classifier's rows stand for.
    """

    folder: Path
    text: TextEncoder | None = None
    names: dict[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ()

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the weights: the names of model and size, and the hash of the training vocabulary."""
        return self.names | ({VOCABULARY: self.text.vocabulary_sha256} if self.text else {})

    @property
    def head_only(self) -> bool:
        """Whether the backbone is the unchanged shipped one, so that only the head is saved."""
        return STANDS_ON in self.names

    def save_best(self, learner: nn.Module) -> None:
        """Write the learner's weights, with adapters merged, and the tokenizer; with `head_only` the head alone."""
        state = merged_state(learner).items()
        self.write_best({name: value for name, value in state if name.startswith("head.") or not self.head_only})

    def write_best(self, state: State) -> None:
        """Write weights that are given as tensors, and the tokenizer."""

        def write(folder: Path) -> None:
            save_weights(_unshared(state), folder / "model.safetensors", self.metadata)
            if self.text is not None:
                self.text.save(folder / "tokenizer.json")
            if self.answers:
                write_answers(folder / ANSWERS_FILE, self.answers)

        replace_folder(self.folder / "best", write)

    def load_best(self, learner: nn.Module) -> None:
        """Load the best weights into the learner."""
        recover_folder(self.folder / "best")
        state = read_safetensors(self.folder / "best" / "model.safetensors")
        learner.load_state_dict(state, strict=not self.head_only)

    def save_last(
        self,
        state: TrainState,
        learner: State,
        average: State | None,
        optimizer: StateDict,
        schedule: LambdaLR,
        random_states: Sequence[RandomState] = (),
    ) -> None:
        """Write everything that the rest of the training depends on.

        learner, average, optimizer: their states, of whole tensors where they are sharded.
        random_states: of each process, by rank; of this process alone where left out.
        """

        def write(folder: Path) -> None:
            save_weights(_unshared(learner), folder / "model.safetensors")
            if average is not None:
                save_weights(_unshared(average), folder / "average.safetensors")
            trainer = {
                "optimizer": optimizer,
                "schedule": schedule.state_dict(),
                "chance": list(random_states) or [random_state()],  # the key of states that exist on disk
            }
            torch.save(trainer, folder / "trainer.pt")
            (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf8")

        replace_folder(self.folder / "last", write, keep=True)

    def load_last(
        self, learner: Kept, average: Kept | None, optimizer: Kept, schedule: LambdaLR, rank: int = 0
    ) -> TrainState | None:
        """Restore the state that `save_last` wrote, or the one before it where that is damaged; None where none exists.

        rank: of this process; it keeps its current random states if none were saved for its rank.

        Raises:
            DataError: every saved state is damaged or of another model.
        """
        newest = self.folder / "last"
        faults: list[DataError] = []
        for folder in filter(Path.exists, (newest, previous(newest))):
            try:
                return _restored(folder, learner, average, optimizer, schedule, rank)
            except DataError as error:
                faults.append(error)
        if faults:
            raise faults[0]
        return None


def save_weights(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a new safetensors file with the permissions of the umask: `save_file` alone gives it to its owner only.

    Raises OSError or SafetensorError if it cannot be written.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)


def _restored(
    folder: Path, learner: Kept, average: Kept | None, optimizer: Kept, schedule: LambdaLR, rank: int
) -> TrainState:
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf8"))
        best = content.pop("best")
        state = TrainState(**content, best=Best(**best) if best else None)
        trainer = torch.load(folder / "trainer.pt", weights_only=True)
        learner.load_state_dict(read_safetensors(folder / "model.safetensors"))
        if average is not None:
            average.load_state_dict(read_safetensors(folder / "average.safetensors"))
        optimizer.load_state_dict(trainer["optimizer"])
        schedule.load_state_dict(trainer["schedule"])
        if rank < len(trainer["chance"]):
            restore_random_state(trainer["chance"][rank])
    except Exception as error:  # damaged bytes raise any type of error
        if shortage(error):
            raise
        raise DataError(
            f"{folder} cannot be resumed from ({' '.join(str(error).split())[:200]}): "
            f"delete that folder or start over with --no-resume"
        ) from None
    return state


def _unshared(state: State) -> dict[str, Tensor]:
    """The tensors without shared memory, as safetensors requires: tied embeddings, for example, are copied."""
    unshared: dict[str, Tensor] = {}
    pointers: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().contiguous().cpu()
        unshared[name] = tensor.clone() if tensor.data_ptr() in pointers else tensor
        pointers.add(tensor.data_ptr())
    return unshared
