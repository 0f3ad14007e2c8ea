"""The spec and the record of a profile, as versioned JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, field_validator

from vlbench.core.record import Environment, ToolInfo
from vlbench.core.validate import Frozen

PROFILE_VERSION = 1

Scenario = Literal["latency", "throughput", "retrieval"]
PIPELINE = ("decode", "preprocess")
"""Stages of the pipeline before the model: they run in workers in parallel and are not part of its latency."""
DETECTOR = ("detect backbone", "detect proposals", "detect NMS", "detect RoI head")
"""Stages of the detector that extracts the regions of a region model from pixels."""
VISUAL = (*DETECTOR, "see")
"""Stages that papers call visual embedding."""
UNOWNED = "other"
"""The name, among the stages, of parameters that no stage uses."""
REST = "rest"
"""The name, in tables, of the part of the whole time outside all stages."""
INTERVAL_FROM = 6
"""The fewest values with a 95 % interval of the median: the range of n values covers it in 1 - 2 / 2^n of cases."""


class ProfileSpec(Frozen):
    """The models to measure, interleaved and on the same inputs, and how.

    task: the task of the head on the backbone; a retrieval task needs one image and one text, which every model takes.
    scenario: `latency`, one example at a time; `throughput`, growing batches; `retrieval`, a query against galleries.
    picture: width and height of the images in pixels, before each model's preprocessing. words: the number of words of
    the texts. iterations, seconds: the least number and duration of the measurements of each model and batch size; they
    continue until the 95 % intervals of the medians, of the whole and of the model, are within `precision` of them.
    max_seconds: the time for all models of a scenario, warm-up included; nothing starts that would end later, except
    one pass of each model. batches: of throughput; empty doubles from 1 up to the fastest. stages: measure the latency
    of these stages only, by their names in tables; empty for all. detector: whether the time of region models includes
    the detector.
    """

    models: tuple[str, ...] = Field(min_length=1)
    size: str | None = None
    task: str = "coco_retrieval"
    scenario: tuple[Scenario, ...] = ("latency",)
    picture: tuple[int, int] = (1000, 600)
    words: int = Field(default=12, ge=1)
    vocabulary: Path | None = None
    batches: tuple[Annotated[int, Field(ge=1)], ...] = ()
    stages: tuple[str, ...] = ()
    iterations: int = Field(default=10, ge=2)
    seconds: float = Field(default=1.0, ge=0)
    precision: float = Field(default=0.02, gt=0)
    max_seconds: float = Field(default=60.0, gt=0)
    detector: bool = True
    energy: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str | None = None
    threads: int | None = Field(default=None, ge=1)
    seed: int = 0
    output_path: Path = Path("profiles")

    @field_validator("vocabulary", "output_path")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        return path.expanduser() if path else path


class Times(Frozen):
    """Milliseconds of one stage or of all: percentiles of n iterations, and the 95 % interval of the median.

    ci95: the range of the values where there are fewer than `INTERVAL_FROM`.
    """

    n: int
    p50: FiniteFloat
    p90: FiniteFloat
    p95: FiniteFloat
    p99: FiniteFloat
    mean: FiniteFloat
    stdev: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]


class Latency(Frozen):
    """The latency of one example.

    model: all stages of the model together. whole: the wall-clock time with decoding and preprocessing. rest: the share
    of it outside all stages. If the spec names stages, all three are of these only. why_stopped: precise, or out of
    time. warmup_ms: the iterations before the first that counts; empty for a slow model, which needs none.
    """

    stages: dict[str, Times]
    model: Times
    whole: Times
    rest: FiniteFloat
    why_stopped: str
    warmup_ms: tuple[FiniteFloat, ...]

    @property
    def parts(self) -> dict[str, float]:
        """Milliseconds by stage and of the rest, which add up to the median of the whole.

        Each is the stage's share of the total time, times that median; medians of stages would not add up.
        """
        shares = {name: times.mean / self.whole.mean for name, times in self.stages.items()}
        return {name: share * self.whole.p50 for name, share in {**shares, REST: self.rest}.items()}


class Rate(Frozen):
    """Examples per second of the model alone at one batch size. error: why it was not measured."""

    batch: int
    examples_per_second: FiniteFloat = 0.0
    ms: Times | None = None
    joules_per_example: FiniteFloat | None = None
    error: str = ""


class Pipeline(Frozen):
    """Examples per second from files to answers at one batch size.

    workers: the processes that decode and prepare in parallel, as many as in a run; with 0 the model waits. error: why
    it was not measured.
    """

    batch: int
    workers: int
    examples_per_second: FiniteFloat = 0.0
    ms: Times | None = None
    error: str = ""


class Operations(Frozen):
    """Floating-point operations of one example by stage; a multiplication and an addition are two operations.

    uncounted: operators without a formula, mostly element-wise -> the number of their calls.
    """

    stages: dict[str, int]
    uncounted: dict[str, int]

    @property
    def total(self) -> int:
        """The sum over the model's stages."""
        return sum(self.stages.values())


