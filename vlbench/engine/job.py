"""The plan of a run: all defaults filled in and all contradictions rejected, before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from vlbench import __version__, catalog
from vlbench.core.cards import ModelCard
from vlbench.core.columns import columns_of, refs_of
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Examples, is_answered
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
from vlbench.engine.limit import draw_shots, limit_examples, limit_selection
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

    kind: how the model answers. train, select, report: the examples of each split; select is empty without a selection
    split. n_total: examples of the reported split before its limit. labels: the answers of a classifier, closed or
    open; empty for retrieval and generated answers. notes: what was left out. shots: examples in each prompt. weights:
    the initial ones; None from scratch. base: the weights that these need, if they are a head alone. cut: groups of
    which the limit has left a part. task_sha256, model_sha256: of the task's card and code, and of the code of a model
    outside vlbench.
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

    @cached_property
    def unscored(self) -> bool:
        """Whether the reported split's answers are kept by the organisers: it is predicted, not scored."""
        references = columns_of(self.report).references
        return all(is_answered(reference) and not reference.worths() for reference in references)

    @property
    def loading(self) -> Loading:
        """How transformers loads the model: in the precision of the spec only if a generative model is not trained."""
        infers = self.kind.generates and not MODES[self.spec.mode].trains_backbone
        return Loading(
            dtype=self.spec.dtype if infers and self.card.pretrained else "float32",
            device_map=self.spec.device_map,
            quantize=self.spec.quantize,
            trust_remote_code=self.spec.trust_remote_code,
            at_once=self.spec.checkpoint == PRETRAINED,
        )

    @property
    def arithmetic(self) -> Literal["float32", "bfloat16", "float16"]:
        """The precision of autocast; float32, so none, where the weights are loaded in the spec's precision."""
        return self.spec.dtype if self.loading.dtype == "float32" else "float32"

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; None for all."""
        return self.spec.threads or self.card.sizes[self.size].threads


def rejection(spec: RunSpec) -> VlbenchError | None:
    """Why the model cannot answer the task in the spec's mode, by their cards; None where it can.

    Raises:
        VlbenchError: an unknown name, a model with untrusted code of its own, or a tracker that is not installed.
    """
    card, task_card = catalog.model_card(spec.model), catalog.task_card(spec.task, spec.tasks_dir)
    check_own_code(spec, card)
    check_trackers(spec.log_with)
    kind = evaluator_for(spec, card, task_card)
    return VlbenchError(kind.reason, kind.exit_code) if isinstance(kind, Unsupported) else None


def plan(spec: RunSpec, progress: Progress) -> Job:
    """Resolve a spec.

    Raises:
        VlbenchError: unknown names, unsupported or contradictory options, overlapping splits.
    """
    if (error := rejection(spec)) is not None:
        raise error
    card = catalog.model_card(spec.model)
    if spec.size is not None:
        catalog.check_size(card, spec.size)
    task = load_task(
        spec.task,
        spec.data_root,
        domain=spec.domain,
        tasks_dir=spec.tasks_dir,
        allow_partial=spec.allow_partial,
        progress=progress,
    )
    whole, kind = resolved(spec, task, card)
    trained = {split: task.load(split) for split in split_tuple(whole.train_split)}
    select, report = _load(task, whole.select_on), _load(task, whole.split)
    check_split_overlap(whole, trained, select, report)
    train = next(iter(trained.values())) if len(trained) == 1 else Joined([*trained.values()])
    check_negatives(whole, task.card, card, kind, train)
    splits = {**trained, whole.select_on: select, whole.split: report}
    if whole.verify_data and launched().local_rank == 0:
        _verify(task, splits, progress)
    select, limited = limit_selection(select, whole, whole=kind.ranks_gallery)
    sha = manifest(task, {**splits, whole.select_on: select, whole.split: report})
    pretrained = whole.checkpoint == PRETRAINED
    weights = own_weights(card) if pretrained else chosen_weights(whole.checkpoint, card.name, whole.size)
    weights = weights.absolute() if weights else None
    brings_tokenizer = whole.vocabulary is None and card.sizes[whole.size].vocabulary != "its own"
    labels = labels_of(whole, task.card, train, weights)
    base = base_of(weights, card.name, whole.size) if weights else None
    weights_hash = weights_sha256(weights, base)
    task_hash, model_hash = catalog.task_sha256(whole.task, whole.tasks_dir), catalog.own_sha256(card)
    shots = draw_shots(whole, train)
    scored = limit_examples(report, whole, whole=kind.ranks_gallery)
    train, notes = learnable(task.card, [] if shots else train, labels)
    rows = named_rows(whole, labels, weights)
    if MODES[whole.mode].loads_head and pretrained and labels:
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
            tokenizer_sha256=tokenizer_sha256(weights) if brings_tokenizer else "",
            answers_sha256=answers_sha256(labels) + answers_sha256(rows),
            vlbench_version=__version__,
        ),
        task_sha256=task_hash,
        model_sha256=model_hash,
        labels=labels,
        notes=(*limited, *notes),
        shots=shots,
        weights=weights,
        base=base,
        cut=cut_groups(report, scored),
    )


def _verify(task: Task, splits: Mapping[str, Examples], progress: Progress) -> None:
    """Hash all data of the splits; a DataError that names the files that differ from their first verification."""
    for split, examples in splits.items():
        if len(examples):
            images = {ref.key: ref.path for ref in refs_of(examples)}
            verified = verify(task, split, images, partial(progress.step, f"verifying {split}"))
            if verified.fault:
                raise DataError(verified.fault)
            progress.say(verified.said)


def _load(task: Task, split: str | None) -> Examples:
    return [] if split is None or split == "none" else task.load(split)
