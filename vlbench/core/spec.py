"""What a run or a pretraining was asked to do: frozen values, the same from flags, YAML and Python."""

from __future__ import annotations

from collections.abc import Mapping
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


Controls = Annotated[tuple[Control, ...], BeforeValidator(split_text)]


def _towers(value: object) -> object:
    """`vision=hf:NAME,text=FOLDER` as a mapping from a tower to its weights.

    Raises:
        ValueError: a part has no `=`, no name or nothing after it, or a tower comes twice.
    """
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
    option("Size of the model: tiny, small or base.", "What to run", default="tiny on synthetic data, else base"),
]
DataRootOption = Annotated[
    Path | None, option("Folder of the real data.", "Data", default="$VLBENCH_DATA, else synthetic data")
]
TasksDirOption = Annotated[
    Path | None, option("Folder with your own task folders.", "Data", default="$VLBENCH_TASKS, else none")
]
DomainOption = Annotated[Domain, option("Domain of the synthetic data.", "Data")]
SeedOption = Annotated[Seed, option("Seed of all random generators.", "What to run")]
VocabularyOption = Annotated[
    Path | None,
    option("vocab.txt or tokenizer.json, for models that need bert-base-uncased.", "Data", default="the model's own"),
]
SaveEveryOption = Annotated[
    Count, option("Optimizer steps between saved training states, from which an interrupted run resumes.", "Output")
]
DtypeOption = Annotated[Dtype, option("Precision of the arithmetic.", "Machine")]
DeviceOption = Annotated[Name | None, option("cpu, cuda or mps.", "Machine", default="the best available")]
ProcessesOption = Annotated[
    Threads | None, option("Processes that share the work; on GPUs one each.", "Machine", default="1")
]
ThreadsOption = Annotated[Threads | None, option("CPU threads.", "Machine", default="by the size of the model")]
LogWithOption = Annotated[
    Names, option("Experiment trackers to log to, with commas: tensorboard,wandb.", "Output", default="none")
]
ResumeOption = Annotated[bool, option("Resume earlier work, or discard it.", "Output")]


