"""What an evaluator is: one way in which a model answers a task, from its head to the rows of the record."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from vlbench.core.backbone import Model, Rendering
from vlbench.core.examples import Examples, Prompt
from vlbench.core.modes import MODES
from vlbench.core.record import Coverage, Decoding, Prompting
from vlbench.core.results import Prediction, Ranking
from vlbench.engine.batching.prediction_shards import PredictionShards, state_sha256
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.base import Head
from vlbench.heads.generate import LONGEST
from vlbench.heads.inputs import PromptInputs
from vlbench.metrics.coverage import match
from vlbench.records.folder import RunFolder
from vlbench.records.samples import SampleRow, sample_rows

Results: TypeAlias = list[Prediction] | list[Ranking]


@dataclass(frozen=True)
class ResultFolders:
    """Folders where results are kept as they come, so that an interrupted evaluation resumes.

    predictions: of examples. scores: of a gallery.
    """

    predictions: Path
    scores: Path

    def shards(self, learner: Learner, device: torch.device) -> PredictionShards:
        """The predictions of these weights on this device."""
        return PredictionShards(self.predictions, f"{device.type} {state_sha256(learner)}")


class Evaluator(ABC):
    """One way in which a job's model answers its task."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def build_head(self, model: Model) -> Head:
        """The untrained head over the model."""

    @property
    def loads_head(self) -> bool:
        """Whether the head comes with the weights."""
        return MODES[self.job.spec.mode].loads_head

    @property
    def head_labels(self) -> tuple[str, ...]:
        """The labels that a head of a model of transformers is loaded for."""
        return self.job.labels

    @abstractmethod
    def evaluate(
        self, learner: Learner, examples: Examples, pace: Pace, folders: ResultFolders | None = None
    ) -> tuple[Results, Timing]:
        """Answer the examples in evaluation mode, without references.

        folders: where results are kept as they come; those of the same weights are not computed again.
        """

    def work(self, examples: Examples) -> tuple[int, str]:
        """How much work answering the examples is, and its unit."""
        return len(examples), "examples"

    def max_batch(self, examples: Examples) -> int:
        """The most units of work in one forward pass."""
        return min(self.job.spec.eval_batch_size, len(examples))

    def run_batch(self, learner: Learner, examples: Examples, size: int, pace: Pace) -> None:
        """One forward pass over `size` units of work, to time it."""
        self.evaluate(learner, examples[:size], pace)

    def prompting(self, learner: Learner, examples: Examples) -> Prompting | None:
        """The prompt of the first example and how answers are generated; None for texts as they are."""
        if not len(examples) or not isinstance(learner.head.inputs, PromptInputs):
            return None
        prompt = learner.head.inputs.prompt(examples[0].query)
        return render_prompt(examples[0].id, prompt, learner.backbone, self.generates)

    @property
    def generates(self) -> bool:
        """Whether answers are generated texts."""
        return False

    def coverage(self, results: Results) -> Coverage:
        """How the ids of the results match those of the examples."""
        return match(predictions_of(results), self.job.report, self.job.task.card.labels)

    def sample_rows(self, results: Results, control: str) -> Iterator[SampleRow]:
        """One row per example. control: of the trial, empty for the real one."""
        job = self.job
        main: Mapping[str, float] = {}
        if not job.unscored:
            main = job.task.metric(job.task.card.main_metric)(results, job.report).per_example
        return sample_rows(job.report, predictions_of(results), main, job.spec.split, control)

    def write(self, folder: RunFolder, results: Results) -> None:  # noqa: B027
        """Write the results that the samples do not hold; there are none of predictions."""

    def random_scores(self) -> Mapping[str, float]:
        """The score of a random ranking by metric; empty where nothing is ranked."""
        return {}


def predictions_of(results: Sequence[Prediction] | Sequence[Ranking]) -> list[Prediction]:
    """The predictions among results."""
    return [result for result in results if isinstance(result, Prediction)]


def render_prompt(example_id: str, prompt: Prompt, model: object, generates: bool) -> Prompting:
    """A prompt as the model reads it. generates: whether the model answers by a text, whose decoding is recorded."""
    if not isinstance(model, Rendering):
        text = "\n".join([*(f"{shot.query.text} {shot.answer}" for shot in prompt.shots), prompt.query.text])
        decoding = Decoding(max_new_tokens=LONGEST) if generates else None
        return Prompting(example=example_id, prompt=text, decoding=decoding)
    template = model.chat_template
    return Prompting(
        example=example_id,
        prompt=model.rendered(prompt),
        chat_template_sha256=hashlib.sha256(template.encode()).hexdigest() if template else "",
        decoding=model.decoding(LONGEST) if generates else None,
    )
