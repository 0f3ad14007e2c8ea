"""The cards: facts about a task or a model, read from YAML, checked, frozen."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from vlbench.core.options import Amount, Count, NotNegative, Positive, Share, option
from vlbench.core.splits import SplitTuple
from vlbench.core.validate import Frozen

OutputKind = Literal["classify", "pair", "rank", "generate"]


class SplitCard(Frozen):
    """Where one split lies below the task's root.

    files: what the adapter asks for -> candidate paths, the first that exists wins; a path may hold
    fields in braces that the adapter fills per example. optional: what of them may be missing. count:
    examples the official files hold. md5: of the official file of that name, checked by `vlbench data check`.
    overlaps: splits known to hold some of the same examples or pictures, by construction or as they were published.
    within: the larger split that holds every example of this one under the same id; empty where there is none.
    Predictions of the larger split are accepted for this one.
    """

    files: dict[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()
    count: int | None = None
    md5: dict[str, str] = Field(default_factory=dict)
    overlaps: tuple[str, ...] = ()
    within: str = ""


class Leak(Frozen):
    """Pictures of one of a task's splits that a split of another task is known to hold as well.

    A model trained on `other` of `task` has seen them. pictures: how many, None where nobody has counted them.
    verified: whether it was counted in, or follows from, the official files. source: who says so.
    """

    split: str
    task: str
    other: str
    pictures: int | None = Field(default=None, ge=0)
    verified: bool = False
    source: str


class TaskCard(Frozen):
    """A task's facts; its one function stands beside it in `adapter.py`.

    version: raised whenever a number made with the task could move. output: which head questions the
    backbone. labels: the closed answer list in the order of the logits. min_answer_count: of a task whose answers
    are open instead, how often one must come in the train split for a classifier to know it. prompt: the prompt of a
    generative model, `{text}` being the example's text; extraction: the rule of `vlbench.data.text.extraction` that
    extracts its answer from the generated text. claims: what a dual encoder compares an image with: label -> sentence,
    `{text}` being the example's text; under `*` for every other label, `{label}` being that. metrics: name ->
    `module:function`.
    slices: tags that every table breaks the main metric down by. features: where region features may lie,
    as globs below the root. siblings: folders of DATA_ROOT that may hold the images of several tasks. leaks: pictures
    that other tasks are known to train on.
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
    features: tuple[str, ...] = ()
    siblings: tuple[str, ...] = ()
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
        """Whether two splits of this card are the same one, or hold some of the same examples as far as it says."""
        return split == other or other in self.splits[split].overlaps or split in self.splits[other].overlaps

    def larger_splits(self, split: str) -> tuple[str, ...]:
        """The splits that hold all of this one, the smallest first, by `within`.

        Raises:
            ValueError: a split is within itself.
        """
        found: list[str] = []
        name = self.splits[split].within
        while name:
            if name == split or name in found:
                raise ValueError(f"split {split!r} is within itself by way of {name!r}: name a larger split")
            found.append(name)
            name = self.splits[name].within
        return tuple(found)


class ScaleRange(NamedTuple):
    """Random sizes of training images, in pixels: the short side from `low` to `high`, the long side at most `longest`.

    longest: None keeps the model's own limit.
    """

    low: int
    high: int
    longest: int | None = None


