"""The spec and the record of a profile, as versioned JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from vlbench.core.options import Count, Name, NotNegative, Positive, Spec, Threads, UserPath, option
from vlbench.core.record import Environment, ToolInfo
from vlbench.core.spec import DeviceOption, DtypeOption, SeedOption
from vlbench.core.validate import Frozen

PROFILE_VERSION = 1

Scenario = Literal["latency", "throughput", "retrieval"]
Pixels = Annotated[int, Field(ge=1, le=99999)]
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


class ProfileSpec(Spec):
    """Models measured side by side, interleaved, on the same inputs.

    A task whose head is put on the backbone: a ranking needs one image and one text, and every model can do it. Each
    model is measured at least `iterations` times and `seconds` long at each batch size, then until the 95 % intervals
    of the medians, of the whole and of the model's part, are within `precision` of them. `max_seconds` is the limit
    for all models of a scenario together, warm-up included: nothing is started that would end later, except one pass
    of each model. Empty `batches` double from 1 to the fastest; empty `stages` means all.
    """

    models: Annotated[
        Annotated[tuple[Name, ...], Field(min_length=1)],
        option(
            ...,
            "Models with commas, measured in turn; also hf:CLIPModel, without weights.",
            "What to run",
            name="model",
            metavar="NAME,...",
            known="model",
        ),
    ]
    size: Name | None = option(
        None, "Size of every model but those of hf:, which have one.", "What to run", shown="the paper's"
    )
    task: Name = option("coco_retrieval", "Task whose head is put on the backbone.", "What to run", known="task")
    scenario: tuple[Scenario, ...] = option(
        ("latency",),
        "latency: one example at a time; throughput: growing batches; retrieval: a query against galleries; with "
        "commas.",
        "What to run",
    )
    picture: tuple[Pixels, Pixels] = option(
        (1000, 600),
        "Width and height of the images before each model's own preprocessing.",
        "Data",
        shown="1000x600",
        metavar="WxH",
    )
    words: Count = option(12, "Words of the texts.", "Data")
    vocabulary: UserPath | None = option(
        None, "vocab.txt of the texts.", "Data", shown="a generated one of the same length"
    )
    batches: tuple[Count, ...] = option(
        (),
        "Batch sizes of throughput, with commas.",
        "Measurement",
        name="batch_sizes",
        metavar="N,...",
        shown="1, 2, 4 ... to the fastest",
    )
    stages: tuple[str, ...] = option(
        (), "Measure the latency of these stages only, with commas.", "Measurement", shown="all"
    )
    iterations: Annotated[Count, Field(ge=2)] = option(
        10, "Smallest number of iterations for each model and batch size.", "Measurement"
    )
    seconds: NotNegative = option(1.0, "Shortest time for each model.", "Measurement", metavar="SECONDS")
    precision: Positive = option(
        0.02, "Stop when the 95 % interval of the median is within this fraction of it.", "Measurement"
    )
    max_seconds: Positive = option(60.0, "Longest time for each scenario.", "Measurement", metavar="SECONDS")
    detector: bool = option(
        True, "Include the detector in the cost of models that need region features.", "Measurement"
    )
    energy: bool = option(False, "Measure joules per example, where the GPU reports them.", "Measurement")
    dtype: DtypeOption = "float32"
    device: DeviceOption = None
    threads: Threads | None = option(None, "CPU threads.", "Machine", shown="torch's")
    seed: SeedOption = 0
    output_path: UserPath = option(Path("profiles"), "Folder of the profiles.", "Output")


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
