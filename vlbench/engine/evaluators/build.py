"""The evaluator of a job: one class per kind."""

from __future__ import annotations

from collections.abc import Mapping

from vlbench.engine.capabilities import EvaluatorKind
from vlbench.engine.evaluators.base import Evaluator
from vlbench.engine.evaluators.classification import Classification
from vlbench.engine.evaluators.cross_encoder import CrossEncoder
from vlbench.engine.evaluators.generation import Generation
from vlbench.engine.evaluators.retrieval import Retrieval
from vlbench.engine.evaluators.zero_shot import ZeroShot
from vlbench.engine.job import Job

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
