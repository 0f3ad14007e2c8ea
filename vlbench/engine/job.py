"""The plan of a run: every default filled in and every contradiction found, before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vlbench import __version__, catalog
from vlbench.core.cards import ModelCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Answered, Examples
from vlbench.core.modes import MODES
from vlbench.core.progress import Progress
from vlbench.core.spec import ResolvedSpec, RunSpec
from vlbench.core.splits import split_tuple
from vlbench.core.task import Task
from vlbench.data.cache.index import Joined
from vlbench.data.resources import Loading
from vlbench.data.splits.verified import verify
from vlbench.data.splits.verify import manifest
from vlbench.data.text.answers import answers_sha256
from vlbench.engine.capabilities import EvaluatorKind, Unsupported, check_negatives, check_own_code, evaluator_for
from vlbench.engine.defaults import resolved
from vlbench.engine.fewshot import draw_shots
from vlbench.engine.limit import limit_examples, limit_selection
from vlbench.engine.runtime.ranks import launched
from vlbench.engine.runtime.trackers import check_trackers
from vlbench.engine.source import load_task
from vlbench.engine.split_overlap import check_split_overlap
from vlbench.engine.weights.answer_vocabulary import answerable, labels_of, learnable, named_rows
from vlbench.engine.weights.files import (
    PRETRAINED,
    base_of,
    chosen_weights,
    own_weights,
    tokenizer_sha256,
    weights_sha256,
)
from vlbench.metrics.scoring import cut_groups
from vlbench.records.fingerprint import fingerprint


@dataclass(frozen=True)
class Job:
    """A resolved spec with its task, its model card and its data.

    kind: how the model answers. train, select, report: the examples of each split; select is empty where nothing is
    selected on. n_total: examples of the reported split before its limit. labels: the answers a classifier chooses
    from, closed or open; none where the task ranks or answers are generated. notes: what was left out. shots: examples
    that the model is shown before each question. weights: the file it starts from; None from scratch. base: the
    weights that these need, if they are a head alone. cut: groups of the reported split that its limit has left some
    examples of, but not all. task_sha256, model_sha256: of the task's card and code, and of the code of a model from
    elsewhere.
    """

    spec: ResolvedSpec
    kind: EvaluatorKind
    task: Task
    card: ModelCard
    size: str
    train: Examples
    select: Examples
    report: Examples
    n_total: int
    manifest_sha256: str
    weights_sha256: str
    fingerprint: str
    task_sha256: str = ""
    model_sha256: str = ""
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shots: Examples = ()
    weights: Path | None = None
    base: Path | None = None
    cut: frozenset[str] = frozenset()

    @property
    def unscored(self) -> bool:
        """Whether the reported split's answers are kept by the organisers: it is predicted, not scored."""
        references = (example.reference for example in self.report)
        return all(isinstance(reference, Answered) and not reference.worths() for reference in references)

    @property
    def loading(self) -> Loading:
        """How transformers brings the model into memory: as small as is asked for, where nothing is trained."""
        answers = self.kind.generates and not MODES[self.spec.mode].trains_backbone
        return Loading(
            dtype=self.spec.dtype if answers and self.card.pretrained else "float32",
            device_map=self.spec.device_map,
            quantize=self.spec.quantize,
            trust_remote_code=self.spec.trust_remote_code,
            at_once=self.spec.checkpoint == PRETRAINED,
        )

    @property
    def arithmetic(self) -> Literal["float32", "bfloat16", "float16"]:
        """The precision that is computed in: weights that have it already need no casting, and answer as in their
        library."""
        return self.spec.dtype if self.loading.dtype == "float32" else "float32"

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; None for all."""
        return self.spec.threads or self.card.sizes[self.size].threads


def rejection(spec: RunSpec) -> VlbenchError | None:
    """Why the model cannot answer the task in the spec's mode, as far as their cards say; None where it can.

    Raises:
        VlbenchError: an unknown name; a model with code of its own that is not trusted; a tracker that is not
            installed.
    """
    card, task_card = catalog.model_card(spec.model), catalog.task_card(spec.task, spec.tasks_dir)
    check_own_code(spec, card)
    check_trackers(spec.log_with)
    kind = evaluator_for(spec, card, task_card)
    return VlbenchError(kind.reason, kind.exit_code) if isinstance(kind, Unsupported) else None


def plan(spec: RunSpec, progress: Progress) -> Job:
    """Resolve a spec.

    Raises:
        VlbenchError: names nobody knows, a model that cannot answer the task, splits that clash.
    """
    card = _able_card(spec)
    task = _task(spec, progress)
    whole, kind = resolved(spec, task, card)
    trained, select, report = _splits(whole, task)
    train = next(iter(trained.values())) if len(trained) == 1 else Joined([*trained.values()])
    check_negatives(whole, task.card, card, kind, train)
    splits = {**trained, whole.select_on: select, whole.split: report}
    if whole.verify_data and launched().local_rank == 0:
        _verify(task, splits, progress)
    select, part = limit_selection(select, whole, whole=kind.ranks_gallery)
    sha = manifest(task, {**splits, whole.select_on: select, whole.split: report})
    weights = _weights(whole, card)
    labels = labels_of(whole, task.card, train, weights)
    base = base_of(weights, card.name, whole.size) if weights else None
    weights_hash = weights_sha256(weights, base)
    task_hash, model_hash = catalog.task_sha256(whole.task, whole.tasks_dir), catalog.own_sha256(card)
    shots = draw_shots(whole, train)
    scored = limit_examples(report, whole, whole=kind.ranks_gallery)
    train, notes = learnable(task.card, [] if shots else train, labels)
    rows = named_rows(whole, labels, weights)
    if MODES[whole.mode].loads_head and whole.checkpoint == PRETRAINED and labels:
        labels, notes = answerable(labels, rows, card.name)
    return Job(
        spec=whole,
        kind=kind,
        task=task,
        card=card,
        size=whole.size,
        train=train,
        select=select,
        report=scored,
        n_total=len(report),
        manifest_sha256=sha,
        weights_sha256=weights_hash,
        fingerprint=fingerprint(
            whole,
            recipe=whole.train,
            task_version=task.card.version,
            task_sha256=task_hash,
            manifest_sha256=sha,
            weights_sha256=weights_hash,
            model_sha256=model_hash,
            tokenizer_sha256=_tokenizer_sha256(whole, card, weights),
            answers_sha256=answers_sha256(labels) + answers_sha256(rows),
            vlbench_version=__version__,
        ),
        task_sha256=task_hash,
        model_sha256=model_hash,
        labels=labels,
        notes=(*part, *notes),
        shots=shots,
        weights=weights,
        base=base,
        cut=cut_groups(report, scored),
    )


def _able_card(spec: RunSpec) -> ModelCard:
    """The card of the model, which can answer the task in that mode and has that size.

    Raises:
        VlbenchError: it cannot, or has not.
    """
    card = catalog.model_card(spec.model)
    if unsupported := rejection(spec):
        raise unsupported
    if spec.size is not None:
        catalog.check_size(card, spec.size)
    return card


def _task(spec: RunSpec, progress: Progress) -> Task:
    return load_task(
        spec.task,
        spec.data_root,
        domain=spec.domain,
        tasks_dir=spec.tasks_dir,
        allow_partial=spec.allow_partial,
        progress=progress,
    )


def _splits(spec: ResolvedSpec, task: Task) -> tuple[dict[str, Examples], Examples, Examples]:
    """The examples of each split to train on, those to select on and those to report on, which are apart.

    Raises:
        VlbenchError: they are not, as `check_split_overlap`.
    """
    trained = {split: task.load(split) for split in split_tuple(spec.train_split)}
    select, report = _load(task, spec.select_on), _load(task, spec.split)
    check_split_overlap(spec, trained, select, report)
    return trained, select, report


def _tokenizer_sha256(spec: ResolvedSpec, card: ModelCard, weights: Path | None) -> str:
    """Of the tokenizer beside the weights; empty where the spec or the model's library brings another."""
    own = spec.vocabulary is not None or card.sizes[spec.size].vocabulary == "its own"
    return "" if own else tokenizer_sha256(weights)


def _weights(spec: ResolvedSpec, card: ModelCard) -> Path | None:
    if spec.checkpoint == PRETRAINED:
        return own_weights(card)
    return chosen_weights(spec.checkpoint, card.name, spec.size)


def _verify(task: Task, splits: Mapping[str, Examples], progress: Progress) -> None:
    """Hash all data of the splits that have examples.

    Raises:
        DataError: files that are not as they were at their first verification, named.
    """
    for split, examples in splits.items():
        if len(examples):
            images = {ref.key: ref.path for example in examples for ref in example.query.images}
            found = verify(task, split, images, partial(progress.step, f"verifying {split}"))
            if found.fault:
                raise DataError(found.fault)
            progress.say(found.said)


def _load(task: Task, split: str | None) -> Examples:
    return [] if split is None or split == "none" else task.load(split)
