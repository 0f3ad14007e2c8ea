"""Cards: the facts about a task, its downloads or a model, read from YAML, validated and immutable."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from vlbench.core.options import Amount, Count, NotNegative, Positive, Share, option
from vlbench.core.paths import RelativePath, is_hidden, leads_out
from vlbench.core.splits import SplitTuple
from vlbench.core.validate import Frozen

OutputKind = Literal["classify", "pair", "rank", "generate"]


class SplitCard(Frozen):
    """The files of one split, below the task's root.

    files: what the adapter asks for -> candidate paths, of which the first that exists is used; a path may hold fields
    in braces that the adapter fills in per example. optional: the files that may be missing. count: the number of
    examples in the official files. md5: file -> hash of the official file, verified by `vlbench data check`. overlaps:
    splits known to share examples or images with this one, by construction or as published. within: the larger split
    that includes every example of this one under the same id, else empty; its predictions are accepted for this one.
    """

    files: dict[str, tuple[RelativePath, ...]]
    optional: tuple[str, ...] = ()
    count: int | None = None
    md5: dict[str, str] = Field(default_factory=dict)
    overlaps: tuple[str, ...] = ()
    within: str = ""


class Leak(Frozen):
    """Images of a split that are also in a split of another task.

    A model trained on split `other` of `task` has seen them. pictures: the number of shared images, None if unknown.
    verified: whether it was counted in the official files or follows from them. source: who reports it.
    """

    split: str
    task: str
    other: str
    pictures: int | None = Field(default=None, ge=0)
    verified: bool = False
    source: str


class TaskCard(Frozen):
    """The facts about a task; its adapter function is in `adapter.py` beside the card.

    version: raised whenever a number of the task could change. output: the kind of answer. labels: the closed list of
    answers, in the order of the logits. min_answer_count: for open answers instead, how often an answer must occur in
    the train split to become a class. prompt: the prompt of a generative model, with `{text}` for the example's text;
    extraction: the rule of `vlbench.data.text.extraction` that extracts its answer. claims: label -> the sentence that
    a dual encoder compares with the image, with `{text}` for the example's text; `*` stands for all other labels, with
    `{label}` for the label. metrics: name -> `module:function`. slices: tags by which tables break down the main
    metric. features: globs of region feature files, below the root. siblings: folders of DATA_ROOT that may hold images
    of several tasks. leaks: images that other tasks are known to train on.
    """

    name: str
    title: str
    version: int
    description: str
    output: OutputKind
    images_per_example: int
    labels: tuple[str, ...] = ()
    min_answer_count: int | None = Field(default=None, ge=1)
    prompt: str = "{text}"
    extraction: Literal["verbatim", "short_answer", "named_label"] = "verbatim"
    claims: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, str]
    main_metric: str
    slices: tuple[str, ...] = ()
    splits: dict[str, SplitCard]
    train_split: str
    select_on: str
    report_split: str
    features: tuple[RelativePath, ...] = ()
    siblings: tuple[RelativePath, ...] = ()
    leaks: tuple[Leak, ...] = ()
    homepage: str
    licence: str
    citation: str

    @model_validator(mode="after")
    def _names_agree(self) -> TaskCard:
        shared = (name for split in self.splits.values() for name in (*split.overlaps, split.within) if name)
        leaky = (leak.split for leak in self.leaks)
        for role in (self.train_split, self.select_on, self.report_split, *shared, *leaky):
            if role not in self.splits:
                raise ValueError(f"split {role!r} is not among the card's splits {sorted(self.splits)}")
        for name in self.splits:
            self.larger_splits(name)
        if self.main_metric not in self.metrics:
            raise ValueError(f"main_metric {self.main_metric!r} is not among the card's metrics")
        if self.labels and self.min_answer_count is not None:
            raise ValueError(
                "labels are a closed list of answers and min_answer_count makes an open one: give one of them"
            )
        return self

    @property
    def is_retrieval(self) -> bool:
        """Whether a gallery is ranked instead of examples answered one by one."""
        return self.output == "rank"

    def overlap(self, split: str, other: str) -> bool:
        """Whether two splits of this card are the same, or share examples or images according to the card."""
        return split == other or other in self.splits[split].overlaps or split in self.splits[other].overlaps

    def larger_splits(self, split: str) -> tuple[str, ...]:
        """The splits that include this one by `within`, smallest first; raises ValueError if one is within itself."""
        larger: list[str] = []
        name = self.splits[split].within
        while name:
            if name == split or name in larger:
                raise ValueError(f"split {split!r} is within itself by way of {name!r}: name a larger split")
            larger.append(name)
            name = self.splits[name].within
        return tuple(larger)


class ScaleRange(NamedTuple):
    """The random sizes of training images in pixels: the short side is in [low, high], the long side at most `longest`.

    longest: None for the model's own limit.
    """

    low: int
    high: int
    longest: int | None = None


class Recipe(Frozen):
    """How to finetune. A field without a value takes that of the recipe it is merged over (see `merged`).

    optimizer: `bert_adam` is Adam without bias correction, as in the BERT code. lr: the peak learning rate. head_lr:
    the head's, where it differs. visual_lr: that of a network over pixels within the backbone, which SGD (momentum 0.9,
    weight decay 1e-4) then trains, as in SOHO. warmup: the share of all steps with linear warm-up, followed by linear
    decay to 0; warmup_steps: the number of these steps instead. warmup_from: the share of the rate at the start of the
    warm-up, 0 by default. decay_biases: whether weight decay also applies to biases and norms; by default bert_adam
    does so and adamw does not. milestones: shares of all steps at each of which the rates fall to a tenth, instead of
    the linear decay. betas: of Adam. clip: the largest gradient norm. ema: the momentum of the averaged copy of the
    weights, which is evaluated besides the plain ones. steps: overrides epochs. batch_size: examples per optimizer
    step, over all processes and accumulation steps. batches: `shuffled` draws examples independently; `related` keeps
    examples with the same image or statement, and so both answers to a statement, in one batch. augment: `randaugment`
    augments training images (RandAugment without inversion and cutout, as in ViLT). short_side: the range in pixels
    from which the short side of a training image is drawn uniformly for each image and step; long_side: the largest
    long side (both as in SOHO). rank_loss: of a cross-encoder in retrieval: `softmax` over a text and negatives (ViLT),
    `hinge`, the mean over the negatives (UNITER), or `binary` (the ITM loss). negative_texts, negative_images: the
    number drawn for each pair. margin: of the hinge. lora_rank: the rank of LoRA adapters that are trained instead of
    the backbone's weights, for models of transformers; 0 trains the weights. train_splits: finetune on all of these
    splits, unless RunSpec.train_split names others; None for the task card's train split, and in a resolved spec, whose
    train_split names the splits. batch_norm: `frozen` (default) normalises by the running statistics, which stay
    constant while weights and biases are trained; `live` by the statistics of the batch, over all processes
    (SyncBatchNorm) and in one forward pass per step and process, so that the loss depends on which images a forward
    pass repeats.
    """

    optimizer: Literal["adamw", "bert_adam"] | None = None
    lr: Positive | None = option(
        None, "Peak learning rate; short for --set train.lr=X.", "Training", shown="the recipe's"
    )
    head_lr: Positive | None = None
    visual_lr: Positive | None = None
    weight_decay: NotNegative | None = None
    warmup: Share | None = None
    warmup_steps: Amount | None = None
    warmup_from: Share | None = None
    decay_biases: bool | None = None
    milestones: tuple[Share, ...] | None = None
    betas: tuple[Share, Share] | None = None
    clip: Positive | None = None
    ema: Annotated[Share, Field(lt=1)] | None = None
    epochs: Count | None = option(
        None, "Passes over the training data; short for --set train.epochs=N.", "Training", shown="the recipe's"
    )
    steps: Count | None = option(
        None,
        "Optimizer steps, which win over --epochs; short for --set train.steps=N.",
        "Training",
        shown="the recipe's",
    )
    batch_size: Count | None = option(
        None,
        "Examples (pretraining: pairs) per optimizer step; short for --set train.batch_size=N.",
        "Training",
        shown="the recipe's",
    )
    accumulation: Count | None = None
    evaluations: Count | None = None
    batches: Literal["shuffled", "related"] | None = None
    augment: Literal["none", "randaugment"] | None = None
    short_side: tuple[Count, Count] | None = None
    long_side: Count | None = None
    rank_loss: Literal["softmax", "hinge", "binary"] | None = None
    negative_texts: Amount | None = None
    negative_images: Amount | None = None
    margin: Positive | None = None
    lora_rank: Amount | None = None
    train_splits: SplitTuple | None = None
    batch_norm: Literal["frozen", "live"] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if self.warmup is not None and self.warmup_steps is not None:
            raise ValueError("warmup is a share of all steps and warmup_steps a number of them: give one of the two")
        if self.short_side is not None and self.short_side[0] > self.short_side[1]:
            raise ValueError(f"short_side is {list(self.short_side)}: expected the lowest number of pixels first")
        return self

    @property
    def scales(self) -> ScaleRange | None:
        """The random sizes of training images; None for the model's own size."""
        return ScaleRange(*self.short_side, self.long_side) if self.short_side else None

    def merged(self, over: Recipe) -> Recipe:
        """This recipe with all fields that `over` sets; its epochs remove steps, either warm-up removes the other."""
        given = over.model_dump(exclude_none=True)
        replaced = {"warmup_steps": "warmup", "warmup": "warmup_steps", "epochs": "steps"}
        dropped: dict[str, None] = {other: None for name, other in replaced.items() if name in given}
        return self.model_copy(update=dropped | given)


