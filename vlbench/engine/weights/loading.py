"""Load weights of any format into a learner: vlbench's own, official checkpoints that a model converts, transformers'.

A learner's tensors are named `backbone.*` and `head.*`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from vlbench import catalog
from vlbench.core.backbone import Sparing
from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.record import LoadReport
from vlbench.engine.weights.answer_vocabulary import match_spelling
from vlbench.engine.weights.files import brought_answers, weights_file
from vlbench.engine.weights.format_detection import UNCONVERTIBLE, describe_origin
from vlbench.engine.weights.state_dict import read_state, vocabulary_of, written_by
from vlbench.models.layers.convert import Resize, answer_rows

_MIN_MATCHED = 0.99
"""Share of the backbone's tensors that the file must hold, and of the file's backbone that the model must have."""
_BACKBONE, _HEAD = "backbone.", "head."
_CLASSIFIER = "head.classifier."


@dataclass(frozen=True)
class Wanted:
    """What the loaded weights must satisfy.

    card: of the model, whose folder may hold a converter of other formats; None accepts vlbench's own format only.
    with_head: whether the file must hold a fitting head. answers: the answers that the rows of the learner's classifier
    stand for; empty where it has no classifier. vocabulary: hash of the tokens that the rows of the word embeddings
    stand for; empty where unknown. base: weights with the backbone, where the file holds the head alone.
    """

    card: ModelCard | None = None
    with_head: bool = False
    answers: tuple[str, ...] = ()
    vocabulary: str = ""
    base: Path | None = None


@dataclass(frozen=True)
class _Given:
    """The tensors of a file, under vlbench's names.

    weights: by name. unknown: number of the file's tensors without such a name. converted: names of the tensors that
    were renamed, resized or reordered. tables: how position tables are resized. unmatched: answers that have no row in
    the file.
    """

    weights: dict[str, Tensor]
    unknown: int = 0
    converted: frozenset[str] = frozenset()
    tables: Mapping[str, Resize] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()


def load_weights(learner: nn.Module, path: Path, wanted: Wanted | None = None) -> LoadReport:
    """Do what `load_tensors` does and return its report only."""
    return load_tensors(learner, path, wanted or Wanted())[0]


def load_tensors(learner: nn.Module, path: Path, wanted: Wanted) -> tuple[LoadReport, frozenset[str]]:
    """Load the weights that fit the learner; returns counts for the run's record, and the names of the loaded tensors.

    At least 99 % of the backbone must fit; the head only if it is wanted.

    Position tables are resized where the model's converter says how. The rows of a classifier are put into the order of
    `wanted.answers` where the answers that they stand for are known.

    Raises:
        VlbenchError: exit 6, the file is damaged or holds code; it was trained with another vocabulary; it holds under
            99 % of the backbone's tensors, or over 1 % of its backbone is not in the model; it lacks the word
            embeddings; a tensor has another shape or is not finite; a wanted head is incomplete.
    """
    file, own = weights_file(path), learner.state_dict()
    base = read_state(wanted.base, own) if wanted.base else {}
    state = {name: value for name, value in base.items() if name.startswith(_BACKBONE)} | read_state(file, own)
    _check_vocabulary(path, file, wanted.vocabulary)
    try:
        given = _with_answers(_resized(_renamed(state, own, wanted.card), own), own, file, wanted.answers)
    except UNCONVERTIBLE as error:
        raise VlbenchError(
            f"--checkpoint {path} has tensors of {wanted.card.name if wanted.card else 'the model'}'s names and of "
            f"other dimensions ({' '.join(str(error).split())[:120]}): fetch the file again, or check --model",
            ExitCode.WEIGHTS,
        ) from None
    matched = {name: value for name, value in given.weights.items() if name in own and own[name].shape == value.shape}
    remedy = partial(_remedy, state, file, wanted.card)
    backbone = learner.get_submodule("backbone")
    optional = tuple(f"{_BACKBONE}{name}" for name in backbone.spared()) if isinstance(backbone, Sparing) else ()
    if fault := _backbone_fault(given, matched, own, optional, remedy) or _word_table_fault(learner, matched):
        raise VlbenchError(f"--checkpoint {path} {fault}", ExitCode.WEIGHTS)
    if wanted.with_head and (fault := _head_fault(given, matched, own)):
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
        unexpected=given.unknown + sum(name not in own and not name.startswith(_HEAD) for name in given.weights),
        converted=len(given.converted & matched.keys()),
        absent=tuple(name for name in own if name.startswith(_BACKBONE) and name not in matched),
        unmatched_answers=len(given.unmatched),
    )
    return report, frozenset(matched)


def check_frozen(network: nn.Module, loaded: Collection[str], remedy: str) -> None:
    """Check that every frozen parameter of `network.backbone` is among the tensors `loaded`.

    Raises:
        VlbenchError: some are not, and would stay at random values.
    """
    random = {
        name: parameter.numel()
        for name, parameter in network.named_parameters()
        if name.startswith(_BACKBONE) and not parameter.requires_grad and name not in loaded
    }
    if random:
        raise VlbenchError(
            f"{sum(random.values()):,} parameters of this size are frozen and no weights were loaded into them "
            f"({first_five(random)}), so they would stay at random values: give {remedy}"
        )


def summary(report: LoadReport) -> str:
    """The report as one line of text."""
    absent = f" ({first_five(report.absent)})" if report.absent else ""
    zeros = f"; {report.unmatched_answers:,} answers begin with rows of zeros" if report.unmatched_answers else ""
    return (
        f"weights: {report.matched:,} tensors loaded, {report.converted:,} of them converted; "
        f"{report.missing:,} missing{absent}; {report.unexpected:,} unexpected{zeros}"
    )


def reorder_rows(
    rows: Mapping[str, Tensor], wanted: tuple[str, ...], given: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Put a classifier's rows into the order of the W wanted answers.

    rows: weight [A, D] and bias [A] of the last layer, by name, for the A answers `given`. Returns the tensors with W
    rows, and the answers whose rows are zeros; both are empty if the lists share no answer.
    """
    spellings, known = match_spelling(wanted, given), frozenset(given)
    unmatched = tuple(answer for answer in spellings if answer not in known)
    if len(unmatched) == len(wanted):
        return {}, ()
    return {name: answer_rows(value, given, spellings) for name, value in rows.items()}, unmatched


