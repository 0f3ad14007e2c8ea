"""A run's weights and training state on disk: safetensors and plain tensors, never pickled code, never half-written."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlbench.core.errors import DataError
from vlbench.data.answers import ANSWERS_FILE, write_answers
from vlbench.data.text import TextEncoder
from vlbench.engine.lora import merged_state
from vlbench.engine.statefile import read_safetensors

Weights = Literal["plain", "ema"]


@dataclass(frozen=True)
class Best:
    """Which weights are in `best`: after which step, plain or averaged, their value where one was measured."""

    step: int
    weights: Weights
    value: float | None


@dataclass
class TrainState:
    """How far training is: optimizer steps done, and the last one after which weights were selected."""

    step: int = 0
    selected_at: int = 0
    best: Best | None = None


@dataclass(frozen=True)
class Checkpoints:
    """`best` and `last` below a run's folder. `best` is complete: weights, tokenizer and open answers go together."""

    folder: Path
    text: TextEncoder | None = None
    names: dict[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ()

    def save_best(self, learner: nn.Module) -> None:
        """Write the weights, adapters merged into them, with the tokenizer and the names of model and size."""

        def write(folder: Path) -> None:
            save_file(_tensors(merged_state(learner)), folder / "model.safetensors", metadata=dict(self.names))
            if self.text is not None:
                self.text.save(folder / "tokenizer.json")
            if self.answers:
                write_answers(folder / ANSWERS_FILE, self.answers)

        _replace_folder(self.folder / "best", write)

    def load_best(self, learner: nn.Module) -> None:
        """Put the best weights into the learner."""
        learner.load_state_dict(read_safetensors(self.folder / "best" / "model.safetensors"))

    def save_last(
        self,
        state: TrainState,
        learner: nn.Module,
        average: nn.Module | None,
        optimizer: Optimizer,
        schedule: LambdaLR,
    ) -> None:
        """Write everything that the rest of the training depends on, the random states among it."""

        def write(folder: Path) -> None:
            save_file(_tensors(learner.state_dict()), folder / "model.safetensors")
            if average is not None:
                save_file(_tensors(average.state_dict()), folder / "average.safetensors")
            trainer = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "torch": _torch_rng()}
            torch.save(trainer, folder / "trainer.pt")
            python, numbers = random.getstate(), cast("tuple[object, ...]", numpy.random.get_state(legacy=True))
            content = {
                "step": state.step,
                "selected_at": state.selected_at,
                "best": asdict(state.best) if state.best else None,
                "python": [python[0], list(python[1]), python[2]],
                "numpy": [numbers[0], numpy.asarray(numbers[1]).tolist(), *numbers[2:]],
            }
            (folder / "state.json").write_text(json.dumps(content), encoding="utf8")

        _replace_folder(self.folder / "last", write)

    def load_last(
        self, learner: nn.Module, average: nn.Module | None, optimizer: Optimizer, schedule: LambdaLR
    ) -> TrainState | None:
        """Restore what `save_last` wrote; None where there is nothing to resume."""
        folder = self.folder / "last"
        if not (folder / "state.json").is_file():
            return None
        try:
            learner.load_state_dict(read_safetensors(folder / "model.safetensors"))
            if average is not None:
                average.load_state_dict(read_safetensors(folder / "average.safetensors"))
            trainer = torch.load(folder / "trainer.pt", weights_only=True)
            optimizer.load_state_dict(trainer["optimizer"])
            schedule.load_state_dict(trainer["schedule"])
            content = json.loads((folder / "state.json").read_text(encoding="utf8"))
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise DataError(
                f"{folder} cannot be resumed from ({' '.join(str(error).split())[:200]}): "
                f"delete that folder or start over with --no-resume"
            ) from None
        _restore_rng(trainer["torch"], content["python"], content["numpy"])
        best = content["best"]
        return TrainState(content["step"], content["selected_at"], Best(**best) if best else None)

    def drop_last(self) -> None:
        """Forget the training state of a finished run; its best weights stay."""
        shutil.rmtree(self.folder / "last", ignore_errors=True)


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state as it is saved: of tensors that share memory, such as tied embeddings, each gets its own."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().contiguous().cpu()
        found[name] = tensor.clone() if tensor.data_ptr() in taken else tensor
        taken.add(tensor.data_ptr())
    return found


def _torch_rng() -> dict[str, Tensor | list[Tensor]]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _restore_rng(states: dict[str, Tensor | list[Tensor]], python: list[object], numbers: list[object]) -> None:
    torch.set_rng_state(states["cpu"])  # type: ignore[arg-type]
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate((python[0], tuple(cast("list[int]", python[1])), python[2]))
    name, keys, *rest = numbers
    numpy.random.set_state(
        cast("tuple[str, NDArray[numpy.uint32], int, int, float]", (name, numpy.array(keys, numpy.uint32), *rest))
    )


def _replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside the old one, then swap; a failure leaves the old one as it was."""
    beside = folder.with_name(f"{folder.name}.new-{os.getpid()}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write(beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise DataError(f"cannot write {folder} ({error}): free some space or give another --output-path") from None
