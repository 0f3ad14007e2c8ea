"""The product of a run: everything needed to judge the number, as versioned JSON."""

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
    """Which code ran; the commit is empty outside a checkout.

    code_sha256: of vlbench's own files, its built-in tasks among them. earlier_code: the same of the code that began
    the run, where other code resumed it. Both are empty in records of versions before 0.2.0.
    """

    version: str
    commit: str = ""
    dirty: bool = False
    code_sha256: str = ""
    earlier_code: tuple[str, ...] = ()


class LoadReport(Frozen):
    """How weights met the model: tensors matched, missing in the file, unexpected in it (another head's do not count).

    converted: of those matched, how many had another name, size or order in the file. absent: the backbone's among the
    missing. unmatched_answers: how many answers had no row in the file's classifier and begin with zeros.
    """

    matched: int
    missing: int
    unexpected: int
    converted: int = 0
    absent: tuple[str, ...] = ()
    unmatched_answers: int = 0


class Decoding(Frozen):
    """How answers were generated.

    temperature: None where nothing is sampled. stop: tokens that end an answer, empty where the model does not say.
    """

    max_new_tokens: int
    do_sample: bool = False
    temperature: float | None = None
    num_beams: int = 1
    stop: tuple[str, ...] = ()


class Prompting(Frozen):
    """What a model was asked in words, by one example.

    example: the id of the first one that was answered. prompt: the text that the model's tokenizer got for it, chat
    template and shots included; of a model that compares images with sentences, the first ten of them, one a line.
    chat_template_sha256: of the template that rendered it, empty where there is none. decoding: None where answers were
    chosen from a list.
    """

    example: str
    prompt: str
    chat_template_sha256: str = ""
    decoding: Decoding | None = None


class ModelInfo(Frozen):
    """Which model: sizes, weights, and what they travel with. weights_sha256 is empty from scratch.

    model_sha256: of the card, code and settings of a model that is no part of vlbench; empty where it is.

    answers: how many a classifier over open answers knows, and answers_sha256 which; 0 and empty elsewhere.
    extraction: the rule that took answers out of what the model wrote; empty where it wrote nothing. dtype: of most of
    its weights in memory when it answered. preprocessing: what is done to images and texts; image_backend among it is
    the library that resizes images. prompting: None where the model gets the examples' texts as they are.
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
    """Which data: source world or real, the manifest's hash, the split and how much of it.

    task_sha256: of the task's card and code; empty in records of versions before 0.2.0.
    shots: ids of the examples that were shown with their answers before each question.
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
    """How it was trained; best_step is the checkpoint reported, selected_on the split that chose it.

    accumulation: forward passes of each process per optimizer step, as they were in the end. selection: the main metric
    of the reported checkpoint on `selected_on`; None where nothing was selected.
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
    """One metric, with its uncertainty; slices: tag -> value -> result of the same metric."""

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
    """Ids counted: each expected one exactly once, or there is no score.

    unparsed: how many the model answered without an answer that could be read; errors: how many have none.
    """

    expected: int
    scored: int
    missing: int = 0
    duplicate: int = 0
    unparsed: int = 0
    errors: int = 0


class Efficiency(Frozen):
    """What it cost, with seconds per phase; latencies are of whole prediction batches, in milliseconds."""

    examples_per_second: float
    latency_ms: dict[str, float]
    peak_memory_mib: float
    seconds: dict[str, float]


class Environment(Frozen):
    """Where it ran. accelerate: variables of launch and device that Accelerate was given, by name."""

    python: str
    libraries: dict[str, str]
    cpu: str
    threads: int
    gpu: str = ""
    driver: str = ""
    world_size: int = 1
    device: str = "cpu"
    accelerate: dict[str, str] = Field(default_factory=dict)


class RunRecord(Frozen):
    """One run, as `run.json` holds it. `spec` is resolved: no field is left to a default of the day.

    majority: what always giving the most frequent answer scores by the main metric; slice_majorities: the same in each
    part by itself, tag -> value -> figure. chance: of rankings, what equal scores for all pairs expect, by metric.
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

    def result(self, metric: str) -> Result | None:
        """The result of that metric, or None where the record has none."""
        return next((result for result in self.results if result.metric == metric), None)
