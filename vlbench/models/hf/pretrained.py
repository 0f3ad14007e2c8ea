"""Build a network of transformers from its config.json and load the weights next to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from vlbench.core.backbone import PretrainedWeights
from vlbench.core.errors import ExitCode, VlbenchError, first_five, is_out_of_memory
from vlbench.core.record import LoadReport
from vlbench.data.files.pickles import more_than_weights
from vlbench.data.resources import Loading
from vlbench.models.hf.families import GENERATIVE_CLASS, Family, TrainedHead, family_of
from vlbench.models.hf.hub_code import check_trusted
from vlbench.models.hf.library import Config, LoadingInfo, ModelClass

_LEAST = 0.99
"""The fraction of the network's tensors that the weights must contain."""


class PretrainedFolder:
    """A folder with a config.json: the network that it describes and its trained head.

    loading: how it is loaded into memory. own_code: the Auto classes that code in the folder implements.

    Raises VlbenchError: an unsupported family; untrusted code; an invalid config.json (exit 6).
    """

    def __init__(self, folder: Path, name: str, loading: Loading) -> None:
        check_trusted(folder, name, loading.trust_remote_code)
        from transformers import AutoConfig

        self.folder, self.name, self.loading = folder, name, loading
        with self.reading("a config.json that does not load"):
            self.config: Config = AutoConfig.from_pretrained(folder, trust_remote_code=loading.trust_remote_code)
        self.architecture = str((self.config.architectures or [""])[0])
        self.own_code: Collection[str] = getattr(self.config, "auto_map", None) or ()
        self.family: Family = family_of(self.config.model_type, self.architecture, name, self.own_code)
        self.head: TrainedHead | None = self.family.heads.get(self.architecture)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights in memory."""
        dtype: torch.dtype = getattr(torch, self.loading.dtype)
        return dtype

    def make(self) -> nn.Module:
        """Build the network without a head; its tensors get no memory if its own weights are loaded next.

        Raises VlbenchError: exit 6, the config.json is invalid.
        """
        return self._build(lambda: _model_class(self.family.model)(self.config))

    def make_generative(self) -> nn.Module:
        """Build a generative network; see `make`."""
        trusted, kind = self.loading.trust_remote_code, _model_class(GENERATIVE_CLASS)
        return self._build(lambda: kind.from_config(self.config, dtype=self.dtype, trust_remote_code=trusted))

    def _build(self, build: Callable[[], nn.Module]) -> nn.Module:
        device = torch.device("meta") if self.loading.at_once else nullcontext()
        with self.reading("a config.json that makes no network"), _quiet(), device:
            return build()

    def load(self) -> tuple[nn.Module, PretrainedWeights]:
        """Load the network that `make` builds, and the head that was trained with it.

        Raises:
            VlbenchError: exit 6, the weights do not load, have other shapes, contain under 99 % of the network's
                tensors, or are not finite.
        """
        kind = _model_class(self.architecture if self.head else self.family.model)
        whole, missing, unexpected = self._read(kind, {})
        inside = self.head.inside if self.head else ""
        loaded = attrgetter(inside)(whole) if inside else whole
        report = self._report(loaded, f"{inside}." if inside else "", missing, unexpected)
        head = self._head_weights(whole, missing)
        self._check_finite(head)
        return loaded, PretrainedWeights(report, head)

    def load_generative(self) -> tuple[nn.Module, LoadReport]:
        """Load a generative network, onto several devices if `loading` asks for a device map.

        Raises VlbenchError: as `load`.
        """
        quantized = quantization(self.loading.quantize, self.dtype)
        options = {"device_map": self.loading.device_map, "quantization_config": quantized}
        given = {name: value for name, value in options.items() if value is not None}
        whole, missing, unexpected = self._read(_model_class(GENERATIVE_CLASS), given)
        return whole, self._report(whole, "", missing, unexpected)

    def _read(self, kind: ModelClass, options: Mapping[str, object]) -> tuple[nn.Module, set[str], int]:
        """The network that the library loads, the names of missing tensors, and the number of unexpected ones."""
        info: LoadingInfo
        with self.reading("weights that do not load"), _quiet():
            whole, info = kind.from_pretrained(
                self.folder,
                dtype=self.dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check_shapes` has a clearer message
                trust_remote_code=self.loading.trust_remote_code,
                **options,
            )
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
        """How the weights match the network, whose names have the prefix `before` in `missing`."""
        wanted = dict(loaded.state_dict())
        absent = tuple(sorted(name for name in wanted if f"{before}{name}" in missing))
        matched = len(wanted) - len(absent)
        if matched < _LEAST * len(wanted):
            raise VlbenchError(
                f"{self.name} has {matched} of the {len(wanted)} tensors of its {self.family.title} "
                f"({first_five(absent)} are missing), expected at least 99 %: give the whole of its weights",
                ExitCode.WEIGHTS,
            )
        self._check_finite(wanted)
        return LoadReport(matched=matched, missing=len(absent), unexpected=unexpected, absent=absent)

    def _check_finite(self, weights: Mapping[str, Tensor]) -> None:
        here = {name: value for name, value in weights.items() if not value.is_meta}  # others are still on disk
        if broken := [name for name, value in here.items() if not bool(value.isfinite().all())]:
            raise VlbenchError(
                f"{self.name} holds weights that are no numbers or infinite ({first_five(broken)}): give those of a "
                f"training that did not diverge",
                ExitCode.WEIGHTS,
            )

    def _head_weights(self, whole: nn.Module, missing: set[str]) -> dict[str, Tensor]:
        """The head under this package's names; empty if there is none or its weights are missing."""
        if self.head is None or any(name.startswith(f"{self.head.layers}.") for name in missing):
            return {}
        layers = attrgetter(self.head.layers)(whole).state_dict()
        if self.head.output != "rank":
            return {f"classifier.{name}": value for name, value in layers.items()}
        return {f"score.{name}": _match_score(value) for name, value in layers.items()}

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn any error of the library, which raises many types, into the one that the model has `what`.

        A VlbenchError and a lack of memory pass unchanged.
        """
        try:
            yield
        except VlbenchError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self.fault(what, error) from error

    def fault(self, what: str, error: Exception) -> VlbenchError:
        """The error that the model has `what`, with the library's reason."""
        if code := more_than_weights(error):
            return VlbenchError(f"{self.name} {code}", ExitCode.WEIGHTS)
        remedy = "save it again with save_pretrained"
        if isinstance(error, ImportError):  # the folder is sound
            remedy = "install the library that it names, or use a model that does without"
        return VlbenchError(f"{self.name} has {what} ({brief_reason(error)}): {remedy}", ExitCode.WEIGHTS)


def brief_reason(error: Exception) -> str:
    """The type of an error of the library and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def quantization(bits: str | None, dtype: torch.dtype) -> object:
    """The library's configuration for weights in `8bit` or `4bit`, computed in `dtype`; None for bits None."""
    if bits is None:
        return None
    import transformers

    make: Callable[..., object] = transformers.BitsAndBytesConfig
    return make(load_in_8bit=True) if bits == "8bit" else make(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)


def _model_class(name: str) -> ModelClass:
    import transformers

    kind: ModelClass = getattr(transformers, name)
    return kind


def _match_score(rows: Tensor) -> Tensor:
    """One row [1, ...] that ranks pairs as the head does: its only row, or of `no match, match` the difference."""
    return rows if len(rows) == 1 else rows[1:] - rows[:1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bars, and its warnings about unloaded heads, which the report covers."""
    from transformers.utils import logging

    library: ModuleType = logging  # its functions are untyped
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