class Recipe(Frozen):
    """How to finetune. A field left out keeps the value of the layer below (see `merged`).

    lr: peak learning rate. head_lr: the head's, where it differs. visual_lr: that of a network over pixels within
    the backbone, which SGD (momentum 0.9, weight decay 1e-4) then trains, as in SOHO. warmup: share of all steps
    with linear warm-up, linear decay to 0 after it; warmup_steps: their number, in its place. warmup_from: share of the
    rate that warm-up begins at, 0 where left out. decay_biases: whether weight decay also applies to biases and norms;
    left out, bert_adam does and adamw does not. milestones: shares of all steps at each of which the rates fall
    to a tenth, in place of the linear decay.
    betas: of Adam. clip: largest gradient norm. ema: momentum of the averaged copy of the finetuned weights, evaluated
    beside the plain ones. steps wins over epochs. batch_size: examples per optimizer step, over all
    processes and accumulation steps. batches: `shuffled` draws examples singly; `related` keeps those that
    share a picture or a statement in one batch, which then holds both answers to one statement. augment: whether
    training images are augmented at random (RandAugment without inversion and cutout, as in ViLT). short_side: lowest
    and highest number of pixels that the short side of a training image is resized to, drawn uniformly for each image
    and step; long_side: the most that the long side may then have (both as in SOHO). rank_loss, of a
    cross-encoder that ranks: `softmax` over a text and negatives (ViLT), `hinge`, the mean over the negatives
    (UNITER), `binary` (the matching head's own loss). negative_texts, negative_images: drawn for each pair. margin: the
    hinge's. lora_rank: of low-rank adapters that are trained in place of the backbone's weights, for models of
    transformers; 0 trains the weights. train_splits: finetune on all of these splits, unless RunSpec.train_split names
    others; None: the task card's train split. In a resolved spec it is None, and train_split names what is trained on.
    batch_norm: what batch norms normalise by in finetuning: `frozen`, and where it is left out, their running
    statistics, which stay as they are while their weights and biases learn; `live`, the statistics of the batch, over
    all processes (SyncBatchNorm) and in a single forward pass per step and process. The loss of a step then depends on
    which images a forward pass repeats.
    """

    optimizer: Literal["adamw", "bert_adam"] | None = None
    lr: Annotated[
        Positive | None,
        option("Peak learning rate; short for --set train.lr=X.", "Training", default="the recipe's"),
    ] = None
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
    epochs: Annotated[
        Count | None,
        option("Passes over the training data; short for --set train.epochs=N.", "Training", default="the recipe's"),
    ] = None
    steps: Annotated[
        Count | None,
        option(
            "Optimizer steps, which win over --epochs; short for --set train.steps=N.",
            "Training",
            default="the recipe's",
        ),
    ] = None
    batch_size: Annotated[
        Count | None,
        option(
            "Examples (pretraining: pairs) per optimizer step; short for --set train.batch_size=N.",
            "Training",
            default="the recipe's",
        ),
    ] = None
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
        """The random sizes of training images; None where they have the model's own."""
        return ScaleRange(*self.short_side, self.long_side) if self.short_side else None

    def merged(self, over: Recipe) -> Recipe:
        """This recipe with every field that `over` sets; a length of one kind replaces that of another kind."""
        given = over.model_dump(exclude_none=True)
        replaced = {"warmup_steps": "warmup", "warmup": "warmup_steps", "epochs": "steps"}
        dropped: dict[str, None] = {other: None for name, other in replaced.items() if name in given}
        return self.model_copy(update=dropped | given)


class HeadLayout(Frozen):
    """How the model's papers shape a classification head.

    hidden: its width as a multiple of the backbone's; 0: a single Linear, nothing hidden. order: what stands between
    the two Linear: GELU then LayerNorm (`activation-norm`), LayerNorm then GELU (`norm-activation`), or ReLU then
    dropout (`relu-dropout`, SOHO's released head). epsilon: LayerNorm's. dropout: its probability.
    """

    hidden: float = 2.0
    order: Literal["activation-norm", "norm-activation", "relu-dropout"] = "activation-norm"
    epsilon: float = 1e-12
    dropout: float = Field(default=0.5, ge=0, lt=1)


class SizeCard(Frozen):
    """One size of a model: architecture numbers, its tokenizer, and what differs from the card's recipe.

    vocabulary: `bert-base-uncased`; `own`: the world's on the world, else trained on the train split; `its own`: that
    of the model's processor, as it was pretrained.
    max_text: longest text in tokens, [CLS] and [SEP] among them; what is longer is cut. threads: of a CPU that
    suit this size, None for all: a tiny model gains little from a second one and loses much when it is busy.
    recipes: what differs from the model's own, for every task (`default`) or for one. pretraining: numbers of the
    model's pretraining, where they differ from the paper's. head: the layout of its classification heads, where it
    differs from the model's.
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
    """A model's facts; its class stands beside it in `backbone.py`.

    visual: what the model looks at. ranks_by: how it ranks a gallery: `cross`, every pair looked at together, or
    `dual`, pictures and texts embedded apart. embeds: whether it embeds pictures and texts apart, so that a ranking can
    begin with a shortlist. pretrained: whether its own weights are what a run begins with. own_code: whether they come
    with code of their own, which runs only when it is trusted. brings: what the heads among these answer. pretraining:
    its class, as `module:Class`; empty where it has none; how it is run stands in the recipes under `pretrain`. sizes:
    `base` is the paper's. recipes: finetuning per task from the paper, `default` where the paper has none.
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
    own_code: bool = False
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
        """How classification heads of that size are shaped: the size's layout, else the model's."""
        return self.sizes[size].head or self.head

    def recipe(self, task: str, size: str) -> Recipe:
        """The recipe for a task: the model's default, over it the model's for the task, over both the size's two."""
        merged = Recipe()
        for recipes in (self.recipes, self.sizes[size].recipes):
            for name in ("default", task):
                merged = merged.merged(recipes.get(name, Recipe()))
        return merged
