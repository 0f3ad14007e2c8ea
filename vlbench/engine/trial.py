"""One trial: build a learner, finetune it, answer the reported split. A control is a trial that sees nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator

from vlbench.core.backbone import Fitted, ImageProcessing
from vlbench.core.examples import Examples, ImageRef
from vlbench.core.modes import MODES
from vlbench.core.progress import Progress
from vlbench.core.record import LoadReport, Prompting, TrainInfo
from vlbench.core.results import Prediction, Ranking
from vlbench.data.images.controls import blind_examples
from vlbench.data.resources import Resources
from vlbench.engine.batching.batches import sequential_blocks
from vlbench.engine.build import build_learner, load_initial_weights
from vlbench.engine.evaluators.base import Evaluator, Kept, Results
from vlbench.engine.evaluators.build import make_evaluator
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.engine.resources import unique_refs
from vlbench.engine.runtime.environment import Clock, compile_forward, seed_everything
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.engine.runtime.ranks import Ranks
from vlbench.engine.runtime.trackers import Trackers
from vlbench.engine.training.checkpoint import Best, Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.metrics_log import MetricsLog
from vlbench.engine.training.plan import Conduct, Plan, make_plan, training_units
from vlbench.engine.training.probe import Selection, probe
from vlbench.engine.weights.files import STANDS_ON
from vlbench.engine.weights.loading import check_frozen, summary
from vlbench.metrics.direction import MetricValue
from vlbench.records.folder import RunFolder


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves: what it answered about the reported split, and how it came about.

    results: a prediction per example, on rank 0; of a gallery, a ranking per image and per text. prompting,
    image_processing: how the model was asked and by what its images were prepared, where it says so.
    """

    results: Results
    timing: Timing
    train: TrainInfo | None
    parameters: int
    dtype: str
    load_report: LoadReport | None
    prompting: Prompting | None = None
    image_processing: Mapping[str, str] = field(default_factory=dict)


def checkpoints_below(folder: RunFolder, control: str) -> Path:
    """Where a trial keeps its checkpoints; the real run's control is empty."""
    return folder.path / (f"controls/{control}" if control else "checkpoints")


def shards_below(folder: RunFolder, control: str) -> Path:
    """Where a trial keeps its predictions until all are there."""
    return folder.path / "shards" / (control or "real")