class RunSpec(Spec):
    """One run: a task, a model, and how the model is trained and evaluated.

    Of a field that is None, the planner takes the default that the description names. Where `train` and the model
    card's recipe differ, `train` wins.
    """

    task: Annotated[
        Name,
        option(
            "Task, or several with commas: nlvr2,vqa2; see `vlbench list tasks`.",
            "What to run",
            metavar="NAME,...",
            known="task",
        ),
    ]
    model: Annotated[
        Name,
        option(
            "Model, or several with commas: cvlp,vilt; also hf:FOLDER, hf:ID or path/to/file.py:Class; see "
            "`vlbench list models`.",
            "What to run",
            metavar="NAME,...",
            known="model",
        ),
    ]
    size: SizeOption = None
    mode: Annotated[
        Literal["finetune", "eval", "zero-shot", "probe"],
        option(
            "finetune; eval: score a checkpoint with its own head; zero-shot: a pretrained model without training, by "
            "generating, comparing embeddings or ranking; probe: train a linear head on a frozen backbone.",
            "What to run",
        ),
    ] = "finetune"
    answer_by: Annotated[
        Literal["text", "candidates"] | None,
        option(
            "How a generative model answers: its own text, or the most likely candidate.",
            "Inference",
            default="candidates where the task has a closed list or --answers gives one",
        ),
    ] = None
    num_fewshot: Annotated[
        Amount, option("Zero-shot: examples of the train split shown before each question.", "Inference")
    ] = 0
    checkpoint: Annotated[
        Name | None,
        option(
            "Weights to start from: a path, none (random), shipped or pretrained (of hf:). {model} and {task} in a "
            "path are replaced by the run's own.",
            "What to run",
            metavar="PATH",
            default="shipped on synthetic data, pretrained of hf:, else none",
        ),
    ] = None
    data_root: DataRootOption = None
    tasks_dir: TasksDirOption = None
    domain: DomainOption = "plain"
    train_split: Annotated[
        Splits | None,
        option("Split to train on, or several with commas.", "Data", default="the recipe's, else the task's"),
    ] = None
    select_on: Annotated[
        Name | None,
        option("Split that selects the best checkpoint; none takes the last one.", "Data", default="the task's"),
    ] = None
    split: Annotated[Name | None, option("Split to evaluate.", "Data", default="the task's")] = None
    limit: Annotated[
        Positive | None, option("Evaluate on N examples (500) or a fraction (0.1).", "Data", default="all")
    ] = None
    limit_mode: Annotated[
        Literal["random", "head"], option("Which examples --limit takes: random (seeded) or the first ones.", "Data")
    ] = "random"
    select_limit: Annotated[
        Count | None,
        option(
            "Largest number of examples (retrieval: images with their texts) to select on, drawn at random.",
            "Data",
            default="all, or 1000 images",
        ),
    ] = None
    controls: Annotated[
        Controls | None,
        option(
            "Control runs: blind (image-blind baseline), or none.",
            "What to run",
            default="blind on synthetic data, else none",
        ),
    ] = None
    seed: SeedOption = 0
    vocabulary: VocabularyOption = None
    answers: Annotated[
        Path | None,
        option("JSON list of answers to choose from.", "Data", default="the frequent ones of the train split"),
    ] = None
    train: Recipe = Field(default=Recipe(), description="Values that replace those of the model card's recipe.")
    rerank_k: Annotated[
        Count | None,
        option("Retrieval: rerank the K best by embeddings with the cross-encoder.", "Inference", default="all pairs"),
    ] = None
    eval_batch_size: Annotated[
        Count | None,
        option("Examples per forward pass at inference.", "Inference", default="256, or 8 of a generative model"),
    ] = None
    auto_batch: Annotated[
        bool,
        option(
            "find the number of examples per forward pass that fits into memory; an optimizer step takes the recipe's "
            "batch size all the same.",
            value_of=("batch_size", "auto"),
        ),
    ] = False
    save_every: SaveEveryOption = 500
    dtype: Annotated[
        Dtype, option("Precision of the arithmetic; at inference also of a generative model's weights.", "Machine")
    ] = "float32"
    compile: Annotated[bool, option("Compile the model with torch.compile, which rounds differently.", "Machine")] = (
        False
    )
    activation_checkpointing: Annotated[
        bool, option("Recompute activations in the backward pass, which saves memory.", "Machine")
    ] = False
    device_map: Annotated[
        Literal["auto"] | None,
        option("auto: spread a generative model over all devices.", "Machine", default="one device"),
    ] = None
    quantize: Annotated[
        Literal["8bit", "4bit"] | None,
        option("Quantize the weights of a generative model at inference.", "Machine", default="not quantized"),
    ] = None
    trust_remote_code: Annotated[bool, option("Run code that the folder of an hf: model contains.", "What to run")] = (
        False
    )
    allow_partial: Annotated[bool, option("Accept incomplete data; the record says so.", "Data")] = False
    verify_data: Annotated[
        bool,
        option(
            "Hash all data files, images included, and compare them with the hashes of the first verification.", "Data"
        ),
    ] = False
    device: DeviceOption = None
    num_processes: ProcessesOption = None
    workers: Annotated[
        Workers,
        option(
            "Processes that prepare batches, for each process of the run.",
            "Machine",
            default="0 on synthetic data, else as many as the machine has to spare",
        ),
    ] = 0
    cache_images: Annotated[
        Positive | None,
        option(
            "Keep resized images in the cache for later epochs and runs, up to this many GiB.",
            "Machine",
            metavar="GIB",
            default="none are kept",
            formerly="cache_pictures",
        ),
    ] = None
    threads: ThreadsOption = None
    log_with: LogWithOption = ()
    output_path: Annotated[Path, option("Folder of the runs.", "Output")] = Path("runs")
    resume: ResumeOption = True

    @field_validator("data_root", "tasks_dir", "vocabulary", "answers", "output_path")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        """Expand `~`: records keep paths with it, and `--config` reads them back."""
        return path.expanduser() if path else path


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
    """The spec with the planner's decisions in place of what it left open.

    Args:
        spec: what was asked for; its other fields are kept.
        size, checkpoint, split, controls, workers, eval_batch_size, select_limit, answer_by: as in RunSpec, decided.
        train_split, select_on: names of splits; `none` where nothing is trained or selected.
        train: the whole recipe, the model card's with `spec.train` over it.
    """
    decided: Mapping[str, object] = {
        "size": size,
        "checkpoint": checkpoint,
        "train_split": train_split,
        "select_on": select_on,
        "split": split,
        "controls": controls,
        "workers": workers,
        "eval_batch_size": eval_batch_size,
        "train": train,
        "select_limit": select_limit,
        "answer_by": answer_by,
    }
    return ResolvedSpec.model_validate({**dict(spec), **decided})


