"""What the engine costs and what it saves, on base models with random weights over noise.

Run as `python benchmarks/engine.py`, or parts of it: `--parts evaluation,finetuning,loader,pairs,gpu`. All in one
process; both sides in turn, which goes first alternates; ratios are of neighbours in time. Pictures are decoded before
anything is timed, but for the loader. Both sides must agree before they are measured.

evaluation, finetuning: the engine's loop over ViLT-B/32, which makes its batches, keeps ids and reports, beside a bare
loop over the same batches, ready. loader: opening and cutting JPEG files beside Pillow alone. pairs: retrieval's all
pairs beside a loop that sees, reads and fuses every pair. gpu: ViLT-B/32 in bfloat16, where there is a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageFilter
from sides import PICTURES, Boxes, Drawn, measure, pictures, ratios, sentences, spread
from torch.utils.flop_counter import FlopCounterMode

from vlbench import catalog
from vlbench.core.backbone import Tensors
from vlbench.core.cards import Recipe
from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.core.gallery import galleries
from vlbench.core.progress import Silent
from vlbench.core.results import Ranking
from vlbench.data.images.load import Pictures
from vlbench.data.images.patches import fitted
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.batching.batches import Batch, Batches, sequential_blocks
from vlbench.engine.evaluators.learner import Learner
from vlbench.engine.evaluators.predict import predict
from vlbench.engine.evaluators.retrieval import retrieve
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.build import build_head
from vlbench.metrics.ranks import from_matrix

PARTS = ("evaluation", "finetuning", "loader", "pairs", "gpu")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "V100": 125e12}
"""Dense bfloat16 operations a second by the makers' data sheets (float16 for the V100)."""
COCO_5K = 5_000 * 25_010


def main() -> None:
    """Measure the parts asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--models", default="cvlp,vilt,soho", help="of the part pairs")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=2, help="of the part evaluation, in a repeat")
    parser.add_argument("--pictures", type=int, default=4, help="of the part pairs")
    parser.add_argument("--texts", type=int, default=8, help="of the part pairs, to each picture")
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
            pairs(name, gallery_of(wanted.pictures, wanted.texts), wanted.batch, wanted.repeats)
    if "gpu" in chosen and torch.cuda.is_available():
        gpu(wanted.compile)


def make_learner(name: str, task: str) -> Learner:
    """The model's base size with random weights, under the task's head."""
    torch.manual_seed(0)
    card = catalog.model_card(name)
    text = TextEncoder.train(sentences(500), 4000, card.sizes["base"].max_text)
    backbone = catalog.load_model(card, "base", Resources(text, Drawn(), Boxes()))
    task_card = catalog.task_card(task)
    head = build_head(task_card, card, backbone.width, task_card.labels or (), card.recipe(task, "base"))
    return Learner(backbone, head)


def statements(count: int) -> list[Example[Caption]]:
    """One picture and one text each."""
    of = zip(pictures(count), sentences(count), strict=True)
    return [Example(f"{row}", Query((ref,), text), Caption(ref.key, ""), ref.key) for row, (ref, text) in enumerate(of)]


def pace(batch: int, accelerator: Accelerator | None = None) -> Pace:
    """No workers, nothing shown."""
    return Pace(accelerator or make_accelerator("cpu", "float32"), batch, 0, Silent(), Interrupt(), "measuring")


def report(title: str, seconds: dict[str, list[float]], unit: str, amount: float) -> None:
    """Time of both sides for an amount of work, what that is in a second, and their ratio."""
    for name, taken in seconds.items():
        print(f"{title}, {name}: {spread(taken)} CPU-s, {spread([amount / one for one in taken])} {unit} a CPU-second")
    print(f"{title}: {' / '.join(seconds)} {spread(ratios(seconds))}")


def evaluation(batch: int, batches: int, repeats: int) -> None:
    """`predict` beside a loop over ready batches."""
    learner = make_learner("vilt", "snli_ve").eval()
    examples = statements(batch * batches)
    ready = Batches(examples, sequential_blocks(len(examples), batch), learner.parts[0])
    made = [ready[number] for number in range(len(ready))]

    def bare() -> list[int]:
        with torch.inference_mode():
            return [answer for one in made for answer in learner(one).logits.argmax(dim=1).tolist()]

    def engine() -> list[int]:
        found, _ = predict(learner, examples, pace(batch))
        labels = catalog.task_card("snli_ve").labels or ()
        return [labels.index(one.answer) for one in found]

    if bare() != engine():
        raise SystemExit("the two sides of the evaluation differ")
    report("evaluation", measure({"bare loop": bare, "engine": engine}, repeats), "examples", len(examples))


class Enough(Exception):
    """Ends a training that is only measured, before it saves anything."""


def finetuning(batch: int, repeats: int) -> None:
    """The engine's optimizer steps, each followed by one of a bare loop over the same rows with a model of its own."""
    learner, other = (without_dropout(make_learner("vilt", "snli_ve")).train() for _ in range(2))
    changes = Recipe(steps=repeats + 2, batch_size=batch, accumulation=1, evaluations=1, augment="none")
    recipe = catalog.model_card("vilt").recipe("snli_ve", "base").merged(changes)
    examples = [replace(one, reference=Label("neutral")) for one in statements(4 * batch)]
    accelerator, plan = make_accelerator("cpu", "float32"), make_plan(recipe, training_units(recipe, examples), 0)
    nowhere = Checkpoints(Path("nothing-is-saved"), None, {}, ())
    training = Finetuning(learner, examples, plan, accelerator, nowhere, 0, Conduct())
    batches = Batches(examples, training.steps.blocks, *other.parts)
    bare = BareTraining(other, [batches[number] for number in range(len(batches))], float(recipe.lr or 0))
    seconds: dict[str, list[float]] = {"bare loop": [], "engine": []}
    started = time.process_time()

    def after_a_step(line: dict[str, float | int | str]) -> None:
        nonlocal started
        done = time.process_time()
        loss = bare.step()
        if line["step"] == 1 and abs(float(line["loss"]) - loss) > 1e-4:
            raise SystemExit(f"the two sides of the finetuning differ: losses {line['loss']} and {loss}")
        if line["step"] != 1:  # the first step of either makes the optimizer's state
            seconds["engine"].append(done - started)
            seconds["bare loop"].append(time.process_time() - done)
        if len(seconds["engine"]) == repeats:
            raise Enough
        started = time.process_time()

    with contextlib.suppress(Enough):
        training.run(None, after_a_step, Silent(), Interrupt(), "measuring")
    report("finetuning", seconds, "examples", batch)


