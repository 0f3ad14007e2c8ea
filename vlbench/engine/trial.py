"""One trial: build a learner, train it, answer the reported split. A control is a trial on blind images."""

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
from vlbench.data.images.controls import BlindExamples, blind_resources
from vlbench.data.resources import Resources
from vlbench.engine.batching.batches import sequential_blocks
from vlbench.engine.build import build_learner, load_initial_weights, lower_precision, make_evaluator
from vlbench.engine.evaluators.base import Evaluator, ResultFolders, Results
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.engine.resources import unique_refs
from vlbench.engine.runtime.environment import Clock, check_compiler, seed_everything
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

CONTROL = "blind"
"""The control that trains and answers without seeing an image."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    results: for the reported split, on rank 0 a prediction per example; of a gallery, a ranking per image and per text.
    image_processing: of a model that reports it.
    """

    results: Results
    timing: Timing
    train: TrainInfo | None
    parameters: int
    dtype: str
    load_report: LoadReport | None
    prompting: Prompting | None = None
    image_processing: Mapping[str, str] = field(default_factory=dict)


def checkpoint_folder(folder: RunFolder, control: str) -> Path:
    """The folder of a trial's checkpoints; the real trial's control is empty."""
    return folder.path / (f"controls/{control}" if control else "checkpoints")


@dataclass(frozen=True)
class Trial:
    """A trial of a job. control: empty for the real trial. blind: the image that a blind trial uses everywhere.

    own_metrics: whether lines of metrics go beside the trial's checkpoints, for `merge_control`: another process writes
    those of the run.
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
    own_metrics: bool = False

    @property
    def ranks(self) -> Ranks:
        """This process's place among those that share the run."""
        return Ranks.of(self.accelerator)

    @property
    def evaluator(self) -> Evaluator:
        """How the job's model answers its task."""
        return make_evaluator(self.job)

    def run(self) -> Outcome:
        """Train from the last saved step to the end, then answer the reported split.

        Raises:
            Interrupted: asked to stop; running the same trial again resumes from the saved step.
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
            filled = set(learner.state_dict()) - set(loaded.absent) if loaded else set[str]()
            check_frozen(learner, filled, "--checkpoint FILE")
        if loaded is None and facts.trains and isinstance(learner.backbone, Fitted):
            learner.backbone.fit(unique_refs(self._blinded(job.train)))
        lower_precision(learner, job)
        if job.spec.compile:
            check_compiler(self.accelerator.device)
            learner.compile_model()
        if facts.trains:
            with self.clock.phase(self._name(job.spec.mode)):
                train = (self._finetune if facts.trains_backbone else self._probe)(learner, self._checkpoints())
        learner.to(self.accelerator.device)
        with self.clock.phase(self._name("predict")):
            pace = replace(self._pace(self._name("predicting")), records_errors=job.spec.on_error == "record")
            predictions = self.folder.path / "shards" / (self.control or "real")
            folders = ResultFolders(predictions, self.folder.path / "scores")
            results, timing = self.evaluator.evaluate(learner, self._blinded(job.report), pace, folders)
        self.accelerator.free_memory()
        prompting = self.evaluator.prompting(learner, job.report)
        processing = learner.backbone.image_processing() if isinstance(learner.backbone, ImageProcessing) else {}
        return Outcome(results, timing, train, parameters, _main_dtype(learner), loaded, prompting, processing)

    def blinded(self) -> Trial:
        """The same trial on blind images: the control of this one."""
        images, folder = unique_refs(self.job.train), self.folder.path / "controls"
        constant, ref = self.ranks.together(lambda: blind_resources(self.resources, images, folder))
        return replace(self, resources=constant, control=CONTROL, blind=ref, trackers=Trackers())

    def _finetune(self, learner: Learner, checkpoints: Checkpoints) -> TrainInfo:
        spec, train = self.job.spec, self._blinded(self.job.train)
        images = learner.head.contrasted_images(train)
        plan = make_plan(spec.train, training_units(spec.train, train), spec.seed, images)
        conduct = Conduct(spec.workers, spec.save_every, spec.auto_batch, spec.activation_checkpointing, spec.fsdp)
        training = Finetuning(learner, train, plan, self.accelerator, checkpoints, spec.seed, conduct)
        select = self._select if self.job.select else None
        state = training.run(select, self._metrics_log(), self.progress, self.interrupt, self._name("finetuning"))
        trained = self._train_info(plan, state.best or Best(plan.steps, "plain", None))
        return trained.model_copy(update={"accumulation": training.steps.accumulation})

    def _train_info(self, plan: Plan, best: Best) -> TrainInfo:
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
        train, select = self._blinded(job.train), self._blinded(job.select)
        units = sequential_blocks(len(train), 1)  # features are in memory: related rows need not be together
        plan, pace = make_plan(spec.train, units, spec.seed), self._pace(self._name("probing"))
        selection = Selection(select, self._measure) if select else None
        best = probe(learner, train, selection, plan, pace, self._metrics_log(), spec.seed)
        if self.ranks.is_main:
            checkpoints.save_best(learner)
        self.ranks.barrier()
        checkpoints.load_best(learner)
        return self._train_info(plan, best)

    def _select(self, learner: Learner) -> MetricValue:
        """The task's main metric on the selection split, the same on all ranks."""
        pace = replace(self._pace(self._name("selecting")), stops=False)
        results, _ = self.evaluator.evaluate(learner, self._blinded(self.job.select), pace)
        return self.ranks.share(self._measure(results) if self.ranks.is_main else MetricValue(0.0))

    def _measure(self, results: Sequence[Prediction] | Sequence[Ranking]) -> MetricValue:
        """The task's main metric of results on the selection split."""
        score = self.job.task.metric(self.job.task.card.main_metric)(results, self.job.select)
        return MetricValue(score.value, score.higher_is_better)

    def _pace(self, what: str) -> Pace:
        spec, size = self.job.spec, self.job.spec.eval_batch_size
        return Pace(self.accelerator, size, spec.workers, self.progress, self.interrupt, what)

    def _blinded(self, examples: Examples) -> Examples:
        return examples if self.blind is None else BlindExamples(examples, self.blind)

    def _checkpoints(self) -> Checkpoints:
        folder = checkpoint_folder(self.folder, self.control)
        answers = () if self.job.task.card.labels else self.job.labels
        names = {"model": self.job.card.name, "size": self.job.size}
        if MODES[self.job.spec.mode].trains_head_only and self.job.spec.checkpoint == "shipped":
            names[STANDS_ON] = self.job.weights_sha256
        return Checkpoints(folder, self.resources.words, names, answers)

    def _metrics_log(self) -> MetricsLog:
        folder = RunFolder(checkpoint_folder(self.folder, self.control)) if self.own_metrics else self.folder
        return MetricsLog(folder, self.control, self.accelerator.is_main_process, self.trackers)

    def _name(self, what: str) -> str:
        return f"{what} ({self.control})" if self.control else what


def _main_dtype(learner: Learner) -> str:
    """The dtype of most weights; empty without weights."""
    sizes: Counter[str] = Counter()
    for parameter in learner.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else ""
