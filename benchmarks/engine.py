"""Overhead and savings of the engine, on base models with random weights and images of noise.

Run as `python benchmarks/engine.py`, or parts of it: `--parts evaluation,finetuning,loader,pairs`. Both sides run in
one process, in turn, and the order alternates; a ratio is of one repeat. Except for the loader, images are decoded
before anything is timed. Both sides must agree before they are timed.

evaluation: the engine's loop with ViLT-B/32, including making batches and reporting, compared with a bare loop over the
same batches, made before. finetuning: the engine's optimizer steps of the same model, logged, compared with a bare loop
over the same rows; both make each batch in its step, as a user's loop must too. Also by two processes, each with half
of a batch: the bare side is a loop with DDP, which looks for unused parameters where the engine's does. loader: reading
JPEG files and cutting them into patches, compared with Pillow alone. pairs: scoring all pairs of a gallery, compared
with a loop that encodes and fuses every pair.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageFilter
from sides import (
    IMAGE_SIZES,
    Clock,
    NoiseImages,
    RandomRegions,
    format_spread,
    make_captions,
    make_refs,
    measure,
    paired_ratios,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from vlbench import catalog
from vlbench.core.backbone import Backbone
from vlbench.core.batch import Batch
from vlbench.core.cards import Recipe
from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.core.gallery import galleries
from vlbench.core.progress import Silent
from vlbench.core.results import Ranking
from vlbench.data.images.load import ImageFiles
from vlbench.data.images.patches import fitted
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.batching.batches import Batches, sequential_blocks
from vlbench.engine.evaluators.classification import classify
from vlbench.engine.evaluators.cross_encoder import by_pairs
from vlbench.engine.evaluators.retrieval import retrieve
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.launch import launch
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.runtime.ranks import joined
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.collectives import total
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.micro_batches import shares, training_batches
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.build import build_head
from vlbench.metrics.ranks import from_matrix
from vlbench.models.vilt.backbone import ViLT

PARTS = ("evaluation", "finetuning", "loader", "pairs")
QUICK = False


def main() -> None:
    """Measure the chosen parts and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--models", default="cvlp,vilt,soho", help="of the part pairs")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=2, help="of the part evaluation, per repeat")
    parser.add_argument("--images", type=int, default=4, help="of the part pairs")
    parser.add_argument("--texts", type=int, default=8, help="of the part pairs, per image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    chosen = wanted.parts.split(",")
    if "loader" in chosen:
        loader(wanted.repeats)
    if "evaluation" in chosen:
        evaluation(wanted.batch, wanted.batches, wanted.repeats)
    if "finetuning" in chosen:
        finetuning(wanted.batch, wanted.repeats)
    if "pairs" in chosen:
        for name in wanted.models.split(","):
            pairs(name, gallery_of(wanted.images, wanted.texts), wanted.batch, wanted.repeats)


def ratios(repeats: int) -> dict[str, list[float]]:
    """The other side's time over the engine's, for each comparison and repeat."""
    return (
        evaluation(4, 2, repeats)
        | finetuning(4, repeats)
        | loader(repeats)
        | pairs("cvlp", gallery_of(4, 8), 16, repeats)
    )


def make_learner(name: str, task: str, size: str = "base") -> Learner:
    """A size of the model with random weights and the task's head."""
    torch.manual_seed(0)
    card = catalog.model_card(name)
    text = TextEncoder.train(make_captions(500), 4000, card.sizes[size].max_text)
    backbone = catalog.load_model(card, size, Resources(text, NoiseImages(), RandomRegions()))
    task_card = catalog.task_card(task)
    head = build_head(task_card, card, backbone.width, task_card.labels or (), card.recipe(task, size))
    return Learner(backbone, head)


def make_statements(count: int) -> list[Example[Caption]]:
    """Examples of one image and one text each."""
    pairs = zip(make_refs(count), make_captions(count), strict=True)
    return [
        Example(f"{row}", Query((ref,), text), Caption(ref.key, ""), ref.key) for row, (ref, text) in enumerate(pairs)
    ]


def make_pace(batch: int, accelerator: Accelerator | None = None) -> Pace:
    """A pace without workers and without progress output."""
    return Pace(accelerator or make_accelerator("cpu", "float32"), batch, 0, Silent(), Interrupt(), "measuring")


def report(title: str, seconds: dict[str, list[float]], unit: str, amount: float) -> dict[str, list[float]]:
    """Print the time of both sides for an amount of work, their rates, and their ratio; returns their ratios."""
    for name, taken in seconds.items():
        rates = format_spread([amount / elapsed for elapsed in taken])
        print(f"{title}, {name}: {format_spread(taken)} CPU-s, {rates} {unit} per CPU-second")
    print(f"{title}: {' / '.join(seconds)} {format_spread(paired_ratios(seconds))}")
    return {title: paired_ratios(seconds)}


def evaluation(batch: int, batches: int, repeats: int) -> dict[str, list[float]]:
    """Compare `classify` with a loop over batches that are made before."""
    learner = make_learner("vilt", "snli_ve").eval()
    examples = make_statements(batch * batches)
    ready = Batches(examples, sequential_blocks(len(examples), batch), learner.model, learner.head)
    prepared_batches = [ready[number] for number in range(len(ready))]

    def bare() -> list[int]:
        with torch.inference_mode():
            logits = [learner(prepared).logits for prepared in prepared_batches]
            return [answer for rows in logits for answer in rows.argmax(dim=1).tolist()]

    def engine() -> list[int]:
        predictions, _ = classify(learner, examples, make_pace(batch))
        labels = catalog.task_card("snli_ve").labels or ()
        return [labels.index(prediction.answer) for prediction in predictions]

    if bare() != engine():
        raise SystemExit("the sides of the evaluation differ")
    return report("evaluation", measure({"bare loop": bare, "engine": engine}, repeats), "examples", len(examples))


class MeasuredEnough(Exception):
    """The end of a training that is only timed, raised before it saves anything."""


def finetuning(batch: int, repeats: int) -> dict[str, list[float]]:
    """Compare the engine's optimizer steps with those of a bare loop over the same rows, in one process and in two."""
    alone = finetuning_seconds(make_accelerator("cpu", "float32"), batch, repeats)
    by_two = report("finetuning, 2 processes", finetuning_by_two(batch, repeats), "examples", batch // 2)
    return report("finetuning", alone, "examples", batch) | by_two


def finetuning_by_two(batch: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of the first of two processes, each with half of the batch; the bare side is a loop with DDP."""
    seconds: dict[str, list[float]] = json.loads(launch(_train_by_two, (batch, repeats), 2))
    return seconds


def _train_by_two(batch: int, repeats: int) -> str:
    with joined("cpu"):
        return json.dumps(finetuning_seconds(make_accelerator("cpu", "float32"), batch, repeats))


def finetuning_seconds(
    accelerator: Accelerator,
    batch: int,
    repeats: int,
    name: str = "vilt",
    size: str = "base",
    clock: Clock = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of the optimizer steps of a bare loop and of the engine, which alternate; both do the same rows."""
    training, bare = make_trainings(accelerator, batch, repeats + 2, name, size)
    seconds: dict[str, list[float]] = {"bare loop": [], "engine": []}
    started = clock()

    def after_a_step(line: dict[str, float | int | str]) -> None:
        nonlocal started
        done = clock()
        loss = bare.step()
        finished = clock()
        (mean,) = total(accelerator, [loss / accelerator.num_processes])
        close = 1e-4 if accelerator.mixed_precision == "no" else 0.05
        if line["step"] == 1 and abs(float(line["loss"]) - mean) > close:
            raise SystemExit(f"the sides of the fine-tuning differ: losses {line['loss']} and {mean}")
        if line["step"] != 1:  # the first step also makes the optimizer's state
            seconds["engine"].append(done - started)
            seconds["bare loop"].append(finished - done)
        if len(seconds["engine"]) == repeats:
            raise MeasuredEnough
        started = clock()

    with contextlib.suppress(MeasuredEnough):
        training.run(None, after_a_step, Silent(), Interrupt(), "measuring")
    return seconds


def make_trainings(
    accelerator: Accelerator, batch: int, steps: int, name: str, size: str
) -> tuple[Finetuning, BareTraining]:
    """The engine's training and a bare loop over the same rows, each of a model with the same weights."""
    learner, other = (disable_dropout(make_learner(name, "snli_ve", size)).train() for _ in range(2))
    changes = Recipe(steps=steps, batch_size=batch, accumulation=1, evaluations=1, augment="none")
    recipe = catalog.model_card(name).recipe("snli_ve", size).merged(changes)
    recipe = recipe.model_copy(update={"ema": None})
    examples = [
        Example(statement.id, statement.query, Label("neutral"), statement.group)
        for statement in make_statements(4 * batch)
    ]
    plan = make_plan(recipe, training_units(recipe, examples), 0)
    checkpoints = Checkpoints(Path("nothing-is-saved"), None, {}, ())
    training = Finetuning(learner, examples, plan, accelerator, checkpoints, 0, Conduct())
    place = accelerator.process_index, accelerator.num_processes
    own = [share for number, block in enumerate(training.steps.blocks) for share in shares(block, number, 1, *place)]
    ready = training_batches(examples, own, other, "0/negatives")
    return training, BareTraining(other, ready, recipe, accelerator, like=training.trained.wrapped)


class BareTraining:
    """A minimal training loop: make a batch, forward, backward, clip, step.

    like: the engine's module. Where it is one of DDP, the learner becomes one too, with the same search for unused
    parameters.
    """

    def __init__(
        self, learner: Learner, batches: Batches, recipe: Recipe, accelerator: Accelerator, like: nn.Module
    ) -> None:
        self.batches: Iterator[Batch] = iter(DataLoader(batches, batch_size=None))
        self.device = accelerator.device
        self.half = accelerator.mixed_precision == "bf16"
        learner.to(self.device)
        self.learner: nn.Module = learner
        if isinstance(like, DistributedDataParallel):
            self.learner = DistributedDataParallel(learner, find_unused_parameters=like.find_unused_parameters)
        self.optimizer = torch.optim.AdamW(learner.parameters(), lr=float(recipe.lr or 0), fused=True)

    def step(self) -> float:
        """Do one optimizer step; returns the loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.learner(next(self.batches).to(self.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def disable_dropout(learner: Learner) -> Learner:
    """The learner without dropout, so that training is reproducible."""
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return learner


def loader(repeats: int) -> dict[str, list[float]]:
    """Compare a model's `prepare_images` on JPEG files with Pillow's decoding and resizing to the same sizes."""
    with tempfile.TemporaryDirectory() as folder:
        refs = [write_jpeg(Path(folder), row) for row in range(32)]
        backbone = make_learner("vilt", "snli_ve").backbone
        assert isinstance(backbone, ViLT)
        backbone.images, config = ImageFiles(), backbone.config

        def plain() -> None:
            for ref in refs:
                with Image.open(ref.path) as image:
                    size = fitted(*image.size, config.short_side, config.long_side, config.patch)
                    np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))

        def engine() -> None:
            for start in range(0, len(refs), 8):
                backbone.prepare_images(refs[start : start + 8])

        return report("loader", measure({"Pillow": plain, "engine": engine}, repeats), "images", len(refs))


def write_jpeg(folder: Path, row: int) -> ImageRef:
    """Write a JPEG file with the size and detail of a COCO image: blurred noise, about 100 to 200 KB."""
    width, height = IMAGE_SIZES[row % len(IMAGE_SIZES)]
    noise = np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)
    path = folder / f"{row}.jpg"
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)).save(path, quality=90)
    return ImageRef(path, str(row))


def gallery_of(count: int, each: int) -> list[Example[Caption]]:
    """A gallery of `count` images with `each` texts per image."""
    refs, texts = make_refs(count), make_captions(each * count)
    owners = [refs[row // each] for row in range(len(texts))]
    rows = enumerate(zip(owners, texts, strict=True))
    return [Example(f"{row}", Query((ref,), text), Caption(ref.key, ""), ref.key) for row, (ref, text) in rows]


def pairs(name: str, examples: list[Example[Caption]], batch: int, repeats: int) -> dict[str, list[float]]:
    """Compare `retrieve` on all pairs of a small gallery with a loop that encodes every pair again."""
    learner = make_learner(name, "coco_retrieval").eval()
    (gallery,) = galleries(examples)
    backbone = cast(Backbone, learner.model)
    every = [(ref, text) for ref in gallery.images for text in gallery.texts]
    batches = []
    for start in range(0, len(every), batch):
        refs, texts = zip(*every[start : start + batch], strict=True)
        batches.append((backbone.prepare_images(refs), backbone.prepare_texts(texts)))

    def loop() -> list[Ranking]:
        with torch.inference_mode():
            scores = []
            for images, texts in batches:
                slot = torch.zeros(len(texts["mask"]), dtype=torch.int64)
                scores.append(learner.head(backbone.fuse(backbone.see(images, slot), backbone.read(texts))))
        return from_matrix(torch.cat(scores).view(len(gallery.images), -1).numpy(), gallery)

    def engine() -> list[Ranking]:
        return retrieve(learner, examples, make_pace(batch), by_pairs)[0]

    ranks = [[(ranking.rank_low, ranking.rank_high) for ranking in side()] for side in (loop, engine)]
    if ranks[0] != ranks[1]:
        raise SystemExit(f"the sides of {name}'s pairs differ")
    title = f"pairs, {name}, {len(gallery.images)} x {len(gallery.texts)}"
    return report(title, measure({"encodes every pair": loop, "engine": engine}, repeats), "pairs", len(every))


if __name__ == "__main__":
    main()