@dataclass(frozen=True)
class Trial:
    """control: empty for the real run. blind: the one picture that a blind trial sees everywhere. trackers: told of
    each step.
    """

    job: Job
    resources: Resources
    folder: RunFolder
    accelerator: Accelerator
    progress: Progress
    interrupt: Interrupt
    clock: Clock
    control: str = ""
    blind: ImageRef | None = None
    trackers: Trackers = field(default_factory=Trackers)

    @property
    def ranks(self) -> Ranks:
        """This process's place among those that share the run."""
        return Ranks.of(self.accelerator)

    @property
    def evaluator(self) -> Evaluator:
        """How the job's model answers its task."""
        return make_evaluator(self.job)

    def run(self) -> Outcome:
        """Finetune from the last saved step to the end, then answer.

        Raises:
            Interrupted: asked to stop; running the same trial again goes on from the saved step.
        """
        job = self.job
        seed_everything(job.spec.seed)
        learner, train = build_learner(job, self.resources), None
        parameters = sum(parameter.numel() for parameter in learner.parameters())
        facts = MODES[job.spec.mode]
        loaded = load_initial_weights(learner, job, self.resources)
        if loaded is not None and not self.control:
            self.progress.say(summary(loaded))
        if facts.trains_backbone:
            check_frozen(learner, _filled(learner, loaded), "--checkpoint FILE")
        if loaded is None and facts.trains and isinstance(learner.backbone, Fitted):
            learner.backbone.fit(unique_refs(self._seen(job.train)))
        if job.spec.compile:
            compile_forward(learner, self.accelerator.device)
        if facts.trains:
            with self.clock.phase(self._name(job.spec.mode)):
                train = (self._finetune if facts.trains_backbone else self._probe)(learner, self._checkpoints())
        learner.to(self.accelerator.device)
        with self.clock.phase(self._name("predict")):
            pace = self._pace(self._name("predicting"))
            results, timing = self.evaluator.evaluate(learner, self._seen(job.report), pace, self._kept())
        self.accelerator.free_memory()
        return Outcome(
            results,
            timing,
            train,
            parameters,
            _precision(learner),
            loaded,
            self.evaluator.prompting(learner, job.report),
            learner.backbone.image_processing() if isinstance(learner.backbone, ImageProcessing) else {},
        )

    def _finetune(self, learner: Learner, checkpoints: Checkpoints) -> TrainInfo:
        spec, train = self.job.spec, self._seen(self.job.train)
        images = learner.head.contrasted_images(train)
        plan = make_plan(spec.train, training_units(spec.train, train), spec.seed, images)
        conduct = Conduct(spec.workers, spec.save_every, spec.auto_batch, spec.activation_checkpointing)
        training = Finetuning(learner, train, plan, self.accelerator, checkpoints, spec.seed, conduct)
        select = self._select if self.job.select else None
        state = training.run(select, self._journal(), self.progress, self.interrupt, self._name("finetuning"))
        trained = self._trained(plan, state.best or Best(plan.steps, "plain", None))
        return trained.model_copy(update={"accumulation": training.steps.accumulation})

    def _trained(self, plan: Plan, best: Best) -> TrainInfo:
        spec = self.job.spec
        return TrainInfo(
            recipe=spec.train,
            train_split=spec.train_split,
            selected_on=spec.select_on,
            steps=plan.steps,
            effective_batch=plan.batch_size,
            best_step=best.step,
            weights=best.weights,
            selection=best.value,
            seed=spec.seed,
        )

    def _probe(self, learner: Learner, checkpoints: Checkpoints) -> TrainInfo:
        job, spec = self.job, self.job.spec
        train, select = self._seen(job.train), self._seen(job.select)
        units = sequential_blocks(len(train), 1)  # features are at hand: nothing is gained by related ones together
        plan, pace = make_plan(spec.train, units, spec.seed), self._pace(self._name("probing"))
        selection = Selection(select, self._measured) if select else None
        best = probe(learner, train, selection, plan, pace, self._journal(), spec.seed)
        if self.ranks.is_main:
            checkpoints.save_best(learner)
        self.ranks.barrier()
        checkpoints.load_best(learner)
        return self._trained(plan, best)

    def _select(self, learner: Learner) -> MetricValue:
        """The task's main metric on the selection split, the same on all ranks."""
        pace = replace(self._pace(self._name("selecting")), stops=False)
        results, _ = self.evaluator.evaluate(learner, self._seen(self.job.select), pace)
        return self.ranks.share(self._measured(results) if self.ranks.is_main else MetricValue(0.0))

    def _measured(self, results: Sequence[Prediction] | Sequence[Ranking]) -> MetricValue:
        """The task's main metric of results for the selection split."""
        score = self.job.task.metric(self.job.task.card.main_metric)(results, self.job.select)
        return MetricValue(score.value, score.higher_is_better)

    def _kept(self) -> Kept:
        """Where the answers for the reported split are kept as they come."""
        return Kept(shards_below(self.folder, self.control), self.folder.path / "scores")

    def _pace(self, what: str) -> Pace:
        spec, size = self.job.spec, self.job.spec.eval_batch_size
        return Pace(self.accelerator, size, spec.workers, self.progress, self.interrupt, what)

    def _seen(self, examples: Examples) -> Examples:
        return examples if self.blind is None else blind_examples(examples, self.blind)

    def _checkpoints(self) -> Checkpoints:
        below = checkpoints_below(self.folder, self.control)
        answers = () if self.job.task.card.labels else self.job.labels
        names = {"model": self.job.card.name, "size": self.job.size}
        if MODES[self.job.spec.mode].trains_head_only and self.job.spec.checkpoint == "shipped":
            names[STANDS_ON] = self.job.weights_sha256
        return Checkpoints(below, self.resources.words, names, answers)

    def _journal(self) -> MetricsLog:
        return MetricsLog(self.folder, self.control, self.accelerator.is_main_process, self.trackers)

    def _name(self, what: str) -> str:
        return f"{what} ({self.control})" if self.control else what


def _filled(learner: Learner, report: LoadReport | None) -> set[str]:
    """The names of the backbone's tensors that weights were loaded into; none from scratch."""
    return set() if report is None else set(learner.state_dict()) - set(report.absent)


def _precision(learner: Learner) -> str:
    """The dtype of most of its weights; empty where it has none."""
    sizes: Counter[str] = Counter()
    for parameter in learner.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else ""
