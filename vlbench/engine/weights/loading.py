"""Weights of any layout into a learner: vlbench's own, the official ones that a model converts, transformers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from vlbench import catalog
from vlbench.core.backbone import Sparing
from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.record import LoadReport
from vlbench.engine.weights.answer_vocabulary import spelled
from vlbench.engine.weights.files import brought_answers, weights_file
from vlbench.engine.weights.format_detection import UNCONVERTIBLE, looks_like
from vlbench.engine.weights.state_dict import brought_vocabulary, read_state, written_by
from vlbench.models.layers.convert import Resize, answer_rows

LEAST = 0.99
"""Share of the backbone's tensors that must be in the file, and of the file's backbone that must have a place."""
_BACKBONE, _HEAD = "backbone.", "head."
_CLASSIFIER = "head.classifier."


@dataclass(frozen=True)
class Wanted:
    """What weights are loaded for.

    card: of the model, whose folder may hold the converter of other layouts; None knows vlbench's own only. with_head:
    whether the head must come too. answers: what the rows of the learner's classifier stand for; empty where it has
    none. vocabulary: identifies the tokens that the rows of its word table stand for; empty where that is not known.
    base: weights whose backbone goes with the head that the file holds alone.
    """

    card: ModelCard | None = None
    with_head: bool = False
    answers: tuple[str, ...] = ()
    vocabulary: str = ""
    base: Path | None = None


@dataclass(frozen=True)
class _Found:
    """What a file holds, under this package's names.

    unknown: of the file's tensors, those without such a name. converted: those that were given their name, their
    number of rows or their order here. unmatched: answers that no row of the file stands for.
    """

    weights: dict[str, Tensor]
    unknown: int = 0
    converted: frozenset[str] = frozenset()
    tables: Mapping[str, Resize] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """names: of the tensors that values were loaded into."""

    report: LoadReport
    names: frozenset[str]


def load_weights(learner: nn.Module, path: Path, wanted: Wanted | None = None) -> LoadReport:
    """`load_tensors`, where only its report is needed."""
    return load_tensors(learner, path, wanted).report


def load_tensors(learner: nn.Module, path: Path, wanted: Wanted | None = None) -> Loaded:
    """Load the weights that fit; of the backbone nearly all must, of the head only where it is wanted.

    Tables of places are brought to the model's size where its converter says how, and the rows of a classifier into
    the order of the answers wanted where what they stand for is known.

    Raises:
        VlbenchError: exit 6, the file is damaged or holds code; it was trained with another vocabulary; under 99 % of
            the backbone's tensors are in it, or of its own have a place there; a table of words is not in it; a tensor
            has another shape, or is not finite; a head that is wanted is not all there.
    """
    wanted, file, own = wanted or Wanted(), weights_file(path), learner.state_dict()
    state = _backbone_of(wanted.base) | read_state(file)
    _check_vocabulary(path, file, wanted.vocabulary)
    try:
        found = _answering(_sized(_named(state, own, wanted.card), own), own, file, wanted.answers)
    except UNCONVERTIBLE as error:
        raise VlbenchError(
            f"--checkpoint {path} has tensors of {wanted.card.name if wanted.card else 'the model'}'s names and of "
            f"other dimensions ({' '.join(str(error).split())[:120]}): fetch the file again, or check --model",
            ExitCode.WEIGHTS,
        ) from None
    matched = {name: value for name, value in found.weights.items() if _fits(name, value, own)}
    seems = partial(_remedy, state, file, wanted.card)
    if fault := _backbone_fault(found, matched, own, _spared(learner), seems) or _wordless(learner, matched):
        raise VlbenchError(f"--checkpoint {path} {fault}", ExitCode.WEIGHTS)
    if wanted.with_head and (fault := _head_fault(found, matched, own)):
        raise VlbenchError(f"--checkpoint {path} {fault}", ExitCode.WEIGHTS)
    if broken := [name for name, value in matched.items() if not bool(value.isfinite().all())]:
        raise VlbenchError(
            f"--checkpoint {path} holds weights that are no numbers or infinite ({first_five(broken)}): give "
            f"those of a training that did not diverge",
            ExitCode.WEIGHTS,
        )
    learner.load_state_dict(matched, strict=False)
    report = LoadReport(
        matched=len(matched),
        missing=len(own) - len(matched),
        unexpected=found.unknown + sum(name not in own and not name.startswith(_HEAD) for name in found.weights),
        converted=len(found.converted & matched.keys()),
        absent=tuple(name for name in own if name.startswith(_BACKBONE) and name not in matched),
        unmatched_answers=len(found.unmatched),
    )
    return Loaded(report, frozenset(matched))


def summary(report: LoadReport) -> str:
    """The report as one line."""
    parts = [f"{report.matched:,} tensors loaded, {report.converted:,} of them converted"]
    parts += [f"{report.missing:,} missing" + (f" ({first_five(report.absent)})" if report.absent else "")]
    parts += [f"{report.unexpected:,} unexpected"]
    if report.unmatched_answers:
        parts += [f"{report.unmatched_answers:,} answers begin with rows of zeros"]
    return f"weights: {'; '.join(parts)}"


def in_order(
    rows: Mapping[str, Tensor], wanted: tuple[str, ...], given: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A classifier's rows for the answers `given` in the order of those wanted, and the answers that get zeros.

    With no answer in common the rows are of no use, and none are handed out.
    """
    sought, known = spelled(wanted, given), frozenset(given)
    unmatched = tuple(answer for answer in sought if answer not in known)
    if len(unmatched) == len(wanted):
        return {}, ()
    return {name: answer_rows(value, given, sought) for name, value in rows.items()}, unmatched