def _renamed(state: Mapping[str, object], own: Mapping[str, Tensor], card: ModelCard | None) -> _Given:
    """The file's tensors under vlbench's names: unchanged, or as the model's converter renames them."""
    convert = catalog.weights_converter(card) if card else None
    if convert is None or any(name.startswith(_BACKBONE) and name in own for name in state):
        return _Given({name: value for name, value in state.items() if isinstance(value, Tensor)})
    converted = convert(state)
    implied = {name: value for name, value in converted.implied.items() if name in own}
    skipped = converted.optional - own.keys()
    weights = {name: value for name, value in (implied | converted.weights).items() if name not in skipped}
    return _Given(weights, len(converted.unexpected), frozenset(weights), converted.tables)


def _resized(given: _Given, own: Mapping[str, Tensor]) -> _Given:
    """The tensors with each position table resized to the model's number of rows."""
    resized = {
        name: resize(given.weights[name], len(own[name]))
        for name, resize in given.tables.items()
        if name in given.weights and name in own and len(given.weights[name]) != len(own[name])
    }
    return replace(given, weights=given.weights | resized)


def _with_answers(given: _Given, own: Mapping[str, Tensor], file: Path, wanted: tuple[str, ...]) -> _Given:
    """The tensors with the rows of the last layer in the order of the wanted answers, as `reorder_rows` orders them."""
    layers = [int(name.removeprefix(_CLASSIFIER).partition(".")[0]) for name in own if name.startswith(_CLASSIFIER)]
    last = f"{_CLASSIFIER}{max(layers, default=0)}."
    rows = [name for name in given.weights if name.startswith(last)]
    answers = brought_answers(file) if rows and wanted else ()
    if not answers or answers == wanted:
        return given
    reordered, unmatched = reorder_rows({name: given.weights[name] for name in rows}, wanted, answers)
    others = {name: value for name, value in given.weights.items() if name not in rows}
    converted = given.converted | reordered.keys()
    return replace(given, weights=others | reordered, converted=converted, unmatched=unmatched)


