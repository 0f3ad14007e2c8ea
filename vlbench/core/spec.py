"""What a run was asked to do: one frozen value, whether it came from flags, YAML or Python."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from vlbench.core.cards import Recipe
from vlbench.core.domain import Domain
from vlbench.core.splits import Splits
from vlbench.core.validate import Frozen

Control = Literal["blind"]


class RunSpec(Frozen):
    """One task, one model, one way of running.

    task, model, size, split...: names as on the command line; None takes the card's default. mode: finetune; eval:
    score a checkpoint with the head it brings; zero-shot: let a model answer that was never trained on the task: in
    words, by comparing the picture with sentences, or by ranking; probe: train a linear head on a frozen backbone.
    answer_by: of a model that writes, its own `text`, or the likeliest of the `candidates`; None: candidates where
    the task has a closed list or `answers` gives one. num_fewshot: examples of the train split that it is shown with
    their answers before each question. checkpoint: weights to begin with; "none" trains from scratch, None takes those
    that come with the model for the world ("shipped") or that a model of transformers has ("pretrained"), where there
    are any. data_root: None is the built-in world.
    train_split: one split, or several, as `train,nominival` or a list; None takes those of the model card's recipe,
    else the task card's. select_on: the split the best checkpoint is chosen on, "none"
    takes the last one. limit: a number of examples (>= 1) or a share (< 1) of the reported split. train: overrides
    of the model card's recipe. select_limit: at most so many examples of `select_on`, or of a ranking so many pictures
    with their texts, chosen at random; None: all, or 1,000 pictures. vocabulary: a vocab.txt or tokenizer.json, for
    models that need bert-base-uncased. answers: a list for a classifier over open answers, instead of the train split's
    frequent ones. rerank_k: of a ranking, how many of each query's best by embeddings are looked at pair by pair; None
    looks at all. threads: of the CPU; None takes what suits the model's size. eval_batch_size: examples per forward
    when predicting; None: 256, or 8 of a model that takes prompts. auto_batch: how many examples a forward pass of
    training takes is found by trying, `train.batch_size` examples making an optimizer step all the same. save_every:
    optimizer steps between states that an interrupted training goes on from. compile: whether torch compiles the model,
    which rounds otherwise. activation_checkpointing: whether training computes what a layer gave once more instead of
    keeping it in memory. dtype: of the arithmetic; of a model that writes and is not trained, of its weights too.
    device_map, quantize: of such a model, whether it is spread over all devices there are, and into how many bits its
    weights are rounded. trust_remote_code: whether code that a model's folder brings along may run. verify_data: all
    files of the data, images included, are hashed and compared with the hashes kept at their first verification.
    workers: processes that prepare inputs; left out, as many as suit the machine. cache_pictures: GiB of resized
    images that are kept for later epochs and runs; None keeps none. log_with: experiment trackers to log to as well, by
    Accelerate's names.
    """

    task: str
    model: str
    size: str | None = None
    mode: Literal["finetune", "eval", "zero-shot", "probe"] = "finetune"
    answer_by: Literal["text", "candidates"] | None = None
    num_fewshot: int = Field(default=0, ge=0)
    checkpoint: str | None = None
    data_root: Path | None = None
    tasks_dir: Path | None = None
    domain: Domain = "plain"
    train_split: Splits | None = None
    select_on: str | None = None
    split: str | None = None
    limit: float | None = Field(default=None, gt=0)
    limit_mode: Literal["random", "head"] = "random"
    select_limit: int | None = Field(default=None, ge=1)
    controls: tuple[Control, ...] | None = None
    seed: int = 0
    vocabulary: Path | None = None
    answers: Path | None = None
    train: Recipe = Recipe()
    rerank_k: int | None = Field(default=None, ge=1)
    eval_batch_size: int | None = Field(default=None, ge=1)
    auto_batch: bool = False
    save_every: int = Field(default=500, ge=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    activation_checkpointing: bool = False
    device_map: Literal["auto"] | None = None
    quantize: Literal["8bit", "4bit"] | None = None
    trust_remote_code: bool = False
    allow_partial: bool = False
    verify_data: bool = False
    device: str | None = None
    num_processes: int | None = Field(default=None, ge=1)
    workers: int = Field(default=0, ge=0)
    cache_pictures: float | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, ge=1)
    log_with: tuple[str, ...] = ()
    output_path: Path = Path("runs")
    resume: bool = True

    @field_validator("data_root", "tasks_dir", "vocabulary", "answers", "output_path")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        """`~/...` as the shell means it: records keep paths that way, and they come back in by `--config`."""
        return path.expanduser() if path else path


PLACE = frozenset(
    {
        "data_root", "tasks_dir", "device", "device_map", "num_processes", "workers", "cache_pictures", "threads",
        "log_with", "output_path", "resume", "verify_data", "auto_batch", "save_every", "activation_checkpointing",
    }
)  # fmt: skip
"""The spec's fields that say where or how fast, never what: they are no part of the fingerprint."""


class PretrainSpec(Frozen):
    """One pretraining: a model, pairs of pictures and captions, and how long.

    task, split: the tasks whose captions or questions are learned from, and the split or splits of each; None takes
    COCO's captions, or with `texts` none.
    texts: LXMERT's files of captions and questions. objectives: of the model's own, those that are trained; None
    trains all. options: of the model's pretraining, by name, e.g. key_drop. checkpoint: weights of the whole model to
    start from: vlbench's own, official ones, or a transformers folder; None starts from random values. init: of single
    towers, the network that each starts from: `vision` or `text` -> a file, a folder or `hf:NAME`. save_every:
    optimizer steps between states that an interrupted pretraining resumes from. Other fields mean what they mean in
    RunSpec.
    """

    model: str
    size: str | None = None
    task: tuple[str, ...] | None = Field(default=None, min_length=1)
    texts: tuple[Path, ...] = ()
    split: Splits = "train"
    data_root: Path | None = None
    tasks_dir: Path | None = None
    domain: Domain = "plain"
    objectives: tuple[str, ...] | None = None
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    checkpoint: str | None = None
    init: dict[Literal["vision", "text"], str] = Field(default_factory=dict)
    seed: int = 0
    vocabulary: Path | None = None
    train: Recipe = Recipe()
    save_every: int = Field(default=500, ge=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    allow_partial: bool = False
    device: str | None = None
    num_processes: int | None = Field(default=None, ge=1)
    workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    log_with: tuple[str, ...] = ()
    output_path: Path = Path("pretrained")
    resume: bool = True

    @field_validator("data_root", "tasks_dir", "vocabulary", "output_path")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        return path.expanduser() if path else path