def _backbone_of(base: Path | None) -> dict[str, object]:
    """The tensors of a backbone that is in another file than its head."""
    state = read_state(base) if base else {}
    return {name: value for name, value in state.items() if name.startswith(_BACKBONE)}


def _named(state: Mapping[str, object], own: Mapping[str, Tensor], card: ModelCard | None) -> _Found:
    """The file's tensors under this package's names: as they stand, or as the model's converter names them."""
    convert = catalog.weights_converter(card) if card else None
    if convert is None or any(name.startswith(_BACKBONE) and name in own for name in state):
        return _Found({name: value for name, value in state.items() if isinstance(value, Tensor)})
    converted = convert(state)
    implied = {name: value for name, value in converted.implied.items() if name in own}
    passed_over = converted.optional - own.keys()
    weights = {name: value for name, value in (implied | converted.weights).items() if name not in passed_over}
    return _Found(weights, len(converted.unexpected), frozenset(weights), converted.tables)


def _sized(found: _Found, own: Mapping[str, Tensor]) -> _Found:
    """With as many rows in each table of places as the model has."""
    sized = {
        name: resize(found.weights[name], len(own[name]))
        for name, resize in found.tables.items()
        if name in found.weights and name in own and len(found.weights[name]) != len(own[name])
    }
    return replace(found, weights=found.weights | sized)


def _answering(found: _Found, own: Mapping[str, Tensor], file: Path, wanted: tuple[str, ...]) -> _Found:
    """With the rows of the last layer in the order of the answers wanted, zeros for those that the file lacks.

    With no answer in common the rows are of no use, and left out.
    """
    places = [int(name.removeprefix(_CLASSIFIER).partition(".")[0]) for name in own if name.startswith(_CLASSIFIER)]
    last = f"{_CLASSIFIER}{max(places, default=0)}."
    rows = [name for name in found.weights if name.startswith(last)]
    given = brought_answers(file) if rows and wanted else ()
    if not given or given == wanted:
        return found
    picked, unmatched = in_order({name: found.weights[name] for name in rows}, wanted, given)
    others = {name: value for name, value in found.weights.items() if name not in rows}
    return replace(found, weights=others | picked, converted=found.converted | picked.keys(), unmatched=unmatched)


def _fits(name: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
    return name in own and own[name].shape == value.shape


def _spared(learner: nn.Module) -> tuple[str, ...]:
    """How the names of the backbone's tensors begin that weights may lack."""
    backbone = learner.get_submodule("backbone")
    return tuple(f"{_BACKBONE}{name}" for name in backbone.spared()) if isinstance(backbone, Sparing) else ()


def _backbone_fault(
    found: _Found,
    matched: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    spared: tuple[str, ...],
    seems: Callable[[], str],
) -> str:
    """What is wrong with the backbone found, as the end of a sentence; empty where nothing is."""
    needed = [name for name in own if name.startswith(_BACKBONE) and not name.startswith(spared)]
    given = [name for name in found.weights if name.startswith(_BACKBONE) and not name.startswith(spared)]
    fitting = sum(name in matched for name in needed)
    other = [name for name in given if name in own and name not in matched]
    shapes = f" ({_shapes(other[0], found.weights, own)})" if other else ""
    if fitting < LEAST * len(needed):
        remedy = seems() if not fitting else ""
        return (
            f"fits {fitting} of the backbone's {len(needed)} tensors{shapes}, expected at least 99 %: "
            f"{remedy or 'check --model and --size'}"
        )
    if other:
        return f"holds {len(other)} tensors of another shape{shapes}: check --size, and --vocabulary"
    if fitting < LEAST * len(given):
        return (
            f"holds a backbone of {len(given)} tensors, of which {len(given) - fitting} have no place in this one's "
            f"{len(needed)}: check --model and --size"
        )
    return ""


def _check_vocabulary(path: Path, file: Path, vocabulary: str) -> None:
    """Rows of a word table mean the tokens they were trained for, even where two vocabularies are equally long."""
    trained = brought_vocabulary(file) if vocabulary else ""
    if trained and trained != vocabulary:
        raise VlbenchError(
            f"--checkpoint {path} was trained with another vocabulary ({trained[:12]}...) than the one given "
            f"({vocabulary[:12]}...): leave out --vocabulary, or give the one it was trained with",
            ExitCode.WEIGHTS,
        )


def _wordless(learner: nn.Module, matched: Mapping[str, Tensor]) -> str:
    """What is wrong where the backbone's largest tables, those of words, are not among the tensors found."""
    modules = learner.get_submodule("backbone").named_modules()
    tables = {f"{_BACKBONE}{name}.weight": one.num_embeddings for name, one in modules if isinstance(one, nn.Embedding)}
    most = max(tables.values(), default=0)
    lacking = [name for name, rows in tables.items() if rows == most and name not in matched]
    return f"has no table of words ({first_five(lacking)}): check --model and --size" if lacking else ""


def _remedy(state: Mapping[str, object], file: Path, card: ModelCard | None) -> str:
    """What to do with a file nothing of which fits, for the end of a sentence; empty where nothing is known."""
    if card is not None and card.pretrained and file.with_name("config.json").is_file():
        return f"give this folder of transformers as --model hf:{file.parent}, without --checkpoint"
    return looks_like(state, written_by(file), card.name if card else "")


def _shapes(name: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return f"{name} is {list(given[name].shape)} in the file and {list(own[name].shape)} here"


def _head_fault(found: _Found, matched: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What is wrong with the head found; empty where nothing is."""
    if headless := [name for name in own if name.startswith(_HEAD) and name not in matched]:
        return (
            f"has no head that answers this task ({first_five(headless)} do not fit): "
            f"finetune it first with --mode finetune"
        )
    if found.unmatched:
        return f"has a head without an answer {first_five(found.unmatched)}: finetune it first with --mode finetune"
    return ""
