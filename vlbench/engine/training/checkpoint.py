"""A run's weights and training state on disk: safetensors and plain tensors, never pickled code, never half-written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlbench.core.errors import DataError, VlbenchError
from vlbench.data.text.answers import ANSWERS_FILE, write_answers
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.runtime.randomness import RandomState, random_state, restore_random_state
from vlbench.engine.training.atomic_folder import before, remove_folder, replace_folder, settle
from vlbench.engine.training.lora import merged_state
from vlbench.engine.weights.files import STANDS_ON
from vlbench.engine.weights.state_dict import VOCABULARY, read_safetensors

Weights = Literal["plain", "ema"]
State = Mapping[str, Tensor]
"""What a module's `state_dict` gives."""

_DAMAGED = (OSError, RuntimeError, KeyError, IndexError, TypeError, ValueError, EOFError, pickle.UnpicklingError)
"""What readers raise over files that are not what they were."""


@dataclass(frozen=True)
class Best:
    """Which weights are in `best`: after which step, plain or averaged, their value where one was measured."""

    step: int
    weights: Weights
    value: float | None


@dataclass
class TrainState:
    """How far training is: optimizer steps done, and the last one after which weights were selected.

    accumulation: forward passes per step, where they were found by trying; None where the recipe says it.
    """

    step: int = 0
    selected_at: int = 0
    best: Best | None = None
    accumulation: int | None = None


@dataclass(frozen=True)
class Checkpoints:
    """`best` and `last` below a run's folder. `best` is complete: weights, tokenizer and open answers go together.

    Of `last` the one before it is kept too, for when the newest turns out damaged.
    """

    folder: Path
    text: TextEncoder | None = None
    names: dict[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ()

    @property
    def notes(self) -> dict[str, str]:
        """What is noted in the weights: the names of model and size, and which vocabulary they were trained with."""
        return self.names | ({VOCABULARY: self.text.vocabulary_sha256} if self.text else {})

    @property
    def head_only(self) -> bool:
        """Whether the backbone stays what a model ships with, so that only the head is worth keeping."""
        return STANDS_ON in self.names

    def save_best(self, learner: nn.Module) -> None:
        """Write the weights, adapters merged into them, with the tokenizer and the names of model and size.

        Of a head that stands on shipped weights, the head alone.
        """
        state = merged_state(learner)
        self.write_best(
            {name: value for name, value in state.items() if name.startswith("head.") or not self.head_only}
        )

    def write_best(self, state: State) -> None:
        """The same, of weights that are at hand as tensors."""

        def write(folder: Path) -> None:
            save_file(_apart(state), folder / "model.safetensors", metadata=self.notes)
            if self.text is not None:
                self.text.save(folder / "tokenizer.json")
            if self.answers:
                write_answers(folder / ANSWERS_FILE, self.answers)

        replace_folder(self.folder / "best", write)

    def load_best(self, learner: nn.Module) -> None:
        """Put the best weights into the learner."""
        settle(self.folder / "best")
        state = read_safetensors(self.folder / "best" / "model.safetensors")
        learner.load_state_dict(state, strict=not self.head_only)

    def save_last(
        self,
        state: TrainState,
        learner: State,
        average: nn.Module | None,
        optimizer: Optimizer,
        schedule: LambdaLR,
        chance: Sequence[RandomState] = (),
    ) -> None:
        """Write everything that the rest of the training depends on. chance: of each process; left out: of this one."""

        def write(folder: Path) -> None:
            save_file(_apart(learner), folder / "model.safetensors")
            if average is not None:
                save_file(_apart(average.state_dict()), folder / "average.safetensors")
            trainer = {
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "chance": list(chance) or [random_state()],
            }
            torch.save(trainer, folder / "trainer.pt")
            (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf8")

        replace_folder(self.folder / "last", write, keep=True)

    def load_last(
        self, learner: nn.Module, average: nn.Module | None, optimizer: Optimizer, schedule: LambdaLR, rank: int = 0
    ) -> TrainState | None:
        """Restore what `save_last` wrote, or where that is damaged what it wrote before; None where there is nothing.

        rank: this process's; one that there was none of keeps its own states of chance.

        Raises:
            DataError: all that is there is damaged, or of another model.
        """
        newest = self.folder / "last"
        fault: DataError | None = None
        for folder in (newest, before(newest)):
            if not folder.exists():
                continue
            try:
                return _restored(folder, learner, average, optimizer, schedule, rank)
            except DataError as error:
                fault = fault or error
        if fault is not None:
            raise fault
        return None

    def drop_last(self) -> None:
        """Forget the training state of a finished run; its best weights stay."""
        remove_folder(self.folder / "last")
        settle(self.folder / "best")
        remove_folder(before(self.folder / "best"))


def _restored(
    folder: Path,
    learner: nn.Module,
    average: nn.Module | None,
    optimizer: Optimizer,
    schedule: LambdaLR,
    rank: int,
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
    except (*_DAMAGED, VlbenchError) as error:
        raise DataError(
            f"{folder} cannot be resumed from ({' '.join(str(error).split())[:200]}): "
            f"delete that folder or start over with --no-resume"
        ) from None
    return state


def _apart(state: State) -> dict[str, Tensor]:
    """Of tensors that share memory, such as tied embeddings, each gets its own, as safetensors wants it."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().contiguous().cpu()
        found[name] = tensor.clone() if tensor.data_ptr() in taken else tensor
        taken.add(tensor.data_ptr())
    return found
