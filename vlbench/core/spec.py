"""What a run or a pretraining was asked to do: frozen values, the same from flags, YAML and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from vlbench.core.cards import Recipe
from vlbench.core.domain import Domain
from vlbench.core.options import (
    MOST,
    Amount,
    Count,
    Name,
    Names,
    Positive,
    Seed,
    Spec,
    Threads,
    UserPath,
    Workers,
    check_distinct,
    option,
    split_text,
)
from vlbench.core.splits import Splits
from vlbench.core.validate import brief

Control = Literal["blind"]
Tower = Literal["vision", "text"]
Dtype = Literal["float32", "bfloat16", "float16"]
MatmulPrecision = Literal["highest", "high", "medium"]
Controls = Annotated[tuple[Control, ...], BeforeValidator(split_text)]


def _towers(value: object) -> object:
    """`vision=hf:NAME,text=FOLDER` as a mapping from a tower to its weights; raises ValueError for any other text."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.split(",")]
    if faulty := [name for name, _, source in parts if not (name.strip() and source.strip())]:
        raise ValueError(f"has no TOWER=WEIGHTS at {faulty[0]!r}: write vision=hf:NAME,text=FOLDER")
    check_distinct([name.strip() for name, _, _ in parts])
    return {name.strip(): source.strip() for name, _, source in parts}


def _paths(value: object) -> object:
    """One path as a list of one."""
    return (value,) if isinstance(value, str | Path) else value


SizeOption = Annotated[
    Name | None,
    option(..., "Size of the model: tiny, small or base.", "What to run", shown="tiny on synthetic data, else base"),
]
DataRootOption = Annotated[
    UserPath | None, option(..., "Folder of the real data.", "Data", shown="$VLBENCH_DATA, else synthetic data")
]
TasksDirOption = Annotated[
    UserPath | None, option(..., "Folder with your own task folders.", "Data", shown="$VLBENCH_TASKS, else none")
]
DomainOption = Annotated[Domain, option(..., "Domain of the synthetic data.", "Data")]
SeedOption = Annotated[Seed, option(..., "Seed of all random generators.", "What to run")]
VocabularyOption = Annotated[
    UserPath | None,
    option(
        ..., "vocab.txt or tokenizer.json, for models that need bert-base-uncased.", "Data", shown="the model's own"
    ),
]
SaveEveryOption = Annotated[
    Count,
    option(..., "Optimizer steps between saved training states, from which an interrupted run resumes.", "Output"),
]
DtypeOption = Annotated[Dtype, option(..., "Precision of the arithmetic.", "Machine")]
MatmulPrecisionOption = Annotated[
    MatmulPrecision,
    option(
        ...,
        "Internal precision of float32 matrix products: highest is float32, high TensorFloat32, medium bfloat16.",
        "Machine",
    ),
]
DeviceOption = Annotated[Name | None, option(..., "cpu, cuda or mps.", "Machine", shown="the best available")]
ProcessesOption = Annotated[
    Threads | None, option(..., "Processes that share the work; on GPUs one each.", "Machine", shown="1")
]
ThreadsOption = Annotated[Threads | None, option(..., "CPU threads.", "Machine", shown="by the size of the model")]
LogWithOption = Annotated[
    Names, option(..., "Experiment trackers to log to, with commas: tensorboard,wandb.", "Output", shown="none")
]
ResumeOption = Annotated[bool, option(..., "Resume earlier work, or discard it.", "Output")]


