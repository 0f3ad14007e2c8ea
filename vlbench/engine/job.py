"""From what was asked to what will be done: every default filled in, every clash found, before torch is loaded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlbench import __version__, catalog
from vlbench.core.cards import ModelCard, Recipe, TaskCard
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.examples import Answered, Example
from vlbench.core.progress import Progress
from vlbench.core.spec import RunSpec
from vlbench.core.task import Task, ids_of
from vlbench.data.answers import answers_sha256
from vlbench.data.parallel import spare_processes
from vlbench.data.resources import Loading
from vlbench.data.verify import manifest
from vlbench.engine.capabilities import refused, takes_prompts
from vlbench.engine.options import check_adapters, check_own_code, check_placing
from vlbench.engine.pretrained import PRETRAINED, own_weights
from vlbench.engine.source import load_task
from vlbench.engine.vocabulary import answerable, labels_of, learnable, named_rows
from vlbench.engine.weights import chosen_weights, holds_linear, weights_file, weights_sha256
from vlbench.engine.writing import answer_by, check_shots, draw_shots
from vlbench.records.fingerprint import fingerprint

Examples = Sequence[Example[Any]]

PAIRS, PROMPTS = 256, 8
"""Examples per forward: of an encoder, and of a model that writes, which is large and sees hundreds of tokens each."""
SELECTED_ON = 1000
"""Pictures of a gallery that weights are selected on, unless told otherwise."""
PROBE = Recipe(
    optimizer="adamw",
    lr=1e-2,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    warmup=0.0,
    epochs=50,
    batch_size=256,
    evaluations=10,
    batches="shuffled",
)
"""For a linear head alone, over features brought to mean 0 and deviation 1; whatever the model."""


@dataclass(frozen=True)
class Job:
    """A resolved spec with its task and model card. select is empty where nothing is selected on.

    labels: the answers a classifier chooses from, closed or open; none where the task ranks or answers are written.
    notes: what was left out. shots: examples that the model is shown before each question. weights: the file begun
    with; None from scratch.
    """

    spec: RunSpec
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
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shots: Examples = ()
    weights: Path | None = None

    @property
    def unscored(self) -> bool:
        """Whether the reported split's answers are kept by the organisers: it is predicted, not scored."""
        references = (example.reference for example in self.report)
        return all(isinstance(reference, Answered) and not reference.worths() for reference in references)

    @property
    def ranks(self) -> bool:
        """Whether the task ranks a gallery instead of answering its examples one by one."""
        return self.task.card.output == "rank"

    @property
    def writes(self) -> bool:
        """Whether the model answers in words of its own, or by how likely it finds those of candidates."""
        return self.spec.answer_by is not None

    @property
    def loading(self) -> Loading:
        """How transformers brings the model into memory: as small as is asked for, where nothing is trained."""
        answers = self.writes and self.spec.mode != "finetune"
        return Loading(
            dtype=self.spec.dtype if answers and self.card.pretrained else "float32",
            device_map=self.spec.device_map,
            quantize=self.spec.quantize,
            trust_remote_code=self.spec.trust_remote_code,
            at_once=self.spec.checkpoint == PRETRAINED,
        )

    @property
    def probes_prompts(self) -> bool:
        """Whether a linear head answers from what a model that writes makes of each prompt."""
        return takes_prompts(self.card, self.task.card) and not self.writes

    @property
    def compares(self) -> bool:
        """Whether pictures are compared with sentences, one per answer, by a model that was not trained on the task."""
        return self.spec.mode == "zero-shot" and not self.ranks and not self.writes

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; None for all."""
        return self.spec.threads or self.card.sizes[self.size].threads


def refusal(spec: RunSpec) -> VlbenchError | None:
    """Why the model cannot answer the task in that mode, as far as their cards say; None where it can.

    Raises:
        VlbenchError: names nobody knows; a model with code of its own that is not trusted.
    """
    card, task_card = catalog.model_card(spec.model), catalog.task_card(spec.task, spec.tasks_dir)
    begins_with_own = card.pretrained and spec.checkpoint in (None, PRETRAINED)
    check_own_code(spec, card)
    reason = refused(card, task_card, spec.mode, begins_with_own)
    headless = spec.mode == "eval" and task_card.output in card.outputs
    return VlbenchError(reason, ExitCode.WEIGHTS if headless else ExitCode.USAGE) if reason else None


def plan(spec: RunSpec, progress: Progress) -> Job:
    """Resolve a spec.

    Raises:
        VlbenchError: names nobody knows, a model that cannot answer the task, splits that clash.
    """
    card = catalog.model_card(spec.model)
    if impossible := refusal(spec):
        raise impossible
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
    spec = _resolved(spec, task, card)
    train, select, report = (_load(task, split) for split in (spec.train_split, spec.select_on, spec.split))
    _check_apart(spec, train, select, report)
    select, part = _selected_on(select, spec, whole=task.card.output == "rank")
    sha = manifest(task, {str(spec.train_split): train, str(spec.select_on): select, str(spec.split): report})
    weights = _weights(spec, card)
    labels = labels_of(spec, task.card, train, weights)
    weights_hash = weights_sha256(weights)
    shots = draw_shots(spec, train)
    train, notes = learnable(task.card, [] if shots else train, labels)
    rows = named_rows(spec, labels, weights)
    if spec.mode == "eval" and spec.checkpoint == PRETRAINED and labels:
        labels, notes = answerable(labels, rows, card.name)
    return Job(
        spec=spec,
        task=task,
        card=card,
        size=str(spec.size),
        train=train,
        select=select,
        report=limited(report, spec, whole=task.card.output == "rank"),
        n_total=len(report),
        manifest_sha256=sha,
        weights_sha256=weights_hash,
        fingerprint=fingerprint(
            spec,
            recipe=spec.train,
            task_version=task.card.version,
            manifest_sha256=sha,
            weights_sha256=weights_hash,
            model_sha256=catalog.own_sha256(card),
            answers_sha256=answers_sha256(labels) + answers_sha256(rows),
            vlbench_version=__version__,
        ),
        labels=labels,
        notes=(*part, *notes),
        shots=shots,
        weights=weights,
    )


def _weights(spec: RunSpec, card: ModelCard) -> Path | None:
    if spec.checkpoint == PRETRAINED:
        return own_weights(card)
    return chosen_weights(str(spec.checkpoint), card.name, str(spec.size))


def _resolved(spec: RunSpec, task: Task, card: ModelCard) -> RunSpec:
    """The spec with every default written out, so that the record says what ran."""
    world, trains = task.source == "world", spec.mode in ("finetune", "probe")
    _check_rerank(spec, task.card, card)
    check_shots(spec, task.card, card)
    size = spec.size or (next(iter(card.sizes)) if len(card.sizes) == 1 else "tiny" if world else "base")
    catalog.check_size(card, size)
    checkpoint = spec.checkpoint or _default_checkpoint(card, size, world)
    if spec.mode == "eval" and checkpoint == "none":
        raise VlbenchError(
            "--mode eval needs --checkpoint with trained weights, and there are none: name a run or a file"
        )
    blind = world and trains and task.card.output != "rank"  # what a ranking is worth without sight is known: chance
    controls = spec.controls if spec.controls is not None else (("blind",) if blind else ())
    if controls and task.card.output == "rank":
        raise VlbenchError(
            f"--controls {','.join(controls)} is not for {task.card.name}: what a ranking is worth without sight is "
            f"chance, which the table shows; leave it out"
        )
    if controls and not trains:
        raise VlbenchError(
            f"--controls {','.join(controls)} are trained, and --mode {spec.mode} trains nothing: leave them out"
        )
    probed = (
        spec.mode == "eval"
        and checkpoint not in (PRETRAINED, "shipped")
        and holds_linear(weights_file(Path(checkpoint)))
    )
    by = answer_by(spec, task.card, card, probed)
    resolved = spec.model_copy(
        update={
            "size": size,
            "checkpoint": checkpoint,
            "train_split": (spec.train_split or task.card.train_split) if trains or spec.num_fewshot else "none",
            "select_on": (spec.select_on or task.card.select_on) if trains else "none",
            "split": spec.split or task.card.report_split,
            "select_limit": spec.select_limit or (SELECTED_ON if trains and task.card.output == "rank" else None),
            "controls": controls,
            "workers": spec.workers if "workers" in spec.model_fields_set or world else spare_processes(),
            "answer_by": by,
            "eval_batch_size": spec.eval_batch_size or (PROMPTS if by or takes_prompts(card, task.card) else PAIRS),
            "train": (PROBE if spec.mode == "probe" else card.recipe(spec.task, size)).merged(spec.train),
        }
    )
    check_adapters(resolved, card)
    check_placing(resolved, card)
    return resolved


def _default_checkpoint(card: ModelCard, size: str, world: bool) -> str:
    if card.pretrained:
        return PRETRAINED
    return "shipped" if world and catalog.shipped_weights(card.name, size) else "none"


def _check_rerank(spec: RunSpec, task: TaskCard, card: ModelCard) -> None:
    """A shortlist is of a gallery, and needs a model that embeds pictures and texts apart and looks at pairs too."""
    if spec.rerank_k is not None and (task.output != "rank" or card.ranks_by == "dual" or not card.embeds):
        able = [
            name
            for name in catalog.model_folders()
            if (one := catalog.model_card(name)).embeds and one.ranks_by == "cross"
        ]
        raise VlbenchError(
            f"--rerank-k {spec.rerank_k} is for retrieval by a model that embeds and looks at pairs "
            f"({', '.join(able)}), not for {card.name} on {task.name}: leave it out"
        )


def _load(task: Task, split: str | None) -> Examples:
    return [] if split is None or split == "none" else task.load(split)


def _check_apart(spec: RunSpec, train: Examples, select: Examples, report: Examples) -> None:
    """What is reported was neither trained nor selected on (by id: some official splits are parts of others)."""
    reported = set(ids_of(report))
    for split, examples, remedy in (
        (spec.train_split, train, "give another --train-split"),
        (spec.select_on, select, "give another --select-on, or none for the last checkpoint"),
    ):
        shared = reported.intersection(ids_of(examples))
        if shared:
            raise VlbenchError(
                f"--split {spec.split} shares {len(shared):,} examples with {split!r} ({first_five(shared)}), which "
                f"the model is trained or selected on: {remedy}"
            )


def limited(examples: Examples, spec: RunSpec, whole: bool = False) -> Examples:
    """The part of the reported split that `limit` asks for, in its order; the same whatever the seed.

    whole: picture by picture with all its texts, which is what a limit counts where a gallery is ranked.
    """
    if spec.limit is None:
        return examples
    units = _units(examples, whole)
    wanted = round(spec.limit * len(units)) if spec.limit < 1 else int(spec.limit)
    return _part(examples, units, max(1, wanted), f"limit of {spec.split}" if spec.limit_mode == "random" else "")


def _selected_on(examples: Examples, spec: RunSpec, whole: bool) -> tuple[Examples, tuple[str, ...]]:
    """The part of the selection split that `select_limit` leaves, the same whatever the seed, and a note of it.

    Of a ranking every pair counts, so a thousand pictures with five texts each are five million of them already.
    """
    most = spec.select_limit
    units = _units(examples, whole) if most is not None else []
    if most is None or len(units) <= most:
        return examples, ()
    what = "pictures" if whole else "examples"
    note = f"selected on {most:,} of {len(units):,} {what} of {spec.select_on}, chosen at random (--select-limit)"
    return _part(examples, units, most, f"selection on {spec.select_on}"), (note,)


def _units(examples: Examples, whole: bool) -> list[list[int]]:
    """The rows of each example or, with `whole`, of each group."""
    units: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        units.setdefault(example.group if whole else example.id, []).append(row)
    return list(units.values())


def _part(examples: Examples, units: list[list[int]], wanted: int, chance: str) -> Examples:
    """So many of the units, in their order: drawn by the stream that `chance` names, or the first ones."""
    count = min(wanted, len(units))
    chosen = sorted(random.Random(chance).sample(range(len(units)), count)) if chance else range(count)
    return [examples[row] for unit in chosen for row in units[unit]]
