"""The processes that share a run: their ranks, and what they exchange. A single process does not need torch.

Ranks come from the environment that the launcher sets (torchrun, `accelerate launch`, or vlbench's own
`--num-processes`). All communication goes through Accelerate.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from vlbench.core.accelerate_env import remove_variables, removed_message
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Progress
from vlbench.engine.runtime.interrupt import Interrupted

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed.distributed_c10d import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

_TIMEOUT = timedelta(days=7)
"""The longest wait for another process: rank 0 may extract features or score for hours meanwhile."""
_PATIENCE = timedelta(minutes=5)
"""The longest wait for the other processes to start, as torch's own: nobody starts those whose launcher has died."""
QUIET = "TORCH_CPP_LOG_LEVEL", "ERROR"
"""The variable, set before torch is imported, that keeps every process from printing torch's warnings."""
_SECONDS_TO_BE_ENDED = 60.0
"""Within this time a launcher ends the remaining processes; torchrun needs at most half of it."""
_SECONDS_BEHIND_RANK_0 = 2.0
"""The delay of an error on other ranks, so that rank 0 reports an error of all ranks first."""


_groups = itertools.count()


class SharedError(VlbenchError):
    """An error that every process of the run raises, so that all can continue with the next run together."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank among the `size` processes of a run, and its rank among those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def of(cls, accelerator: Accelerator) -> Ranks:
        """The ranks that Accelerate has set up."""
        return cls(accelerator.process_index, accelerator.num_processes, accelerator.local_process_index)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that writes records, logs and stdout."""
        return self.rank == 0

    def mine(self, items: Sequence[Item]) -> list[Item]:
        """This rank's share: items r, r + W, r + 2W..."""
        return list(items[self.rank :: self.size])

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gather_objects(self, item: Item) -> list[Item]:
        """Collect every rank's item, in the order of the ranks, on every rank."""
        if self.size == 1:
            return [item]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([item])
        return gathered

    def share(self, item: Item) -> Item:
        """Send rank 0's item to every rank."""
        if self.size == 1:
            return item
        from accelerate.utils import broadcast_object_list

        box = [item]
        broadcast_object_list(box, from_process=0)
        return box[0]

    def together(self, work: Callable[[], Result]) -> Result:
        """Do the work on rank 0, then on the first rank of every other machine, then on the others, which find caches.

        Raises:
            SharedError: on every rank, if the work raised a VlbenchError on some rank.
        """
        if self.size == 1:
            return work()
        own_turn = 0 if self.is_main else 1 if self.local_rank == 0 else 2
        results: list[Result] = []
        for turn in range(3):
            own: VlbenchError | None = None
            if turn == own_turn:
                try:
                    results.append(work())
                except VlbenchError as error:
                    own = error
            for rank, reported in enumerate(self.gather_objects((own.message, int(own.exit_code)) if own else None)):
                if reported is not None:
                    text, code = reported
                    if code == ExitCode.INTERRUPTED:
                        raise Interrupted(text) from own
                    message = text if rank == 0 else f"process {rank} of {self.size}: {text}"
                    raise SharedError(message, ExitCode(code)) from own
        return results[0]


