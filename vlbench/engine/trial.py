"""One trial: build a learner, finetune it, answer the reported split. A control is a trial that sees nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from torch import nn

from vlbench import catalog
from vlbench.core.backbone import Backbone, Fitted, Generator
from vlbench.core.cards import HeadLayout
from vlbench.core.examples import ImageRef
from vlbench.core.head import Head
from vlbench.core.progress import Progress
from vlbench.core.record import LoadReport, TrainInfo
from vlbench.core.results import Prediction, Ranking
from vlbench.data.controls import blind_examples
from vlbench.data.resources import Resources
from vlbench.engine.checkpoint import Best, Checkpoints
from vlbench.engine.compare import compare
from vlbench.engine.environment import Clock, seed_everything
from vlbench.engine.finetune import Finetuning, Plan, make_plan
from vlbench.engine.generate import generate
from vlbench.engine.handover import load_pretrained
from vlbench.engine.interrupt import Interrupt
from vlbench.engine.job import Examples, Job
from vlbench.engine.learner import Learner
from vlbench.engine.loading import Wanted, load_weights, summary
from vlbench.engine.pace import Pace, Timing
from vlbench.engine.predict import predict
from vlbench.engine.pretrained import PRETRAINED
from vlbench.engine.probe import Selection, probe
from vlbench.engine.resources import unique_refs
from vlbench.engine.retrieve import retrieve
from vlbench.engine.weights import brought_answers, holds_linear
from vlbench.heads.build import build_head, build_probe
from vlbench.heads.dual import DualHead
from vlbench.heads.generate import GenerateHead
from vlbench.records.folder import RunFolder


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves: what it answered about the reported split, and how it came about.

    results: a prediction per example; of a gallery, a ranking per picture and per text.
    """

    results: list[Prediction] | list[Ranking]
    timing: Timing
    train: TrainInfo | None
    parameters: int
    dtype: str
    load_report: LoadReport | None


def checkpoints_below(folder: RunFolder, control: str) -> Path:
    """Where a trial keeps its checkpoints; the real run's control is empty."""
    return folder.path / (f"controls/{control}" if control else "checkpoints")


