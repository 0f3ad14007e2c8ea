"""The processes that share a run, in as few words as the engine needs about them; one alone needs no torch.

Places come from the launcher's environment (torchrun, `accelerate launch`, or our own `--num-processes`), everything
that is exchanged goes through Accelerate.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from vlbench.core.accelerate_env import remove_variables
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.runtime.interrupt import Interrupted

if TYPE_CHECKING:
    from accelerate import Accelerator

Item = TypeVar("Item")
Made = TypeVar("Made")

_PATIENCE = timedelta(days=7)
"""How long a process waits for another: rank 0 may extract features or score for hours while the others wait."""
QUIET = "TORCH_CPP_LOG_LEVEL", "ERROR"
"""Said before torch is imported: every process would print its warnings."""
_TO_BE_ENDED = 60.0
"""Seconds in which a launcher ends the processes that are left; torchrun needs at most half of that."""
_TO_LET_OTHERS_SPEAK = 2.0
"""Seconds that rank 0 is ahead of others with an error that all of them have."""


class SharedError(VlbenchError):
    """An error that every process of the run raises alike, so that all can go on with the next run together."""


@dataclass(frozen=True)
class Ranks:
    """This process's place: its rank among `size` processes, and its `local_rank` among those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def of(cls, accelerator: Accelerator) -> Ranks:
        """The place that Accelerate knows."""
        return cls(accelerator.process_index, accelerator.num_processes, accelerator.local_process_index)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes records, logs and stdout."""
        return self.rank == 0

    def mine(self, items: Sequence[Item]) -> list[Item]:
        """This rank's share: items r, r + W, r + 2W..."""
        return list(items[self.rank :: self.size])

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gather_objects(self, item: Item) -> list[Item]:
        """Every rank's item, in the order of the ranks, on every rank."""
        if self.size == 1:
            return [item]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([item])
        return gathered

    def share(self, item: Item) -> Item:
        """Rank 0's item, on every rank."""
        if self.size == 1:
            return item
        from accelerate.utils import broadcast_object_list

        box = [item]
        broadcast_object_list(box, from_process=0)
        return box[0]

    def together(self, work: Callable[[], Made]) -> Made:
        """Do the work on rank 0, then on the first rank of every other machine, then on the rest.

        What the first makes, such as a cache, the others find.

        Raises:
            SharedError: the work raised a VlbenchError on some rank; it is raised on every rank.
        """
        if self.size == 1:
            return work()
        turn = 0 if self.is_main else 1 if self.local_rank == 0 else 2
        made: list[Made] = []
        for number in range(3):
            self._agreed(work, made if number == turn else None)
        return made[0]

    def _agreed(self, work: Callable[[], Made], made: list[Made] | None) -> None:
        """One turn: work where there is a place to put what is made, then tell each other how it went."""
        fault: VlbenchError | None = None
        if made is not None:
            try:
                made.append(work())
            except VlbenchError as error:
                fault = error
        told = self.gather_objects((fault.message, int(fault.exit_code)) if fault else None)
        for rank, one in enumerate(told):
            if one is not None:
                message = one[0] if rank == 0 else f"process {rank} of {self.size}: {one[0]}"
                if one[1] == ExitCode.INTERRUPTED:
                    raise Interrupted(one[0]) from fault
                raise SharedError(message, ExitCode(one[1])) from fault


def is_launched() -> bool:
    """Whether a launcher such as torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launched() -> Ranks:
    """This process's place by its launcher's environment; one alone where no launcher started it."""
    values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(value.isdigit() for value in values):
        return Ranks()
    rank, size, local_rank = map(int, values)
    return Ranks(rank, size, local_rank)


def join(device: str | None, asked: int | None = None) -> Ranks:
    """Meet the other processes that the launcher started: over gloo on the CPU, nccl on GPUs.

    asked: how many processes the user wants, by `--num-processes`; None takes as many as there are.

    Raises:
        VlbenchError: there are more or fewer, or more than GPUs.
    """
    ranks = launched()
    check_size(ranks.size, asked)
    if ranks.size > 1:
        os.environ.setdefault(*QUIET)
        import torch
        from accelerate import PartialState

        local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if device != "cpu" and 0 < gpus < local:
            raise VlbenchError(
                f"{local} processes started on a machine with {gpus} GPUs: start one for each, or use --device cpu"
            )
        # Accelerate keeps its first settings for the whole process; a second run may ask for another device.
        PartialState._reset_state()
        remove_variables(device)
        PartialState(cpu=on_cpu(device), timeout=_PATIENCE)
        atexit.unregister(_leave)
        atexit.register(_leave)
    return ranks


def on_cpu(device: str | None) -> bool:
    """Whether Accelerate must be told that this is for CPUs: several processes without GPUs it leaves alone else."""
    if device == "cpu" or launched().size == 1:
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def _leave() -> None:
    """Part from the other processes: threads of gloo that outlive the interpreter would abort it."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_size(size: int, asked: int | None) -> None:
    """Raises VlbenchError where other than the processes asked for were started; asked: None is content with all."""
    if asked is not None and asked != size:
        raise VlbenchError(
            f"{asked} processes were asked for and {size} started: give the launcher and --num-processes the same "
            f"number, or use one of them only"
        )
    # `accelerate launch --num_processes N` starts a single process on a CPU and leaves this behind.
    if size == 1 and "MASTER_PORT" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise VlbenchError(
            "`accelerate launch` was asked for several processes and started 1, as it does on CPUs: use "
            "`vlbench run --num-processes N` or `torchrun --nproc-per-node N -m vlbench run` instead"
        )


def is_lost_peer(error: BaseException) -> bool:
    """Whether the error only says that another process of the run has ended, whose own error is the cause."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if {"DistBackendError", "DistNetworkError"} & names:
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def give_way(error: BaseException) -> str:
    """Let the process speak that has the cause: the launcher ends the others while they wait here.

    An error that all have is rank 0's to tell; one that only follows from another's end is nobody's. Returns what a
    sentence about the error begins with: which process has it, unless it is rank 0.
    """
    ranks = launched()
    if ranks.size > 1 and is_lost_peer(error):
        time.sleep(_TO_BE_ENDED)
    elif not ranks.is_main:
        time.sleep(_TO_LET_OTHERS_SPEAK)
    return "" if ranks.is_main else f"process {ranks.rank} of {ranks.size}: "
