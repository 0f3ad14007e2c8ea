"""A network of transformers: made from its config.json, filled with the weights beside it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn

from vlbench.core.backbone import PretrainedWeights
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.record import LoadReport
from vlbench.data.files.pickles import more_than_weights
from vlbench.data.resources import Loading
from vlbench.models.hf.families import WRITER, Family, TrainedHead, family_of

_LEAST = 0.99
"""Share of the network's tensors that must be among the weights."""
_FAULTS = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, ImportError),
    *(pickle.UnpicklingError, SafetensorError, StrictDataclassError),
)
"""What the library raises on a config.json that makes no network, and on weights that are damaged or hold code."""


class Source:
    """A folder with a config.json: the network that it describes, and what that brings along.

    loading: how it is brought into memory. own_code: the Auto classes that code in the folder stands for.

    Raises:
        VlbenchError: of no family known here; a config.json that makes no network (exit 6).
    """

    def __init__(self, folder: Path, name: str, loading: Loading) -> None:
        from transformers import AutoConfig

        self.folder, self.name, self.loading = folder, name, loading
        try:
            self.config = AutoConfig.from_pretrained(folder, trust_remote_code=loading.trust_remote_code)
        except _FAULTS as error:
            raise self.fault("a config.json that does not load", error) from None
        self.architecture = str((self.config.architectures or [""])[0])
        self.own_code: Collection[str] = getattr(self.config, "auto_map", None) or ()
        self.family: Family = family_of(self.config.model_type, self.architecture, name, self.own_code)
        self.head: TrainedHead | None = self.family.heads.get(self.architecture)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights in memory."""
        return cast(torch.dtype, getattr(torch, self.loading.dtype))

    def make(self) -> nn.Module:
        """The network without a head; its tensors are without memory where its own weights are loaded at once.

        Raises:
            VlbenchError: exit 6, the config.json makes none.
        """
        return self._made(lambda: self._class(self.family.model)(self.config))

    def make_writer(self) -> nn.Module:
        """One that writes; see `make`."""
        trusted = self.loading.trust_remote_code
        return self._made(lambda: self._writer().from_config(self.config, dtype=self.dtype, trust_remote_code=trusted))

    def _made(self, make: Callable[[], object]) -> nn.Module:
        try:
            with _quiet(), torch.device("meta") if self.loading.at_once else nullcontext():
                return cast(nn.Module, make())
        except _FAULTS as error:
            raise self.fault("a config.json that makes no network", error) from None

    def load(self) -> tuple[nn.Module, PretrainedWeights]:
        """The network as `make` makes it, filled with its weights, and the head that was trained with it.

        Raises:
            VlbenchError: exit 6, weights that do not load, are of other shapes, or hold under 99 % of the network; one
                that is not finite.
        """
        whole, missing, unexpected = self._read(self._class(self.architecture if self.head else self.family.model), {})
        inside = self.head.inside if self.head else ""
        loaded = attrgetter(inside)(whole) if inside else whole
        report = self._report(loaded, f"{inside}." if inside else "", missing, unexpected)
        head = self._head_weights(whole, missing)
        self._check_finite(head)
        return loaded, PretrainedWeights(report, head)

    def load_writer(self) -> tuple[nn.Module, LoadReport]:
        """One that writes, filled with its weights; on its devices where it is spread.

        Raises:
            VlbenchError: as `load`.
        """
        rounded = quantization(self.loading.quantize, self.dtype)
        placed = {"device_map": self.loading.device_map, "quantization_config": rounded}
        given = {name: value for name, value in placed.items() if value is not None}
        whole, missing, unexpected = self._read(self._writer(), given)
        return whole, self._report(whole, "", missing, unexpected)

    def _read(self, kind: Any, placed: Mapping[str, object]) -> tuple[nn.Module, set[str], int]:
        """What the library makes of the folder, the names of tensors missing in it, the number of unexpected ones."""
        try:
            with _quiet():
                whole, info = kind.from_pretrained(
                    self.folder,
                    dtype=self.dtype,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # the sentence below says more than the library's
                    trust_remote_code=self.loading.trust_remote_code,
                    **placed,
                )
        except _FAULTS as error:
            if code := more_than_weights(error):
                raise VlbenchError(f"{self.name} {code}", ExitCode.WEIGHTS) from None
            raise self.fault("weights that do not load", error) from None
        self._check_shapes(info["mismatched_keys"])
        return whole, set(info["missing_keys"]), len(info["unexpected_keys"])

    def _check_shapes(self, other: Collection[tuple[str, Sequence[int], Sequence[int]]]) -> None:
        if other:
            name, given, wanted = min(other)
            raise VlbenchError(
                f"{self.name} holds {len(other)} tensors of another shape than its config.json says ({name} is "
                f"{list(given)} in the file and {list(wanted)} here): give the config.json that belongs to the weights",
                ExitCode.WEIGHTS,
            )

    def _report(self, loaded: nn.Module, before: str, missing: set[str], unexpected: int) -> LoadReport:
        """How the weights met the network, whose names begin with `before` among those missing."""
        wanted = dict(loaded.state_dict())
        absent = tuple(sorted(name for name in wanted if f"{before}{name}" in missing))
        self._check(wanted, absent)
        return LoadReport(matched=len(wanted) - len(absent), missing=len(absent), unexpected=unexpected, absent=absent)

    def _check(self, wanted: Mapping[str, Tensor], absent: tuple[str, ...]) -> None:
        found = len(wanted) - len(absent)
        if found < _LEAST * len(wanted):
            raise VlbenchError(
                f"{self.name} has {found} of the {len(wanted)} tensors of its {self.family.title} "
                f"({first_five(absent)} are missing), expected at least 99 %: give the whole of its weights",
                ExitCode.WEIGHTS,
            )
        self._check_finite(wanted)

    def _check_finite(self, weights: Mapping[str, Tensor]) -> None:
        here = {name: value for name, value in weights.items() if not value.is_meta}  # others are still on the disk
        if broken := [name for name, value in here.items() if not bool(value.isfinite().all())]:
            raise VlbenchError(
                f"{self.name} holds weights that are no numbers or infinite ({first_five(broken)}): give those of a "
                f"training that did not diverge",
                ExitCode.WEIGHTS,
            )

    def _head_weights(self, whole: nn.Module, missing: set[str]) -> dict[str, Tensor]:
        """The head under this package's names; empty where there is none, or it is not among the weights."""
        if self.head is None or any(name.startswith(f"{self.head.layers}.") for name in missing):
            return {}
        layers = attrgetter(self.head.layers)(whole).state_dict()
        if self.head.output != "rank":
            return {f"classifier.{name}": value for name, value in layers.items()}
        return {f"score.{name}": _match_score(value) for name, value in layers.items()}

    def _class(self, name: str) -> Any:
        import transformers

        return getattr(transformers, name)

    def _writer(self) -> Any:
        return self._class(WRITER)

    def fault(self, what: str, error: Exception) -> VlbenchError:
        """The model has `what`, by what the library raised on it."""
        reason = " ".join(str(error).split())[:160]
        return VlbenchError(
            f"{self.name} has {what} ({type(error).__name__}: {reason}): save it again with save_pretrained",
            ExitCode.WEIGHTS,
        )


def quantization(bits: str | None, dtype: torch.dtype) -> object:
    """What tells the library to round weights to `8bit` or `4bit` and to compute in `dtype`; None where nothing is."""
    if bits is None:
        return None
    import transformers

    made: Any = transformers.BitsAndBytesConfig
    return made(load_in_8bit=True) if bits == "8bit" else made(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)


def _match_score(rows: Tensor) -> Tensor:
    """One row [1, ...] whose score orders pairs as the head does: its own, or that of two rows `no match, match`."""
    return rows if len(rows) == 1 else rows[1:] - rows[:1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars, and its remarks on heads that are not loaded: the load report says that."""
    from transformers.utils import logging

    library: Any = logging  # none of its functions is typed
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