class Parameters(Frozen):
    """The numbers of parameters: total, in word and position embeddings, and by the stage that first uses them."""

    total: int
    embeddings: int
    stages: dict[str, int]


class Memory(Frozen):
    """Memory in MiB.

    activations: the peak of the tensors of a batch of one, without the weights. reserved: by the device's allocator,
    for both. host: the peak of the process, other models included.
    """

    weights: FiniteFloat
    activations: FiniteFloat | None = None
    reserved: FiniteFloat | None = None
    host: FiniteFloat | None = None


WAYS = ("dual", "two-stage", "cross-encoder")
"""The ways of searching a gallery, the cheapest first."""


class GalleryQuery(Frozen):
    """The time of one text query against a gallery of images that are already encoded.

    how: one of `WAYS`. gallery: the number of images. measured: False if it was extrapolated from a smaller index, from
    fewer pairs, or from a search and pairs that were measured separately.
    """

    how: str
    gallery: int
    ms: FiniteFloat
    measured: bool


class ModelProfile(Frozen):
    """The measurements of one model; incomplete where there is an `error`.

    visual: the input of its visual part. tokens: the numbers of image and text tokens in the fusion. proposals: the
    number of the detector's proposals for an image, and their maximum: more proposals take more time.
    """

    model: str
    size: str
    visual: str = ""
    error: str = ""
    tokens: tuple[int, int] | None = None
    proposals: tuple[int, int] | None = None
    parameters: Parameters | None = None
    operations: Operations | None = None
    memory: Memory | None = None
    latency: Latency | None = None
    throughput: tuple[Rate, ...] = ()
    pipeline: Pipeline | None = None
    retrieval: tuple[GalleryQuery, ...] = ()
    load_seconds: FiniteFloat | None = None
    first_batch_seconds: FiniteFloat | None = None

    @property
    def name(self) -> str:
        """The name in tables."""
        return "-".join(filter(None, (self.model, self.size)))


class Ratio(Frozen):
    """The latency of model `of` divided by that of `to`: the median over rounds, in which both were measured in turn.

    ci95: the 95 % interval of the median.
    """

    of: str
    to: str
    value: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]


class Machine(Frozen):
    """The state of the machine during the measurement. noisy: whether, for `reasons`, the values are unreliable."""

    cores: int
    threads: int
    load: FiniteFloat | None
    clocks: str = ""
    noisy: bool = False
    reasons: tuple[str, ...] = ()


class ProfileRecord(Frozen):
    """One profile, as in `profile.json`; the raw durations are in `times.parquet` beside it.

    seconds: the total time. spent: the parts of it for `opening` the models and for each scenario.
    """

    profile_version: int = PROFILE_VERSION
    spec: ProfileSpec
    tool: ToolInfo
    environment: Environment
    machine: Machine
    models: tuple[ModelProfile, ...]
    ratios: tuple[Ratio, ...] = ()
    started: str
    seconds: FiniteFloat
    spent: dict[str, FiniteFloat] = Field(default_factory=dict)
