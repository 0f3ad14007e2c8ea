"""Convert foreign checkpoints to this package's tensor names: what each model's `checkpoint.py` is built from.

Such a file has one function, `convert(state) -> Converted`, which raises what `strip` raises. Runs load the names
`backbone.*` and `head.*`; the other names belong to the model's pretraining.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.errors import ExitCode, VlbenchError

_WRAPPERS = ("state_dict", "model", "learnable")
"""Keys under which a file may hold its weights: ViLT, METER and SOHO; ALBEF, BLIP and DeiT; BriVL."""
_WRAPPING = frozenset({"module", "_orig_mod"})
"""The parts of a dotted name that data-parallel training and torch.compile add in front of the module they wrap:
`module.bert.*` of a whole model, `lxrt_encoder.model.module.bert.*` of its encoder (LXMERT's `--multiGPU`)."""
_OLD = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))
"""TensorFlow's names, which the first BERT files in PyTorch kept."""

BERT_EMBEDDINGS = ("word_embeddings.", "position_embeddings.", "token_type_embeddings.", "LayerNorm.")
"""The beginnings of the names inside BERT's `embeddings.`; others, such as `position_ids`, are not needed."""
BERT_NAMES = (
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("attention.output.LayerNorm", "attention.norm"),
    ("attention.output.dense", "attention.attention.output"),
    ("attention.self", "attention.attention"),
    ("intermediate.dense", "feed_forward.inner"),
    ("output.dense", "feed_forward.outer"),
    ("output.LayerNorm", "feed_forward.norm"),
)
"""Parts of BERT's names and the names of the same modules in `layers.bert`; for `substituted`."""

Resize = Callable[[Tensor, int], Tensor]
"""A position table [R, D] and a number of rows -> the table with that many rows."""


@dataclass(frozen=True)
class Converted:
    """A checkpoint under this package's names.

    weights: the tensors by name. unexpected: the file's keys without a counterpart here, sorted. tables: how to resize
    those of the weights that are position tables. implied: tensors that such files take for granted and some sizes here
    have. optional: names of weights that only pretraining needs; a run skips them, and they do not count as unexpected.
    """

    weights: dict[str, Tensor]
    unexpected: tuple[str, ...]
    tables: Mapping[str, Resize] = field(default_factory=dict)
    implied: Mapping[str, Tensor] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


def strip(state: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, of any shapes, under plain names: unwrapped and without `module.`.

    Values that are no tensors (an epoch, an optimizer state) are dropped.

    Raises VlbenchError: exit 6, there are no tensors, or two keys have the same plain name.
    """
    while inner := next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None):
        state = inner  # type: ignore[assignment]  # isinstance cannot check the type of the keys
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            name = _plain(key)
            if name in tensors:
                raise _rejected(f"holds {name!r} twice, once below 'module.'")
            tensors[name] = value
    if not tensors:
        raise _rejected(f"holds no tensors at its top, nor below {', '.join(_WRAPPERS)}")
    return tensors


def renamed(state: Mapping[str, Tensor], name_of: Callable[[str], str | None]) -> Converted:
    """Rename each tensor to `name_of` its key; keys for which that is None are unexpected."""
    names = {key: name_of(key) for key in state}
    weights = {name: state[key] for key, name in names.items() if name is not None}
    return Converted(weights, tuple(sorted(key for key, name in names.items() if name is None)))


def substituted(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Replace the first part of each pair by the second in `name`, one pair after the other."""
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def without_prefixes(name: str, prefixes: Sequence[str]) -> str:
    """Remove each prefix from the beginning of `name`, one after the other."""
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


def with_new_start(name: str, pairs: Sequence[tuple[str, str]]) -> str | None:
    """Replace the beginning of `name` by the first pair that fits; None if none does."""
    return next((new + name.removeprefix(old) for old, new in pairs if name.startswith(old)), None)


def split_qkv(
    tensors: Mapping[str, Tensor], fused: re.Pattern[str], parts: Sequence[str] = ("query", "key", "value")
) -> dict[str, Tensor]:
    """Split fused query-key-value products [3 * D, ...] into three tensors [D, ...] each; keep all other tensors.

    fused: the names of such products, with groups for the part before `qkv` and for `weight` or `bias`.
    """
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if match := fused.fullmatch(key):
            before, kind = match.groups()
            for part, rows in zip(parts, value.chunk(3), strict=True):
                result[f"{before}{part}.{kind}"] = rows.clone()
        else:
            result[key] = value
    return result


def without_tied(tensors: Mapping[str, Tensor], decoder: str, embeddings: str) -> dict[str, Tensor]:
    """Drop the tensor `decoder` if it equals `embeddings`, which it is tied to in this package."""
    tied = decoder in tensors and embeddings in tensors and torch.equal(tensors[decoder], tensors[embeddings])
    return {key: value for key, value in tensors.items() if not (tied and key == decoder)}


def resized_grid(table: Tensor, rows: int) -> Tensor:
    """Resize a position table of a square grid [G * G, D] to `rows` rows: bilinear with aligned corners, as in ViLT.

    If either number of rows is not a square, the table is returned unchanged.
    """
    side, wanted = math.isqrt(len(table)), math.isqrt(rows)
    if side**2 != len(table) or wanted**2 != rows:
        return table
    grid = table.T.reshape(1, -1, side, side).float()
    sized = functional.interpolate(grid, (wanted, wanted), mode="bilinear", align_corners=True)
    return sized.flatten(2)[0].T.to(table.dtype).contiguous()  # [1, D, S, S] -> [S * S, D]


def resized_line(table: Tensor, rows: int) -> Tensor:
    """Resize a text position table [T, D] to [rows, D]: cut it, or repeat the last row."""
    return torch.cat([table[:rows], table[-1:].expand(max(0, rows - len(table)), -1)])


def matching_score(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ranking head [1, D], [1] from a matching head `matching.*` of 2 rows: the row for a match; {} without one."""
    weight = weights.get("matching.weight")
    if weight is None:
        return {}
    bias = weights.get("matching.bias", weight.new_zeros(len(weight)))
    return {"head.score.weight": weight[1:2].clone(), "head.score.bias": bias[1:2].clone()}


def answer_rows(rows: Tensor, given: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Reorder the rows [A, ...] of a classifier's weight or bias from the answers `given` to the answers `wanted`.

    An answer that is not in `given` gets zeros, as in LXMERT's code.

    Raises VlbenchError: exit 6, the number of rows differs from the number of answers in `given`.
    """
    if len(rows) != len(given):
        raise _rejected(f"has a head of {len(rows):,} answers where a list of {len(given):,} was given")
    places = {answer: place for place, answer in enumerate(given)}
    known = [(row, places[answer]) for row, answer in enumerate(wanted) if answer in places]
    picked = torch.zeros(len(wanted), *rows.shape[1:], dtype=rows.dtype)
    picked[[row for row, _ in known]] = rows[[place for _, place in known]]
    return picked


def _plain(key: str) -> str:
    kept = [part for part in key.split(".") if part not in _WRAPPING]
    return substituted(".".join(kept), _OLD)


def _rejected(fault: str) -> VlbenchError:
    return VlbenchError(f"the checkpoint {fault}: give the file that its authors published", ExitCode.WEIGHTS)
