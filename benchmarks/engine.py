"""Overhead and savings of the engine, on base models with random weights and images of noise.

Run as `python benchmarks/engine.py`, or parts of it: `--parts evaluation,finetuning,loader,pairs,gpu`. All in one
process; both sides run in turn and the order alternates; a ratio is of one repeat. Except for the loader, images are
decoded before anything is timed. Both sides must agree before they are timed.

evaluation, finetuning: the engine's loop with ViLT-B/32, including making batches and reporting, compared with a bare
loop over the same batches, made before. loader: reading JPEG files and cutting them into patches, compared with Pillow
alone. pairs: scoring all pairs of a gallery, compared with a loop that encodes and fuses every pair. gpu: ViLT-B/32 in
bfloat16, if there is a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageFilter
from sides import (
    IMAGE_SIZES,
    NoiseImages,
    RandomRegions,
    format_spread,
    make_captions,
    make_refs,
    measure,
    paired_ratios,
)
from torch.utils.flop_counter import FlopCounterMode

from vlbench import catalog
from vlbench.core.backbone import Tensors
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
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.micro_batches import Share, training_batches
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.build import build_head
from vlbench.metrics.ranks import from_matrix

PARTS = ("evaluation", "finetuning", "loader", "pairs", "gpu")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "V100": 125e12}
"""Dense bfloat16 operations per second by the manufacturers' data sheets (float16 for the V100)."""
COCO_5K = 5_000 * 25_010


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
    parser.add_argument("--compile", action="store_true", help="the part gpu with torch.compile")
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
    if "gpu" in chosen and torch.cuda.is_available():
        gpu(wanted.compile)


def make_learner(name: str, task: str) -> Learner:
    """The model's base size with random weights and the task's head."""
    torch.manual_seed(0)
    card = catalog.model_card(name)
    text = TextEncoder.train(make_captions(500), 4000, card.sizes["base"].max_text)
    backbone = catalog.load_model(card, "base", Resources(text, NoiseImages(), RandomRegions()))
    task_card = catalog.task_card(task)
    head = build_head(task_card, card, backbone.width, task_card.labels or (), card.recipe(task, "base"))
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


def report(title: str, seconds: dict[str, list[float]], unit: str, amount: float) -> None:
    """Print the time of both sides for an amount of work, their rates, and their ratio."""
    for name, taken in seconds.items():
        rates = format_spread([amount / elapsed for elapsed in taken])
        print(f"{title}, {name}: {format_spread(taken)} CPU-s, {rates} {unit} per CPU-second")
    print(f"{title}: {' / '.join(seconds)} {format_spread(paired_ratios(seconds))}")


def evaluation(batch: int, batches: int, repeats: int) -> None:
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
    report("evaluation", measure({"bare loop": bare, "engine": engine}, repeats), "examples", len(examples))


class MeasuredEnough(Exception):
    """The end of a training that is only timed, raised before it saves anything."""


def finetuning(batch: int, repeats: int) -> None:
    """Compare the engine's optimizer steps with those of a bare loop over the same rows; the steps alternate."""
    learner, other = (disable_dropout(make_learner("vilt", "snli_ve")).train() for _ in range(2))
    changes = Recipe(steps=repeats + 2, batch_size=batch, accumulation=1, evaluations=1, augment="none")
    recipe = catalog.model_card("vilt").recipe("snli_ve", "base").merged(changes)
    examples = [
        Example(statement.id, statement.query, Label("neutral"), statement.group)
        for statement in make_statements(4 * batch)
    ]
    accelerator, plan = make_accelerator("cpu", "float32"), make_plan(recipe, training_units(recipe, examples), 0)
    checkpoints = Checkpoints(Path("nothing-is-saved"), None, {}, ())
    training = Finetuning(learner, examples, plan, accelerator, checkpoints, 0, Conduct())
    blocks = enumerate(training.steps.blocks)
    steps = [Share(number, tuple(rows), tuple(range(len(rows))), 1.0) for number, rows in blocks]
    batches = training_batches(examples, steps, other, "0/negatives")
    bare = BareTraining(other, [batches[number] for number in range(len(batches))], float(recipe.lr or 0))
    seconds: dict[str, list[float]] = {"bare loop": [], "engine": []}
    started = time.process_time()

    def after_a_step(line: dict[str, float | int | str]) -> None:
        nonlocal started
        done = time.process_time()
        loss = bare.step()
        if line["step"] == 1 and abs(float(line["loss"]) - loss) > 1e-4:
            raise SystemExit(f"the sides of the fine-tuning differ: losses {line['loss']} and {loss}")
        if line["step"] != 1:  # the first step also makes the optimizer's state
            seconds["engine"].append(done - started)
            seconds["bare loop"].append(time.process_time() - done)
        if len(seconds["engine"]) == repeats:
            raise MeasuredEnough
        started = time.process_time()

    with contextlib.suppress(MeasuredEnough):
        training.run(None, after_a_step, Silent(), Interrupt(), "measuring")
    report("finetuning", seconds, "examples", batch)