class HeadLayout(Frozen):
    """The layout of a model's classification heads, as in its paper.

    hidden: the width as a multiple of the backbone's; 0 for a single Linear without a hidden layer. order: the layers
    between the two Linear: GELU then LayerNorm (`activation-norm`), LayerNorm then GELU (`norm-activation`), or ReLU
    then dropout (`relu-dropout`, SOHO's released head). epsilon: of LayerNorm. dropout: its probability.
    """

    hidden: float = 2.0
    order: Literal["activation-norm", "norm-activation", "relu-dropout"] = "activation-norm"
    epsilon: float = 1e-12
    dropout: float = Field(default=0.5, ge=0, lt=1)


class SizeCard(Frozen):
    """One size of a model: its architecture, its tokenizer, and the differences from the model card's recipes.

    vocabulary: `bert-base-uncased`; `own`: on the synthetic world that of the world, else trained on the train split;
    `its own`: that of the model's processor. max_text: the longest text in tokens, with [CLS] and [SEP]; longer texts
    are cut. threads: the number of CPU threads that suits this size, None for all: a tiny model gains little from a
    second thread and loses much on a busy machine. recipes: the differences from the model's recipes, for every task
    (`default`) or for one. pretraining: settings of the pretraining that differ from the paper's. head: the layout of
    the classification heads, where it differs from the model's.
    """

    config: dict[str, int | float | str | bool]
    vocabulary: Literal["own", "bert-base-uncased", "its own"]
    max_text: int
    threads: int | None = Field(default=None, ge=1)
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    pretraining: dict[str, int | float | str | bool] = Field(default_factory=dict)
    parameters: int | None = None
    head: HeadLayout | None = None


