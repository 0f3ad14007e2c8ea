"""Build what a job runs: its evaluator, and its learner with the initial weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlbench import catalog
from vlbench.core.backbone import LowPrecision
from vlbench.core.modes import MODES
from vlbench.core.record import LoadReport
from vlbench.data.resources import Resources
from vlbench.engine.capabilities import EvaluatorKind
from vlbench.engine.evaluators.base import Evaluator
from vlbench.engine.evaluators.classification import Classification
from vlbench.engine.evaluators.cross_encoder import CrossEncoder
from vlbench.engine.evaluators.generation import Generation
from vlbench.engine.evaluators.retrieval import Retrieval
from vlbench.engine.evaluators.zero_shot import ZeroShot
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.engine.weights.answer_vocabulary import named_rows
from vlbench.engine.weights.files import PRETRAINED
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.engine.weights.pretrained_loading import load_pretrained

EVALUATORS: Mapping[EvaluatorKind, type[Evaluator]] = {
    EvaluatorKind.CLASSIFICATION: Classification,
    EvaluatorKind.ZERO_SHOT: ZeroShot,
    EvaluatorKind.GENERATION: Generation,
    EvaluatorKind.RETRIEVAL: Retrieval,
    EvaluatorKind.CROSS_ENCODER: CrossEncoder,
}


def make_evaluator(job: Job) -> Evaluator:
    """The evaluator for the way in which the job's model answers its task."""
    return EVALUATORS[job.kind](job)


def build_learner(job: Job, resources: Resources) -> Learner:
    """The job's model with the head that its task needs, both with random weights."""
    model = catalog.load_model(job.card, job.size, resources)
    return Learner(model, make_evaluator(job).build_head(model))


def lower_precision(learner: Learner, job: Job) -> None:
    """Hold the weights of a backbone that is not trained in the spec's precision, if it can; the head stays as it is.

    Autocast stays on, so that inputs and intermediate results of another precision are accepted.
    """
    dtype = getattr(torch, job.arithmetic)
    if (
        dtype != torch.float32
        and not MODES[job.spec.mode].trains_backbone
        and isinstance(learner.backbone, LowPrecision)
    ):
        learner.backbone.lower(dtype)


def load_initial_weights(learner: Learner, job: Job, resources: Resources) -> LoadReport | None:
    """Load the initial weights; None from scratch.

    Raises:
        VlbenchError: exit 6, the weights do not fit the model.
    """
    if job.weights is None:
        return None
    evaluator = make_evaluator(job)
    if job.spec.checkpoint != PRETRAINED:
        vocabulary = resources.words.vocabulary_sha256 if resources.words else ""
        wanted = Wanted(job.card, evaluator.loads_head, answers=job.labels, vocabulary=vocabulary, base=job.base)
        return load_weights(learner, job.weights, wanted)
    rows = named_rows(job.spec, job.labels, job.weights)
    return load_pretrained(learner, evaluator.head_labels, rows, evaluator.loads_head, job.card.name)