class RunSpec(Spec):
    """One run: a task, a model, and how the model is trained and evaluated.

    Of a field that is None, the planner takes the default that the description names. Where `train` and the model
    card's recipe differ, `train` wins.
    """

    task: Annotated[
        Name,
        option(
            ...,
            "Task, or several with commas: nlvr2,vqa2; see `vlbench list tasks`.",
            "What to run",
            metavar="NAME,...",
            known="task",
        ),
    ]
    model: Annotated[
        Name,
        option(
            ...,
            "Model, or several with commas: cvlp,vilt; also hf:FOLDER, hf:ID or path/to/file.py:Class; see "
            "`vlbench list models`.",
            "What to run",
            metavar="NAME,...",
            known="model",
        ),
    ]
    size: SizeOption = None
    mode: Literal["finetune", "eval", "zero-shot", "probe"] = option(
        "finetune",
        "finetune; eval: score a checkpoint with its own head; zero-shot: a pretrained model without training, by "
        "generating, comparing embeddings or ranking; probe: train a linear head on a frozen backbone.",
        "What to run",
    )
    answer_by: Literal["text", "candidates"] | None = option(
        None,
        "How a generative model answers: its own text, or the most likely candidate.",
        "Inference",
        shown="candidates where the task has a closed list or --answers gives one",
    )
    num_fewshot: Amount = option(0, "Zero-shot: examples of the train split shown before each question.", "Inference")
    checkpoint: Name | None = option(
        None,
        "Weights to start from: a path, none (random), shipped or pretrained (of hf:). {model} and {task} in a "
        "path are replaced by the run's own.",
        "What to run",
        metavar="PATH",
        shown="shipped on synthetic data, pretrained of hf:, else none",
    )
    data_root: DataRootOption = None
    tasks_dir: TasksDirOption = None
    domain: DomainOption = "plain"
    train_split: Splits | None = option(
        None, "Split to train on, or several with commas.", "Data", shown="the recipe's, else the task's"
    )
    select_on: Name | None = option(
        None, "Split that selects the best checkpoint; none takes the last one.", "Data", shown="the task's"
    )
    split: Name | None = option(None, "Split to evaluate.", "Data", shown="the task's")
    limit: Positive | None = option(None, "Evaluate on N examples (500) or a fraction (0.1).", "Data", shown="all")
    limit_mode: Literal["random", "head"] = option(
        "random", "Which examples --limit takes: random (seeded) or the first ones.", "Data"
    )
    select_limit: Count | None = option(
        None,
        "Largest number of examples (retrieval: images with their texts) to select on, drawn at random.",
        "Data",
        shown="all, or 1000 images",
    )
    controls: Controls | None = option(
        None,
        "Control runs: blind (image-blind baseline), or none.",
        "What to run",
        shown="blind on synthetic data, else none",
    )
    seed: SeedOption = 0
    vocabulary: VocabularyOption = None
    answers: UserPath | None = option(
        None, "JSON list of answers to choose from.", "Data", shown="the frequent ones of the train split"
    )
    train: Recipe = Field(default=Recipe(), description="Values that replace those of the model card's recipe.")
    rerank_k: Count | None = option(
        None, "Retrieval: rerank the K best by embeddings with the cross-encoder.", "Inference", shown="all pairs"
    )
    eval_batch_size: Count | None = option(
        None, "Examples per forward pass at inference.", "Inference", shown="256, or 8 of a generative model"
    )
    auto_batch: bool = option(
        False,
        "find the number of examples per forward pass that fits into memory; an optimizer step takes the recipe's "
        "batch size all the same.",
        value_of=("batch_size", "auto"),
    )
    save_every: SaveEveryOption = 500
    dtype: Dtype = option(
        "float32", "Precision of the arithmetic and, unless --mode is finetune, of the weights of the model.", "Machine"
    )
    matmul_precision: MatmulPrecisionOption = "highest"
    compile: bool = option(
        False, "Compile the model with torch.compile: takes minutes at the start, and rounds differently.", "Machine"
    )
    activation_checkpointing: bool = option(
        False, "Recompute activations in the backward pass, which saves memory.", "Machine"
    )
    fsdp: bool = option(
        False,
        "Finetuning by several processes: shard weights, gradients and optimizer state over them, on GPUs or CPUs.",
        "Machine",
    )
    device_map: Literal["auto"] | None = option(
        None, "auto: spread a generative model over all devices.", "Machine", shown="one device"
    )
    quantize: Literal["8bit", "4bit"] | None = option(
        None, "Quantize the weights of a generative model at inference.", "Machine", shown="not quantized"
    )
    trust_remote_code: bool = option(False, "Run code that the folder of an hf: model contains.", "What to run")
    allow_partial: bool = option(False, "Accept incomplete data; the record says so.", "Data")
    on_error: Literal["stop", "record"] = option(
        "stop",
        "An example of the evaluated split cannot be answered (unreadable image, prompt too long): stop the run, or "
        "record it as an error, which counts as wrong (exit code 8). Errors in training or selection data always stop.",
        "Data",
    )
    verify_data: bool = option(
        False,
        "Hash all data files, images included, and compare them with the hashes of the first verification.",
        "Data",
    )
    device: DeviceOption = None
    num_processes: ProcessesOption = None
    workers: Workers = option(
        0,
        "Processes that prepare batches, for each process of the run.",
        "Machine",
        shown="0 on synthetic data, else as many as the machine has to spare",
    )
    cache_images: Positive | None = option(
        None,
        "Keep resized images in the cache for later epochs and runs, up to this many GiB.",
        "Machine",
        metavar="GIB",
        shown="none are kept",
        formerly="cache_pictures",
    )
    threads: ThreadsOption = None
    log_with: LogWithOption = ()
    output_path: UserPath = option(Path("runs"), "Folder of the runs.", "Output")
    resume: ResumeOption = True