PLACE = frozenset(
    {
        "data_root", "tasks_dir", "device", "device_map", "num_processes", "workers", "cache_images", "threads",
        "log_with", "output_path", "resume", "verify_data", "auto_batch", "save_every", "activation_checkpointing",
    }
)  # fmt: skip
"""Fields of the spec that say where or how fast a run works; they are no part of the fingerprint."""


class PretrainSpec(Spec):
    """One pretraining: a model, the images and texts it learns from, and how long.

    Fields that RunSpec has too mean the same here.
    """

    model: Annotated[
        Name,
        option(
            "Model, e.g. cvlp; see `vlbench list models`.",
            "What to run",
            metavar="NAME",
            known="model",
        ),
    ]
    size: SizeOption = None
    task: Annotated[
        Annotated[Names, Field(min_length=1)] | None,
        option(
            "Tasks whose captions or questions are learned from, with commas.",
            "Data",
            metavar="NAME,...",
            default="coco_retrieval, or none with --texts",
            known="task",
        ),
    ] = None
    texts: Annotated[
        Annotated[tuple[Path, ...], BeforeValidator(_paths)],
        option("LXMERT's file of captions and questions; may be repeated.", "Data", default="none", repeated=True),
    ] = ()
    split: Annotated[Splits, option("Split of the tasks, or several with commas.", "Data")] = "train"
    data_root: DataRootOption = None
    tasks_dir: TasksDirOption = None
    domain: DomainOption = "plain"
    objectives: Annotated[
        Names | None,
        option("Pretraining objectives of the model, with commas: mlm,itm.", "Training", default="all of the model's"),
    ] = None
    options: Annotated[
        dict[str, bool | int | float | str],
        Field(description="Options of the model's pretraining by name, e.g. key_drop."),
    ] = Field(default_factory=dict)
    checkpoint: Annotated[
        Name | None,
        option(
            "Weights of the whole model to start from: vlbench's own, official ones, a transformers folder, or "
            "shipped.",
            "What to run",
            metavar="PATH",
            default="random weights",
        ),
    ] = None
    init: Annotated[
        Annotated[dict[Tower, str], BeforeValidator(_towers)],
        option(
            "Networks that single towers start from: vision=hf:NAME,text=FOLDER.",
            "What to run",
            metavar="TOWER=WEIGHTS,...",
            default="random weights",
        ),
    ] = Field(default_factory=dict)
    seed: SeedOption = 0
    vocabulary: VocabularyOption = None
    train: Recipe = Field(default=Recipe(), description="Values that replace those of the model card's recipe.")
    save_every: SaveEveryOption = 500
    dtype: DtypeOption = "float32"
    allow_partial: Annotated[bool, option("Accept incomplete data; the card says so.", "Data")] = False
    device: DeviceOption = None
    num_processes: ProcessesOption = None
    workers: Annotated[Workers, option("Processes that prepare batches, for each process of the run.", "Machine")] = 0
    threads: ThreadsOption = None
    log_with: LogWithOption = ()
    output_path: Annotated[Path, option("Folder of the pretrained weights.", "Output")] = Path("pretrained")
    resume: ResumeOption = True

    @field_validator("options")
    @classmethod
    def _within_bounds(cls, options: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        for name, value in options.items():
            if not isinstance(value, str) and not abs(value) <= MOST:
                raise ValueError(f"{name} is {brief(value)}, expected a finite number of at most {MOST:,}")
        return options

    @field_validator("data_root", "tasks_dir", "vocabulary", "output_path")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        return path.expanduser() if path else path