@dataclass
class BareTraining:
    """The plainest loop: forward, backward, clip, step."""

    learner: Learner
    batches: list[Batch]
    rate: float

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.learner.parameters(), lr=self.rate)

    def step(self) -> float:
        """One optimizer step; the loss."""
        loss = self.learner(self.batches.pop(0)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def without_dropout(learner: Learner) -> Learner:
    """The same, repeatable while it is trained."""
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return learner


def loader(repeats: int) -> None:
    """A model's `prepare_images` over JPEG files beside Pillow's decoding and resizing to the same sizes."""
    with tempfile.TemporaryDirectory() as folder:
        refs = [jpeg(Path(folder), row) for row in range(32)]
        backbone = make_learner("vilt", "snli_ve").parts[0]
        cast(Any, backbone).images = Pictures()
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


def jpeg(folder: Path, row: int) -> ImageRef:
    """A file of a COCO picture's size and detail: blurred noise, about 100 to 200 KB."""
    width, height = PICTURES[row % len(PICTURES)]
    noise = np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)
    path = folder / f"{row}.jpg"
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)).save(path, quality=90)
    return ImageRef(path, str(row))


def gallery_of(count: int, each: int) -> list[Example[Caption]]:
    """So many pictures with so many texts each."""
    refs, texts = pictures(count), sentences(each * count)
    owners = [refs[row // each] for row in range(len(texts))]
    of = enumerate(zip(owners, texts, strict=True))
    return [Example(f"{row}", Query((ref,), text), Caption(ref.key, ""), ref.key) for row, (ref, text) in of]


def pairs(name: str, examples: list[Example[Caption]], batch: int, repeats: int) -> None:
    """All pairs of a small gallery through `retrieve`, beside a loop that encodes every pair anew."""
    learner = make_learner(name, "coco_retrieval").eval()
    (gallery,) = galleries(examples)
    every = [(ref, text) for ref in gallery.images for text in gallery.texts]
    batches = []
    for start in range(0, len(every), batch):
        refs, texts = zip(*every[start : start + batch], strict=True)
        backbone = learner.parts[0]
        batches.append((backbone.prepare_images(refs), backbone.prepare_texts(texts)))

    def loop() -> list[Ranking]:
        backbone, head = learner.parts
        with torch.inference_mode():
            scores = []
            for images, texts in batches:
                slot = torch.zeros(len(texts["mask"]), dtype=torch.int64)
                scores.append(head(backbone.fuse(backbone.see(images, slot), backbone.read(texts))))
        return from_matrix(torch.cat(scores).view(len(gallery.images), -1).numpy(), gallery)

    def engine() -> list[Ranking]:
        return retrieve(learner, examples, pace(batch))[0]

    places = [[(one.rank_low, one.rank_high) for one in side()] for side in (loop, engine)]
    if places[0] != places[1]:
        raise SystemExit(f"the two sides of {name}'s pairs differ")
    title = f"pairs, {name}, {len(gallery.images)} x {len(gallery.texts)}"
    report(title, measure({"encodes every pair": loop, "engine": engine}, repeats), "pairs", len(every))


def gpu(compiled: bool) -> None:
    """Pairs a second of ViLT-B/32 in bfloat16, what share of the GPU's operations that is, and COCO 5K's hours."""
    learner, examples = make_learner("vilt", "coco_retrieval").cuda().eval(), gallery_of(64, 5)
    (gallery,) = galleries(examples)
    backbone = learner.parts[0]
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        seen = backbone.see(
            on_gpu(backbone.prepare_images(gallery.images[:4])), torch.zeros(4, dtype=torch.int64).cuda()
        )
        backbone.fuse(seen, backbone.read(on_gpu(backbone.prepare_texts(gallery.texts[:4]))))
    operations = counted.get_total_flops() / 4
    if compiled:
        cast(Any, backbone).network.compile(dynamic=True)
    name = torch.cuda.get_device_name()
    peak = next((most for part, most in PEAKS.items() if part in name), None)
    for batch in (64, 256, 1024):
        wanted = pace(batch, make_accelerator("cuda", "bfloat16"))
        retrieve(learner, examples, wanted)
        torch.cuda.synchronize()
        started = time.perf_counter()
        retrieve(learner, examples, wanted)
        rate = len(gallery.images) * len(gallery.texts) / (time.perf_counter() - started)
        share = f", {rate * operations / peak:.1%} of {peak / 1e12:.0f} TFLOP/s" if peak else ""
        how = f"{name}, batch {batch}{', compiled' if compiled else ''}"
        print(f"gpu, {how}: {rate:,.0f} pairs/s of {operations / 1e9:.1f} GFLOP{share}")
        print(f"gpu, {how}: COCO 5K in {COCO_5K / rate / 3600:.1f} hours")


def on_gpu(tensors: Tensors) -> Tensors:
    """The same tensors there."""
    return {name: value.cuda() for name, value in tensors.items()}


if __name__ == "__main__":
    main()