class ResolvedSpec(RunSpec):
    """A RunSpec in which the planner has decided every default; build it with `resolve`.

    The narrowed fields are never None. The others keep their type: None says that the setting does not apply (no
    limit, no reranking, no candidates) or is left to the machine (device, threads, number of processes).
    """

    size: Name
    checkpoint: Name
    train_split: Splits
    select_on: Name
    split: Name
    controls: Controls
    eval_batch_size: Count

    def to_run_spec(self) -> RunSpec:
        """The same values as a plain RunSpec, which compares equal to one read from a record or from YAML."""
        return RunSpec.model_validate(dict(self))


def resolve(
    spec: RunSpec,
    *,
    size: str,
    checkpoint: str,
    train_split: str | tuple[str, ...],
    select_on: str,
    split: str,
    controls: tuple[Control, ...],
    workers: int,
    eval_batch_size: int,
    train: Recipe,
    select_limit: int | None,
    answer_by: Literal["text", "candidates"] | None,
) -> ResolvedSpec:
    """The spec with the planner's decisions in place of what it left open; see RunSpec for their meanings.

    train_split, select_on: `none` where nothing is trained or selected. train: the whole recipe, the model card's with
    `spec.train` over it.
    """
    decided = {
        "size": size, "checkpoint": checkpoint, "train_split": train_split, "select_on": select_on, "split": split,
        "controls": controls, "workers": workers, "eval_batch_size": eval_batch_size, "train": train,
        "select_limit": select_limit, "answer_by": answer_by,
    }  # fmt: skip
    return ResolvedSpec.model_validate({**dict(spec), **decided})


PLACE = frozenset(
    {
        "data_root", "tasks_dir", "device", "device_map", "fsdp", "num_processes", "workers", "cache_images", "threads",
        "log_with", "output_path", "resume", "verify_data", "auto_batch", "save_every", "activation_checkpointing",
        "on_error",
    }
)  # fmt: skip
"""Fields of the spec that say where or how fast a run works; they are no part of the fingerprint.

`on_error` is one of them: a run that finishes has the same numbers with either value, and a run that an example stopped
resumes with the other value from its training and its answers.
"""


class PretrainSpec(Spec):
    """One pretraining: a model, the images and texts it learns from, and how long.

    Fields that RunSpec has too mean the same here.
    """

    model: Annotated[
        Name, option(..., "Model, e.g. cvlp; see `vlbench list models`.", "What to run", metavar="NAME", known="model")
    ]
    size: SizeOption = None
    task: Annotated[Names, Field(min_length=1)] | None = option(
        None,
        "Tasks whose captions or questions are learned from, with commas.",
        "Data",
        metavar="NAME,...",
        shown="coco_retrieval, or none with --texts",
        known="task",
    )
    texts: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = option(
        (), "LXMERT's file of captions and questions; may be repeated.", "Data", shown="none", repeated=True
    )
    split: Splits = option("train", "Split of the tasks, or several with commas.", "Data")
    data_root: DataRootOption = None
    tasks_dir: TasksDirOption = None
    domain: DomainOption = "plain"
    objectives: Names | None = option(
        None, "Pretraining objectives of the model, with commas: mlm,itm.", "Training", shown="all of the model's"
    )
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Options of the model's pretraining by name, e.g. key_drop."
    )
    checkpoint: Name | None = option(
        None,
        "Weights of the whole model to start from: vlbench's own, official ones, a transformers folder, or shipped.",
        "What to run",
        metavar="PATH",
        shown="random weights",
    )
    init: Annotated[dict[Tower, str], BeforeValidator(_towers)] = option(
        {},
        "Networks that single towers start from: vision=hf:NAME,text=FOLDER.",
        "What to run",
        metavar="TOWER=WEIGHTS,...",
        shown="random weights",
    )
    seed: SeedOption = 0
    vocabulary: VocabularyOption = None
    train: Recipe = Field(default=Recipe(), description="Values that replace those of the model card's recipe.")
    save_every: SaveEveryOption = 500
    dtype: DtypeOption = "float32"
    matmul_precision: MatmulPrecisionOption = "highest"
    allow_partial: bool = option(False, "Accept incomplete data; the card says so.", "Data")
    device: DeviceOption = None
    num_processes: ProcessesOption = None
    workers: Workers = option(0, "Processes that prepare batches, for each process of the run.", "Machine")
    threads: ThreadsOption = None
    log_with: LogWithOption = ()
    output_path: UserPath = option(Path("pretrained"), "Folder of the pretrained weights.", "Output")
    resume: ResumeOption = True

    @field_validator("options")
    @classmethod
    def _within_bounds(cls, options: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        for name, value in options.items():
            if not isinstance(value, str) and not abs(value) <= MOST:
                raise ValueError(f"{name} is {brief(value)}, expected a finite number of at most {MOST:,}")
        return options
