"""One trial: build a learner, finetune it, answer the reported split. A control is a trial that sees nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from torch import nn

from vlbench import catalog
from vlbench.core.backbone import Backbone, Fitted
from vlbench.core.examples import ImageRef
from vlbench.core.head import Head
from vlbench.core.progress import Progress
from vlbench.core.record import LoadReport, TrainInfo
from vlbench.core.results import Prediction, Ranking
from vlbench.data.controls import blind_examples
from vlbench.data.resources import Resources
from vlbench.engine.checkpoint import Best, Checkpoints, load_weights
from vlbench.engine.environment import Clock, seed_everything
from vlbench.engine.finetune import Finetuning, make_plan
from vlbench.engine.generate import generate
from vlbench.engine.interrupt import Interrupt
from vlbench.engine.job import Examples, Job
from vlbench.engine.learner import Learner
from vlbench.engine.pace import Pace, Timing
from vlbench.engine.predict import predict
from vlbench.engine.resources import unique_refs
from vlbench.engine.retrieve import retrieve
from vlbench.heads.build import build_head
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
        if job.spec.mode == "zero-shot":
            return self._written(backbone)
        learner = Learner(backbone, self._head(backbone.width))
        trains, loaded, train = job.spec.mode == "finetune", None, None
        if trains and isinstance(backbone, Fitted):
            backbone.fit(unique_refs(self._seen(job.train)))
        if job.weights is not None:
            loaded = load_weights(learner, job.weights, with_head=not trains)
        if trains:
            with self.clock.phase(self._name("finetune")):
                train = self._finetune(learner, self._checkpoints())
        learner.to(self.accelerator.device)
        with self.clock.phase(self._name("predict")):
            results, timing = self._answer(learner, job.report, self._name("predicting"))
        self.accelerator.free_memory()
        parameters = sum(parameter.numel() for parameter in learner.parameters())
        return Outcome(results, timing, train, parameters, loaded)

    def _written(self, backbone: Backbone) -> Outcome:
        """Zero-shot: nothing is trained, and the model answers in words or chooses among candidates."""
        job, card = self.job, self.job.task.card
        module = cast(nn.Module, backbone).to(self.accelerator.device)
        loaded = None
        if job.weights is not None:
            loaded = load_weights(nn.ModuleDict({"backbone": module}), job.weights)
        candidates = job.labels if job.spec.answer_by == "candidates" else ()
        head = GenerateHead(card.extraction, card.labels, candidates, card.images_per_example)
        with self.clock.phase("predict"):
            results, timing = generate(backbone, head, job.report, card.prompt, self._pace("predicting"))
        parameters = sum(parameter.numel() for parameter in module.parameters())
        return Outcome(results, timing, None, parameters, loaded)

    def _finetune(self, learner: Learner, checkpoints: Checkpoints) -> TrainInfo:
        spec, train = self.job.spec, self._seen(self.job.train)
        plan = make_plan(spec.train, len(train))
        training = Finetuning(learner, train, plan, self.accelerator, checkpoints, spec.seed, spec.workers)
        select = self._select if self.job.select else None
        state = training.run(select, self._log, self.progress, self.interrupt, self._name("finetuning"))
        best = state.best or Best(plan.steps, "plain", None)
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
        return predict(learner, self._seen(examples), pace)

    def _pace(self, what: str) -> Pace:
        spec = self.job.spec
        return Pace(self.accelerator, spec.eval_batch_size, spec.workers, self.progress, self.interrupt, what)

    def _head(self, width: int) -> Head:
        return build_head(self.job.task.card, self.job.card, width, self.job.labels, self.job.spec.train)

    def _seen(self, examples: Examples) -> Examples:
        return examples if self.blind is None else blind_examples(examples, self.blind)

    def _checkpoints(self) -> Checkpoints:
        below = checkpoints_below(self.folder, self.control)
        answers = () if self.job.task.card.labels else self.job.labels
        return Checkpoints(below, self.resources.text, {"model": self.job.card.name, "size": self.job.size}, answers)

    def _log(self, values: dict[str, float | int | str]) -> None:
        self.folder.append_metrics({"control": self.control} | values if self.control else values)

    def _name(self, what: str) -> str:
        return f"{what} ({self.control})" if self.control else what
