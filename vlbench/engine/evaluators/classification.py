"""Classification: a head over the features of pairs or prompts, finetuned, probed or loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch
from vlbench.core.cards import HeadLayout
from vlbench.core.examples import Examples
from vlbench.core.modes import MODES
from vlbench.core.results import Prediction
from vlbench.engine.batching.batches import fetch_later
from vlbench.engine.batching.prediction_shards import PredictionShards
from vlbench.engine.evaluators.base import Evaluator, ResultFolders
from vlbench.engine.evaluators.predict import Work, predict_all
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.engine.weights.files import holds_linear
from vlbench.heads.base import Head
from vlbench.heads.build import build_head, build_prompt_probe
from vlbench.heads.kinds import takes_prompts


class Classification(Evaluator):
    """Answers by the most likely label of a head."""

    def build_head(self, model: Model) -> Head:
        """The head of the task's output; a linear one for a probe and for weights of a probe."""
        job = self.job
        card, task, facts = job.card, job.task.card, MODES[job.spec.mode]
        if takes_prompts(card, task):
            return build_prompt_probe(task, model.width, job.labels)
        linear = facts.trains_head_only or (facts.loads_head and job.weights and holds_linear(job.weights))
        layout = HeadLayout(hidden=0) if linear else card.head_layout(job.size)
        return build_head(task, card, model.width, job.labels, job.spec.train, layout)

    def evaluate(
        self, learner: Learner, examples: Examples, pace: Pace, folders: ResultFolders | None = None
    ) -> tuple[list[Prediction], Timing]:
        """As `classify`."""
        shards = folders.shards(learner, pace.accelerator.device) if folders else None
        return classify(learner, examples, pace, shards)


def classify(
    learner: Learner, examples: Examples, pace: Pace, shards: PredictionShards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples by logits [B, C] of B examples and C labels at a time; the rest as `predict_all`.

    Raises:
        VlbenchError: a logit is not a number, naming the example.
    """

    device = pace.accelerator.device

    def launch(batch: Batch) -> Callable[[], list[Prediction]]:
        fetch = fetch_later(learner(batch.to(device)).logits.float())
        return lambda: learner.head.finish(fetch(), batch.ids)

    def answer(batch: Batch) -> list[Prediction]:
        return launch(batch)()

    collate = partial(learner.head.collate, examples, model=learner.model)
    work = Work(collate, answer, launch if device.type == "cuda" else None)
    with learner.evaluating():
        return predict_all(examples, work, pace, shards)