class ModelCard(Frozen):
    """The facts about a model; its class is in `backbone.py` beside the card.

    visual: the input of the visual part. ranks_by: how it ranks a gallery: `cross`, a cross-encoder over every pair, or
    `dual`, embeddings of images and texts. embeds: whether it also has such embeddings, so that a ranking can start
    from a shortlist. pretrained: whether it has weights of its own, which a run starts from. own_code: the keys of its
    config that reach for code, which runs only if it is trusted, and the config's name; empty if there are none.
    brings: the outputs whose heads are in these weights. pretraining: its pretraining class, as `module:Class`, else
    empty; its recipe is `pretrain`. sizes: `base` is the paper's. recipes: finetuning per task as in the paper;
    `default` where the paper has none.
    """

    name: str
    title: str
    description: str
    backbone: str
    visual: Literal["regions", "patches", "grid", "none"]
    outputs: tuple[OutputKind, ...]
    ranks_by: Literal["cross", "dual"] = "cross"
    embeds: bool = False
    pretrained: bool = False
    own_code: str = ""
    brings: tuple[OutputKind, ...] = ()
    pretraining: str = ""
    sizes: dict[str, SizeCard]
    head: HeadLayout = HeadLayout()
    recipes: dict[str, Recipe]
    paper: str
    licence: str

    @model_validator(mode="after")
    def _has_default_recipe(self) -> ModelCard:
        if "default" not in self.recipes:
            raise ValueError("recipes need an entry 'default'")
        return self

    def head_layout(self, size: str) -> HeadLayout:
        """The layout of classification heads of that size: the size's own, else the model's."""
        return self.sizes[size].head or self.head

    def recipe(self, task: str, size: str) -> Recipe:
        """The recipe for a task: the model's `default`, then its entry for the task, then both entries of the size."""
        merged = Recipe()
        for recipes in (self.recipes, self.sizes[size].recipes):
            for name in ("default", task):
                merged = merged.merged(recipes.get(name, Recipe()))
        return merged


class Download(Frozen):
    """One archive or file to download, or data that has to be requested from its owners.

    gives: the paths below `to` that must exist afterwards. to: a folder below the data root; tasks with the same images
    share it. url: the address of the file; empty where it has to be requested, as `by_hand` explains. unpack: whether
    it is an archive. size: the approximate size, as text. unpacked_gb: the approximate size of what an archive holds,
    in 10^9 bytes, where it is known; an archive with more than twice as much is rejected. md5, sha256: the hashes of
    the downloaded file. optional: whether the task runs without it.
    """

    gives: tuple[RelativePath, ...] = Field(min_length=1)
    to: RelativePath
    url: str = ""
    by_hand: str = ""
    unpack: bool = False
    size: str = ""
    unpacked_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    md5: str = ""
    sha256: str = ""
    optional: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Download:
        if bool(self.url) == bool(self.by_hand):
            raise ValueError("give a url, or say under by_hand how people get it")
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError(f"url {self.url!r} is not http or https")
        if self.url and (leads_out(self.name) or is_hidden(self.name) or "/" in self.name):
            raise ValueError(f"url {self.url!r} does not end in the name of a file")
        return self

    @property
    def name(self) -> str:
        """The file name in the url, or the first path it gives."""
        return urlsplit(self.url).path.rpartition("/")[2] or self.gives[0]

    @property
    def checksums(self) -> dict[str, str]:
        """Algorithm -> hash, for the known ones."""
        return {name: value for name, value in (("md5", self.md5), ("sha256", self.sha256)) if value}


class Downloads(Frozen):
    """All downloads of a task, as `downloads.yaml` holds them."""

    sources: tuple[Download, ...] = Field(min_length=1)
