"""Weights from elsewhere under the names of this package: what every model's `checkpoint.py` is made of.

Such a file has one function, `convert(state) -> Converted`. What it names `backbone.*` and `head.*` is what runs load;
the other names are those of the model's pretraining.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.errors import ExitCode, VlbenchError

_WRAPPERS = ("state_dict", "model", "learnable")
"""Under which a file may keep its weights: ViLT, METER and SOHO; ALBEF, BLIP and DeiT; BriVL."""
_WRAPPING = frozenset({"module", "_orig_mod"})
"""The parts of a dotted name that data-parallel training and torch.compile add, before whichever module they wrap:
`module.bert.*` of a whole model, `lxrt_encoder.model.module.bert.*` of the encoder in it (LXMERT's `--multiGPU`)."""
_OLD = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))
"""TensorFlow's names, which the first BERT files in PyTorch kept."""


Resize = Callable[[Tensor, int], Tensor]
"""A table of places [R, D] and the number of rows it shall have -> the table with so many."""


@dataclass(frozen=True)
class Converted:
    """weights: under this package's names. unexpected: the keys of the file that mean nothing here, sorted.

    tables: of the weights, those that can be brought to another number of places, and how. implied: what such files
    take for granted and some sizes here have tensors for. optional: names of weights that pretraining alone has a use
    for; a run passes over them, and they are not unexpected.
    """

    weights: dict[str, Tensor]
    unexpected: tuple[str, ...]
    tables: Mapping[str, Resize] = field(default_factory=dict)
    implied: Mapping[str, Tensor] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


def strip(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under their plain names: unwrapped, without `module.` anywhere, in today's spelling.

    What is no tensor (an epoch, an optimizer's state) is left out.

    Raises:
        VlbenchError: exit 6, there are no tensors, or two keys are one name.
    """
    while inner := next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None):
        state = inner  # type: ignore[assignment]  # isinstance cannot look at the keys' type
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            name = _plain(key)
            if name in tensors:
                raise _refused(f"holds {name!r} twice, once below 'module.'")
            tensors[name] = value
    if not tensors:
        raise _refused(f"holds no tensors at its top, nor below {', '.join(_WRAPPERS)}")
    return tensors


def renamed(state: Mapping[str, Tensor], name_of: Callable[[str], str | None]) -> Converted:
    """Every tensor under the name that `name_of` gives its key; those it gives None for are unexpected."""
    names = {key: name_of(key) for key in state}
    weights = {name: state[key] for key, name in names.items() if name is not None}
    return Converted(weights, tuple(sorted(key for key, name in names.items() if name is None)))


def substituted(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The name with each first part replaced by its second, one pair after the other."""
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def resized_grid(table: Tensor, rows: int) -> Tensor:
    """A table of the places of a square grid [G * G, D] for another, bilinear, corner on corner, as ViLT looks it up.

    Where either number of rows is no square the table is left as it is.
    """
    side, wanted = math.isqrt(len(table)), math.isqrt(rows)
    if side**2 != len(table) or wanted**2 != rows:
        return table
    grid = table.T.reshape(1, -1, side, side).float()
    sized = functional.interpolate(grid, (wanted, wanted), mode="bilinear", align_corners=True)
    return sized.flatten(2)[0].T.to(table.dtype).contiguous()  # [1, D, S, S] -> [S * S, D]


def resized_line(table: Tensor, rows: int) -> Tensor:
    """A table of the places in a text [T, D], cut, or grown by repeating the last place."""
    return torch.cat([table[:rows], table[-1:].expand(max(0, rows - len(table)), -1)])


def matching_score(weights: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    """A head that ranks, out of a matching head `matching.*` [2, ...]: its row for a match; {} where there is none."""
    return {
        f"head.score.{kind}": weights[f"matching.{kind}"][row : row + 1].clone()
        for kind in ("weight", "bias")
        if f"matching.{kind}" in weights
    }


def answer_rows(rows: Tensor, given: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """The rows [A, ...] of a last layer or of its bias, which stand for the answers `given`, in the order of `wanted`.

    An answer that is not among those given gets zeros, as in LXMERT's code.

    Raises:
        VlbenchError: exit 6, there are not as many rows as answers given.
    """
    if len(rows) != len(given):
        raise _refused(f"has a head of {len(rows):,} answers where a list of {len(given):,} was given")
    places = {answer: place for place, answer in enumerate(given)}
    known = [(row, places[answer]) for row, answer in enumerate(wanted) if answer in places]
    picked = torch.zeros(len(wanted), *rows.shape[1:], dtype=rows.dtype)
    picked[[row for row, _ in known]] = rows[[place for _, place in known]]
    return picked


def _plain(key: str) -> str:
    kept = [part for part in key.split(".") if part not in _WRAPPING]
    return substituted(".".join(kept), _OLD)


def _refused(fault: str) -> VlbenchError:
    return VlbenchError(f"the checkpoint {fault}: give the file that its authors published", ExitCode.WEIGHTS)