def _backbone_fault(
    given: _Given,
    matched: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    optional: tuple[str, ...],
    remedy: Callable[[], str],
) -> str:
    """What is wrong with the file's backbone, as the end of a sentence; empty if nothing is.

    optional: prefixes of the tensors that a file may lack.
    """
    needed = [name for name in own if name.startswith(_BACKBONE) and not name.startswith(optional)]
    in_file = [name for name in given.weights if name.startswith(_BACKBONE) and not name.startswith(optional)]
    fitting = sum(name in matched for name in needed)
    shapes = ""
    if misshapen := [name for name in in_file if name in own and name not in matched]:
        name = misshapen[0]
        shapes = f" ({name} is {list(given.weights[name].shape)} in the file and {list(own[name].shape)} here)"
    if fitting < _MIN_MATCHED * len(needed):
        advice = remedy() if not fitting else ""
        return (
            f"fits {fitting} of the backbone's {len(needed)} tensors{shapes}, expected at least 99 %: "
            f"{advice or 'check --model and --size'}"
        )
    if misshapen:
        return f"holds {len(misshapen)} tensors of another shape{shapes}: check --size, and --vocabulary"
    if fitting < _MIN_MATCHED * len(in_file):
        return (
            f"holds a backbone of {len(in_file)} tensors, of which {len(in_file) - fitting} have no place in this "
            f"one's {len(needed)}: check --model and --size"
        )
    return ""


def _check_vocabulary(path: Path, file: Path, vocabulary: str) -> None:
    """Reject weights of another vocabulary: rows of word embeddings belong to tokens, even if two are equally long."""
    trained = vocabulary_of(file) if vocabulary else ""
    if trained and trained != vocabulary:
        raise VlbenchError(
            f"--checkpoint {path} was trained with another vocabulary ({trained[:12]}...) than the one given "
            f"({vocabulary[:12]}...): leave out --vocabulary, or give the one it was trained with",
            ExitCode.WEIGHTS,
        )


def _word_table_fault(learner: nn.Module, matched: Mapping[str, Tensor]) -> str:
    """A fault where the file lacks word embeddings, which are the backbone's largest tables; empty otherwise."""
    parts = learner.get_submodule("backbone").named_modules(prefix=_BACKBONE.removesuffix("."))
    sizes = {f"{name}.weight": part.num_embeddings for name, part in parts if isinstance(part, nn.Embedding)}
    largest = max(sizes.values(), default=0)
    missing = [name for name, rows in sizes.items() if rows == largest and name not in matched]
    return f"has no table of words ({first_five(missing)}): check --model and --size" if missing else ""


def _remedy(state: Mapping[str, object], file: Path, card: ModelCard | None) -> str:
    """What to do with a file of which no tensor fits, as the end of a sentence; empty where unknown."""
    if card is not None and card.pretrained and file.with_name("config.json").is_file():
        return f"give this folder of transformers as --model hf:{file.parent}, without --checkpoint"
    return describe_origin(state, written_by(file), card.name if card else "")


def _head_fault(given: _Given, matched: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What is wrong with the file's head, as the end of a sentence; empty if nothing is."""
    if missing := [name for name in own if name.startswith(_HEAD) and name not in matched]:
        return (
            f"has no head that answers this task ({first_five(missing)} do not fit): "
            f"finetune it first with --mode finetune"
        )
    if given.unmatched:
        return f"has a head without an answer {first_five(given.unmatched)}: finetune it first with --mode finetune"
    return ""
