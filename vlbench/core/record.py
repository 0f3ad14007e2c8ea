"""The record of a run: its results and everything needed to judge them, as versioned JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlbench.core.cards import Recipe
from vlbench.core.results import Score
from vlbench.core.spec import RunSpec
from vlbench.core.splits import Splits
from vlbench.core.validate import Frozen

SCHEMA_VERSION = 1


class ToolInfo(Frozen):
    """The code that ran. commit: empty outside a git checkout.

    code_sha256: the hash of vlbench's files, built-in tasks included. earlier_code: the same hash of the code that
    started the run, where other code resumed it. Both are empty in records of versions before 0.2.0.
    """

    version: str
    commit: str = ""
    dirty: bool = False
    code_sha256: str = ""
    earlier_code: tuple[str, ...] = ()


class LoadReport(Frozen):
    """The number of tensors that were loaded (matched), missing in the file, and unexpected in it (heads not counted).

    converted: the matched tensors that had another name, size or order in the file. absent: the missing tensors of the
    backbone. unmatched_answers: the number of answers without a row in the file's classifier, initialised with zeros.
    """

    matched: int
    missing: int
    unexpected: int
    converted: int = 0
    absent: tuple[str, ...] = ()
    unmatched_answers: int = 0


class Decoding(Frozen):
    """How answers were generated.

    temperature: None without sampling. stop: the tokens that end an answer, empty if the model does not define them.
    """

    max_new_tokens: int
    do_sample: bool = False
    temperature: float | None = None
    num_beams: int = 1
    stop: tuple[str, ...] = ()


class Prompting(Frozen):
    """The prompt of a model, shown for one example.

    example: the id of the first example that was answered. prompt: the text that the model's tokenizer got for it, with
    chat template and shots; of a dual encoder, the first ten sentences it compares the image with, one per line.
    chat_template_sha256: the hash of the template, empty if there is none. decoding: None where answers were chosen
    from a list.
    """

    example: str
    prompt: str
    chat_template_sha256: str = ""
    decoding: Decoding | None = None


class ModelInfo(Frozen):
    """The model, its weights and their preprocessing. weights_sha256: empty from scratch.

    model_sha256: the hash of the card, code and settings of a model outside vlbench; empty for vlbench's models.
    answers: the number of classes of a classifier over open answers, answers_sha256: their hash; else 0 and empty.
    extraction: the rule that extracted answers from generated text; else empty. dtype: of most of the weights in memory
    when the model answered. preprocessing: of images and texts; its image_backend is the library that resizes images.
    prompting: None where the model gets the examples' texts unchanged.
    """

    name: str
    size: str
    parameters: int
    from_scratch: bool
    weights_sha256: str = ""
    model_sha256: str = ""
    load_report: LoadReport | None = None
    preprocessing: dict[str, str | int | float] = Field(default_factory=dict)
    tokenizer_sha256: str = ""
    answers: int = 0
    answers_sha256: str = ""
    extraction: str = ""
    prompting: Prompting | None = None
    dtype: str = ""


class TaskInfo(Frozen):
    """The data: synthetic world or real, the hash of its manifest, the split, and the number of examples.

    task_sha256: the hash of the task's card and code; empty in records of versions before 0.2.0. shots: the ids of the
    examples that were shown with their answers before each question.
    """

    name: str
    version: int
    task_sha256: str = ""
    source: Literal["world", "real"]
    manifest_sha256: str
    split: str
    n_total: int
    n_scored: int
    limit: float | None = None
    main_metric: str = ""
    shots: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class TrainInfo(Frozen):
    """The training. best_step: the step of the reported checkpoint; selected_on: the split that selected it.

    accumulation: the number of forward passes per optimizer step and process, at the end. selection: the main metric of
    the reported checkpoint on `selected_on`; None without selection.
    """

    recipe: Recipe
    train_split: Splits
    selected_on: str
    steps: int
    effective_batch: int
    accumulation: int = 1
    best_step: int
    weights: Literal["plain", "ema"]
    selection: float | None = None
    seed: int


class Result(Frozen):
    """One metric with its confidence interval. slices: tag -> value -> result of the same metric."""

    metric: str
    value: float
    n: int
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    method: str = ""
    higher_is_better: bool = True
    slices: dict[str, dict[str, Result]] = Field(default_factory=dict)

    @classmethod
    def from_score(cls, metric: str, score: Score, slices: dict[str, dict[str, Result]]) -> Result:
        """The score without its values per example, under the task card's name of the metric."""
        return cls(
            metric=metric,
            value=score.value,
            n=score.n,
            stderr=score.stderr,
            ci95=score.ci95,
            method=score.method,
            higher_is_better=score.higher_is_better,
            slices=slices,
        )


class Coverage(Frozen):
    """The numbers of expected and scored ids: without a one-to-one match there is no score.

    unparsed: the number of answers from which no valid answer could be extracted. errors: the number without an answer.
    """

    expected: int
    scored: int
    missing: int = 0
    duplicate: int = 0
    unparsed: int = 0
    errors: int = 0


class Efficiency(Frozen):
    """The cost of a run. latency_ms: of whole prediction batches. seconds: by phase."""

    examples_per_second: float
    latency_ms: dict[str, float]
    peak_memory_mib: float
    seconds: dict[str, float]


class Environment(Frozen):
    """The machine and libraries. accelerate: Accelerate's environment variables for launch and device, by name.

    trials_at_once: the most trials that one command ran at once; 0 where it is not known. Others slow a trial down.
    """

    python: str
    libraries: dict[str, str]
    cpu: str
    threads: int
    gpu: str = ""
    driver: str = ""
    world_size: int = 1
    device: str = "cpu"
    accelerate: dict[str, str] = Field(default_factory=dict)
    trials_at_once: int = 0


class RunRecord(Frozen):
    """One run, as in `run.json`. spec: resolved, so that no field depends on later defaults.

    majority: the majority baseline, the main metric of always giving the most frequent answer; slice_majorities: the
    same for each slice by itself, tag -> value -> score. chance: for retrieval, the expected score of a random order of
    the candidates, by metric. files: name -> SHA-256 of each result file beside the record; seal: the SHA-256 of the
    record without it (see `vlbench.records.seal`). Both are empty before the run is done, and in older records.
    """

    schema_version: int = SCHEMA_VERSION
    status: Literal["started", "done", "failed", "interrupted"]
    fingerprint: str
    spec: RunSpec
    tool: ToolInfo
    model: ModelInfo
    task: TaskInfo
    environment: Environment
    started: str
    seconds: float = 0.0
    train: TrainInfo | None = None
    results: tuple[Result, ...] = ()
    controls: dict[str, tuple[Result, ...]] = Field(default_factory=dict)
    majority: float | None = None
    slice_majorities: dict[str, dict[str, float]] = Field(default_factory=dict)
    chance: dict[str, float] = Field(default_factory=dict)
    coverage: Coverage | None = None
    efficiency: Efficiency | None = None
    error: str = ""
    files: dict[str, str] = Field(default_factory=dict)
    seal: str = ""

    @property
    def unanswered(self) -> int:
        """The number of examples that could not be answered, which count as wrong."""
        return self.coverage.errors if self.coverage else 0

    @property
    def is_unsealed(self) -> bool:
        """Whether it is a finished record without a seal: of an older version, or its seal was removed."""
        return self.status == "done" and not self.seal

    def result(self, metric: str) -> Result | None:
        """The result of that metric, or None if the record has none."""
        return next((result for result in self.results if result.metric == metric), None)