@dataclass
class BareTraining:
    """A minimal training loop: forward, backward, clip, step. rate: the learning rate."""

    learner: Learner
    batches: list[Batch]
    rate: float

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.learner.parameters(), lr=self.rate)

    def step(self) -> float:
        """Do one optimizer step; returns the loss."""
        loss = self.learner(self.batches.pop(0)).loss
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


def loader(repeats: int) -> None:
    """Compare a model's `prepare_images` on JPEG files with Pillow's decoding and resizing to the same sizes."""
    with tempfile.TemporaryDirectory() as folder:
        refs = [write_jpeg(Path(folder), row) for row in range(32)]
        backbone = make_learner("vilt", "snli_ve").backbone
        cast(Any, backbone).images = ImageFiles()
        config = cast(Any, backbone).config

        def plain() -> None:
            for ref in refs:
                with Image.open(ref.path) as image:
                    size = fitted(*image.size, config.short_side, config.long_side, config.patch)
                    np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))

        def engine() -> None:
            for start in range(0, len(refs), 8):
                backbone.prepare_images(refs[start : start + 8])

        report("loader", measure({"Pillow": plain, "engine": engine}, repeats), "images", len(refs))


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


def pairs(name: str, examples: list[Example[Caption]], batch: int, repeats: int) -> None:
    """Compare `retrieve` on all pairs of a small gallery with a loop that encodes every pair again."""
    learner = make_learner(name, "coco_retrieval").eval()
    (gallery,) = galleries(examples)
    every = [(ref, text) for ref in gallery.images for text in gallery.texts]
    batches = []
    for start in range(0, len(every), batch):
        refs, texts = zip(*every[start : start + batch], strict=True)
        backbone = learner.backbone
        batches.append((backbone.prepare_images(refs), backbone.prepare_texts(texts)))

    def loop() -> list[Ranking]:
        backbone, head = learner.model, learner.head
        with torch.inference_mode():
            scores = []
            for images, texts in batches:
                slot = torch.zeros(len(texts["mask"]), dtype=torch.int64)
                scores.append(head(backbone.fuse(backbone.see(images, slot), backbone.read(texts))))
        return from_matrix(torch.cat(scores).view(len(gallery.images), -1).numpy(), gallery)

    def engine() -> list[Ranking]:
        return retrieve(learner, examples, make_pace(batch), by_pairs)[0]

    ranks = [[(ranking.rank_low, ranking.rank_high) for ranking in side()] for side in (loop, engine)]
    if ranks[0] != ranks[1]:
        raise SystemExit(f"the sides of {name}'s pairs differ")
    title = f"pairs, {name}, {len(gallery.images)} x {len(gallery.texts)}"
    report(title, measure({"encodes every pair": loop, "engine": engine}, repeats), "pairs", len(every))


def gpu(compiled: bool) -> None:
    """Print pairs per second of ViLT-B/32 in bfloat16, the share of the GPU's peak, and the hours for COCO 5K."""
    learner, examples = make_learner("vilt", "coco_retrieval").cuda().eval(), gallery_of(64, 5)
    (gallery,) = galleries(examples)
    backbone = learner.backbone
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        seen = backbone.see(
            to_gpu(backbone.prepare_images(gallery.images[:4])), torch.zeros(4, dtype=torch.int64).cuda()
        )
        backbone.fuse(seen, backbone.read(to_gpu(backbone.prepare_texts(gallery.texts[:4]))))
    operations = counted.get_total_flops() / 4
    if compiled:
        cast(Any, backbone).network.compile(dynamic=True)
    name = torch.cuda.get_device_name()
    peak = next((most for part, most in PEAKS.items() if part in name), None)
    for batch in (64, 256, 1024):
        wanted = make_pace(batch, make_accelerator("cuda", "bfloat16"))
        retrieve(learner, examples, wanted, by_pairs)
        torch.cuda.synchronize()
        started = time.perf_counter()
        retrieve(learner, examples, wanted, by_pairs)
        rate = len(gallery.images) * len(gallery.texts) / (time.perf_counter() - started)
        share = f", {rate * operations / peak:.1%} of {peak / 1e12:.0f} TFLOP/s" if peak else ""
        how = f"{name}, batch {batch}{', compiled' if compiled else ''}"
        print(f"gpu, {how}: {rate:,.0f} pairs/s of {operations / 1e9:.1f} GFLOP{share}")
        print(f"gpu, {how}: COCO 5K in {COCO_5K / rate / 3600:.1f} hours")


def to_gpu(tensors: Tensors) -> Tensors:
    """The tensors on the GPU."""
    return {name: value.cuda() for name, value in tensors.items()}


if __name__ == "__main__":
    main()
