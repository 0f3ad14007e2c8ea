"""Build a run's model: a backbone with the head that its task needs, and the initial weights."""

from __future__ import annotations

from vlbench import catalog
from vlbench.core.backbone import Backbone, Generator
from vlbench.core.cards import HeadLayout
from vlbench.core.head import Head
from vlbench.core.record import LoadReport
from vlbench.data.resources import Resources
from vlbench.engine.evaluators.learner import Learner
from vlbench.engine.job import Job
from vlbench.engine.weights.answer_vocabulary import named_rows
from vlbench.engine.weights.files import holds_linear
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.engine.weights.pretrained import PRETRAINED
from vlbench.engine.weights.pretrained_loading import load_pretrained
from vlbench.heads.build import build_head, build_probe
from vlbench.heads.dual import DualHead
from vlbench.heads.generate import GenerateHead


def build_learner(job: Job, resources: Resources) -> Learner:
    """The job's backbone with its head, both with random weights."""
    backbone = catalog.load_model(job.card, job.size, resources)
    asking = GenerateHead(job.task.card) if job.probes_prompts else None
    return Learner(backbone, _build_head(job, backbone), asking)


def load_initial_weights(learner: Learner, job: Job, resources: Resources) -> LoadReport | None:
    """Load the run's initial weights; returns None from scratch.

    Raises:
        VlbenchError: exit 6, the weights do not fit the model.
    """
    if job.weights is None:
        return None
    matches = job.ranks and job.card.ranks_by == "cross"  # with the head of its pretraining
    with_head = job.spec.mode == "eval" or (job.spec.mode == "zero-shot" and matches)
    if job.spec.checkpoint != PRETRAINED:
        vocabulary = resources.words.vocabulary_sha256 if resources.words else ""
        wanted = Wanted(job.card, with_head=with_head, answers=job.labels, vocabulary=vocabulary, base=job.base)
        return load_weights(learner, job.weights, wanted)
    labels = () if job.compares else job.labels
    return load_pretrained(learner, labels, named_rows(job.spec, job.labels, job.weights), with_head, job.card.name)


def _build_head(job: Job, backbone: Backbone | Generator) -> Head | GenerateHead:
    if job.writes:
        candidates = job.labels if job.spec.answer_by == "candidates" else ()
        return GenerateHead(job.task.card, candidates, job.shots)
    if job.compares:
        return DualHead()
    if job.probes_prompts:
        return build_probe(job.task.card, backbone.width, job.labels)
    linear = job.spec.mode == "probe" or (job.spec.mode == "eval" and job.weights and holds_linear(job.weights))
    layout = HeadLayout(hidden=0) if linear else job.card.head_layout(job.size)
    return build_head(job.task.card, job.card, backbone.width, job.labels, job.spec.train, layout)