def is_launched() -> bool:
    """Whether a launcher such as torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launched() -> Ranks:
    """This process's ranks from its launcher's environment; a single process where no launcher started it."""
    values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(value.isdigit() for value in values):
        return Ranks()
    rank, size, local_rank = map(int, values)
    return Ranks(rank, size, local_rank)


@contextmanager
def joined(device: str | None, num_processes: int | None = None, progress: Progress | None = None) -> Iterator[Ranks]:
    """A context in which this process is connected to those that its launcher started: gloo on CPUs, nccl on GPUs.

    First removes Accelerate's variables that could change a number from the environment, and says so on rank 0. A
    process group that the caller has set up is used, and stays. After an error the group stays until the process ends,
    since the others may be in an exchange.

    Raises:
        VlbenchError: a flag of Accelerate is malformed; as `check_size`; more processes than GPUs exist; or some
            processes do not start.
    """
    removed, ranks = remove_variables(device), launched()
    if removed and progress is not None and ranks.is_main:
        progress.say(removed_message(removed))
    check_size(ranks.size, num_processes)
    own_group = False
    if ranks.size > 1:
        os.environ.setdefault(*QUIET)
        import torch

        local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if device != "cpu" and 0 < gpus < local:
            raise VlbenchError(
                f"{local} processes started on a machine with {gpus} GPUs: start one for each, or use --device cpu"
            )
        own_group = _connect(ranks, device)
    try:
        yield ranks
    except BaseException as error:
        own_group = own_group and isinstance(error, SharedError)
        raise
    finally:
        if own_group:
            _leave()


def _connect(ranks: Ranks, device: str | None) -> bool:
    """Set up Accelerate for the device, and the process group unless there is one; returns whether there was none."""
    import torch
    from accelerate import PartialState
    from torch.distributed.distributed_c10d import PrefixStore

    PartialState._reset_state()  # it would keep its first settings for the whole process
    if torch.distributed.is_initialized():
        PartialState(cpu=on_cpu(device))
        return False
    # Its functions have the process group as a default value: imported later, they would keep it and its threads alive.
    importlib.import_module("torch.distributed.nn.functional")
    store = PrefixStore(f"vlbench-{next(_groups)}", _meet(ranks))
    PartialState(cpu=on_cpu(device), timeout=_TIMEOUT, store=store, rank=ranks.rank, world_size=ranks.size)
    atexit.register(_leave)
    return True


@cache
def _meet(ranks: Ranks) -> Store:
    """The store that all processes of the run have reached.

    Raises:
        VlbenchError: some have not within `_PATIENCE`.
    """
    from torch.distributed import DistError
    from torch.distributed.rendezvous import rendezvous

    try:
        store: Store = next(rendezvous("env://", timeout=_PATIENCE))[0]
        store.set(f"vlbench-{ranks.rank}", "")
        store.wait([f"vlbench-{rank}" for rank in range(ranks.size)], _PATIENCE)
    except DistError:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise VlbenchError(
            f"not all {ranks.size} processes met at {place} within {_PATIENCE.seconds} seconds: start all of them at "
            f"about the same time, each with the same MASTER_ADDR and MASTER_PORT, and see whether one has ended",
            ExitCode.INTERRUPTED,
        ) from None
    store.set_timeout(_TIMEOUT)
    return store


def on_cpu(device: str | None) -> bool:
    """Whether Accelerate must be told to use CPUs: it would not connect several processes without GPUs otherwise."""
    if device == "cpu" or launched().size == 1:
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def _leave() -> None:
    """Disconnect from the other processes and wait for gloo's threads, which abort an interpreter that they outlive.

    They end when nothing refers to the process group any more.
    """
    import torch
    from accelerate import PartialState

    atexit.unregister(_leave)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    PartialState._reset_state()
    gc.collect()


def check_size(size: int, num_processes: int | None) -> None:
    """Raise a VlbenchError if another number of processes was started than --num-processes; None accepts any number."""
    if num_processes is not None and num_processes != size:
        raise VlbenchError(
            f"{num_processes} processes were asked for and {size} started: give the launcher and --num-processes the "
            f"same number, or use one of them only"
        )
    # `accelerate launch --num_processes N` starts a single process on a CPU and leaves these variables set.
    if size == 1 and "MASTER_PORT" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise VlbenchError(
            "`accelerate launch` was asked for several processes and started 1, as it does on CPUs: use "
            "`vlbench run --num-processes N` or `torchrun --nproc-per-node N -m vlbench run` instead"
        )


def is_lost_peer(error: BaseException) -> bool:
    """Whether the error only reports that another process of the run has ended."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if {"DistBackendError", "DistNetworkError"} & names:
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def give_way(error: BaseException) -> str:
    """Wait, so that the process with the causing error, or rank 0, reports it; the launcher ends the others meanwhile.

    Returns:
        The prefix of the message about the error, which names the process; empty on rank 0.
    """
    ranks = launched()
    if ranks.size > 1 and is_lost_peer(error):
        time.sleep(_SECONDS_TO_BE_ENDED)
    elif not ranks.is_main:
        time.sleep(_SECONDS_BEHIND_RANK_0)
    return "" if ranks.is_main else f"process {ranks.rank} of {ranks.size}: "