@dataclass(frozen=True)
class Trial:
    """control: empty for the real run. blind: the one picture that a blind trial sees everywhere."""

    job: Job
    resources: Resources
    folder: RunFolder
    accelerator: Accelerator
    progress: Progress
    interrupt: Interrupt
    clock: Clock
    control: str = ""
    blind: ImageRef | None = None

    def run(self) -> Outcome:
        """Finetune from the last saved step to the end, then answer.

        Raises:
            Interrupted: asked to stop; running the same trial again goes on from the saved step.
        """
        job = self.job
        seed_everything(job.spec.seed)
        backbone = catalog.load_model(job.card, job.size, self.resources)
        asking = GenerateHead(job.task.card) if job.probes_prompts else None
        learner, train = Learner(backbone, self._head(backbone), asking), None
        parameters = sum(parameter.numel() for parameter in learner.parameters())
        trains = job.spec.mode in ("finetune", "probe")
        loaded = self._begin(learner)
        if loaded is None and trains and isinstance(backbone, Fitted):
            backbone.fit(unique_refs(self._seen(job.train)))
        if trains:
            with self.clock.phase(self._name(job.spec.mode)):
                train = (self._finetune if job.spec.mode == "finetune" else self._probe)(learner, self._checkpoints())
        learner.to(self.accelerator.device)
        with self.clock.phase(self._name("predict")):
            results, timing = self._answer(learner, job.report, self._name("predicting"))
        self.accelerator.free_memory()
        return Outcome(results, timing, train, parameters, _precision(learner), loaded)

    def _begin(self, learner: Learner) -> LoadReport | None:
        """Load the weights that the run begins with; None from scratch."""
        job = self.job
        if job.weights is None:
            return None
        with_head = job.spec.mode == "eval"
        if job.spec.checkpoint != PRETRAINED:
            return self._load(learner, job.weights, Wanted(job.card, with_head=with_head, answers=job.labels))
        labels = () if job.compares else job.labels
        report = load_pretrained(learner, labels, brought_answers(job.weights), with_head, job.card.name)
        if not self.control:
            self.progress.say(summary(report))
        return report

    def _load(self, learner: nn.Module, weights: Path, wanted: Wanted) -> LoadReport:
        report = load_weights(learner, weights, wanted)
        if not self.control:
            self.progress.say(summary(report))
        return report

    def _finetune(self, learner: Learner, checkpoints: Checkpoints) -> TrainInfo:
        spec, train = self.job.spec, self._seen(self.job.train)
        plan = make_plan(spec.train, len(train))
        training = Finetuning(learner, train, plan, self.accelerator, checkpoints, spec.seed, spec.workers)
        select = self._select if self.job.select else None
        state = training.run(select, self._log, self.progress, self.interrupt, self._name("finetuning"))
        return self._trained(plan, state.best or Best(plan.steps, "plain", None))

    def _trained(self, plan: Plan, best: Best) -> TrainInfo:
        spec = self.job.spec
        return TrainInfo(
            recipe=spec.train,
            train_split=str(spec.train_split),
            selected_on=str(spec.select_on),
            steps=plan.steps,
            effective_batch=plan.batch_size,
            best_step=best.step,
            weights=best.weights,
            seed=spec.seed,
        )

    def _probe(self, learner: Learner, checkpoints: Checkpoints) -> TrainInfo:
        job, spec = self.job, self.job.spec
        train, select = self._seen(job.train), self._seen(job.select)
        plan, pace = make_plan(spec.train, len(train)), self._pace(self._name("probing"))
        main = job.task.metric(job.task.card.main_metric)
        selection = Selection(select, lambda found: main(found, job.select).value) if select else None
        best = probe(learner, train, selection, plan, pace, self._log, spec.seed)
        checkpoints.save_best(learner)
        return self._trained(plan, best)

    def _select(self, learner: Learner) -> float:
        """The task's main metric on the selection split, in percent."""
        results, _ = self._answer(learner, self.job.select, self._name("selecting"))
        return self.job.task.metric(self.job.task.card.main_metric)(results, self.job.select).value

    def _answer(
        self, learner: Learner, examples: Examples, what: str
    ) -> tuple[list[Prediction] | list[Ranking], Timing]:
        pace = self._pace(what)
        if self.job.ranks:
            return retrieve(learner, self._seen(examples), pace, self.job.spec.rerank_k)
        if self.job.compares:
            return compare(learner, examples, self.job.task.card, self.job.labels, pace)
        if self.job.writes:
            return generate(learner, self._seen(examples), pace)
        return predict(learner, self._seen(examples), pace)

    def _pace(self, what: str) -> Pace:
        spec, size = self.job.spec, cast(int, self.job.spec.eval_batch_size)
        return Pace(self.accelerator, size, spec.workers, self.progress, self.interrupt, what)

    def _head(self, backbone: Backbone | Generator) -> Head | GenerateHead:
        job = self.job
        if job.writes:
            candidates = job.labels if job.spec.answer_by == "candidates" else ()
            return GenerateHead(job.task.card, candidates, job.shots)
        if job.compares:
            return DualHead()
        if job.probes_prompts:
            return build_probe(job.task.card, backbone.width, job.labels)
        linear = job.spec.mode == "probe" or (job.spec.mode == "eval" and job.weights and holds_linear(job.weights))
        card = job.card.model_copy(update={"head": HeadLayout(hidden=0)}) if linear else job.card
        return build_head(job.task.card, card, backbone.width, job.labels, job.spec.train)

    def _seen(self, examples: Examples) -> Examples:
        return examples if self.blind is None else blind_examples(examples, self.blind)

    def _checkpoints(self) -> Checkpoints:
        below = checkpoints_below(self.folder, self.control)
        answers = () if self.job.task.card.labels else self.job.labels
        return Checkpoints(below, self.resources.words, {"model": self.job.card.name, "size": self.job.size}, answers)

    def _log(self, values: dict[str, float | int | str]) -> None:
        self.folder.append_metrics({"control": self.control} | values if self.control else values)

    def _name(self, what: str) -> str:
        return f"{what} ({self.control})" if self.control else what


def _precision(learner: Learner) -> str:
    """The dtype of most of its weights; empty where it has none."""
    sizes: Counter[str] = Counter()
    for parameter in learner.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else ""
