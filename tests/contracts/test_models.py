"""What every model on disk keeps: an answer depends on its own pictures and text, and on nothing else.

Run with the size `tiny` over the tiny world, by the code that a run goes through.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vlbench import catalog
from vlbench.core.backbone import Fitted, Following, LowPrecision
from vlbench.core.batch import PairBatch, whole_block
from vlbench.core.examples import Caption, Example, ImageRef, Label
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.source import StoredRegions
from vlbench.data.resources import Resources
from vlbench.engine.job import plan
from vlbench.engine.learner import Learner
from vlbench.engine.resources import make_resources, resource_spec, unique_refs
from vlbench.engine.weights.loading import load_weights
from vlbench.heads.build import build_head
from vlbench.heads.dual import DualHead
from vlbench.heads.forward import encode_pairs, fuse
from vlbench.models.layers.momentum import MomentumCopy

FOLDERS = catalog.model_folders()
NEEDED = {"__init__.py", "model.yaml", "backbone.py", "README.md"}
ALSO_KNOWN = {"modeling.py", "pretraining.py", "checkpoint.py", "tiny.safetensors", "tiny.json"}
BERT_WORDS, BUTD_NUMBERS = 30_522, 2_048
"""What a size of the papers' is counted with: bert-base-uncased's vocabulary, bottom-up-attention's features."""

every_model = pytest.mark.parametrize("name", FOLDERS)


@dataclass(frozen=True)
class Tiny:
    """A model of size tiny with a head for a task that both it and the world know, and examples of that task."""

    learner: Learner
    resources: Resources
    examples: Sequence[Example[Any]]
    labels: tuple[str, ...]

    def batch(self, examples: Sequence[Example[Any]], *, targets: bool = False) -> PairBatch:
        rows, learner = range(len(examples)), self.learner
        batch = learner.head.collate(examples, rows, learner.model, whole_block(rows, "") if targets else None)
        assert isinstance(batch, PairBatch)
        return batch

    @torch.inference_mode()
    def logits(self, examples: Sequence[Example[Any]], *, targets: bool = False) -> Tensor:
        result: Tensor = self.learner(self.batch(examples, targets=targets)).logits
        # Two towers score every picture of a batch with every text; a row here is an example with its own.
        return result.diagonal() if isinstance(self.learner.head, DualHead) else result


@pytest.fixture(scope="module", params=FOLDERS)
def tiny(request: pytest.FixtureRequest, tiny_world: Any) -> Iterator[Tiny]:
    """The weights are large, so that what counts at all shows."""
    task = "nlvr2" if "pair" in catalog.model_card(request.param).outputs else "flickr30k_retrieval"
    job = plan(RunSpec(task=task, model=request.param, size="tiny", data_root=tiny_world), Silent())
    resources = make_resources(resource_spec(job), Silent())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = catalog.load_model(job.card, job.size, resources)
        learner = Learner(backbone, build_head(job.task.card, job.card, backbone.width, job.labels, job.spec.train))
        for parameter in learner.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)
        if isinstance(backbone, Fitted):
            backbone.fit(unique_refs(job.train))
        yield Tiny(learner.eval(), resources, job.report, job.task.card.labels)


@every_model
def test_a_folder_is_complete(name: str) -> None:
    files = {path.name for path in FOLDERS[name].iterdir() if path.is_file()}
    assert files >= NEEDED
    assert files <= NEEDED | ALSO_KNOWN


@every_model
def test_a_card_is_sane(name: str) -> None:
    card = catalog.model_card(name)
    assert card.name == name
    assert card.sizes.keys() >= {"tiny", "base"}
    assert set(card.recipes) - {"default", "pretrain"} <= catalog.task_folders().keys()
    assert all([card.title, card.description, card.paper, card.licence, card.outputs])
    for size in card.sizes:
        recipe = card.recipe("nlvr2", size)
        assert None not in (recipe.optimizer, recipe.lr, recipe.batch_size)
        assert recipe.steps or recipe.epochs


@every_model
def test_parameters_are_those_of_the_card(name: str) -> None:
    card = catalog.model_card(name)
    for size, facts in card.sizes.items():
        if facts.parameters is None:
            continue
        text = SimpleNamespace(vocab_size=BERT_WORDS, max_length=facts.max_text)
        with torch.device("meta"):
            model = catalog.load_model(card, size, Resources(text, None, SimpleNamespace(dim=BUTD_NUMBERS)))
        assert sum(parameter.numel() for parameter in model.parameters()) == facts.parameters


def test_neighbours_do_not_count(tiny: Tiny) -> None:
    examples = tiny.examples[:8]
    together = tiny.logits(examples)
    alone = torch.cat([tiny.logits([example]) for example in examples])
    assert together.std() > 1e-2
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_order_does_not_count(tiny: Tiny) -> None:
    examples = tiny.examples[:12]
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = tiny.logits([examples[row] for row in order])
    torch.testing.assert_close(shuffled, tiny.logits(examples)[order], rtol=0, atol=1e-5)


def test_padding_does_not_count(tiny: Tiny) -> None:
    short = min(tiny.examples, key=lambda example: _numbers(tiny.batch([example])))
    # Every picture of the split, and a text beyond the longest that the model takes, stand beside it.
    text = " ".join(dict.fromkeys(example.query.text for example in tiny.examples))
    others = [replace(example, query=replace(example.query, text=text)) for example in tiny.examples]
    alone, together = tiny.batch([short]), tiny.batch([short, *others])
    if tiny.resources.regions is not None:
        assert together.texts["mask"].shape[1] > alone.texts["mask"].shape[1]
        assert together.images["mask"].shape[1] > alone.images["mask"].shape[1]
    torch.testing.assert_close(tiny.logits([short, *others])[0], tiny.logits([short])[0], rtol=0, atol=1e-5)


def test_evaluation_is_deterministic(tiny: Tiny) -> None:
    examples = tiny.examples[:8]
    assert torch.equal(tiny.logits(examples), tiny.logits(examples))


def test_evaluation_changes_nothing(tiny: Tiny) -> None:
    before = {name: value.clone() for name, value in tiny.learner.state_dict().items()}
    tiny.logits(tiny.examples[:8])
    assert all(torch.equal(before[name], value) for name, value in tiny.learner.state_dict().items())


def test_training_mode_is_left_without_a_trace(tiny: Tiny) -> None:
    plain = tiny.logits(tiny.examples[:8])
    tiny.learner.train()
    followers = list(tiny.learner.backbone.following()) if isinstance(tiny.learner.backbone, Following) else []
    running = [module for module in tiny.learner.modules() if isinstance(module, nn.BatchNorm2d) or module in followers]
    assert not any(module.training for module in running), "what has running statistics keeps them"
    assert all(module.training for module in tiny.learner.modules() if module not in running)
    tiny.learner.eval()
    assert torch.equal(tiny.logits(tiny.examples[:8]), plain)


def test_bfloat16_sees_much_the_same(tiny: Tiny) -> None:
    """With the weights it comes with: half of the examples move by less than a tenth of what sets them apart."""
    card = catalog.model_card(_name(tiny.learner))
    backbone = catalog.load_model(card, "tiny", tiny.resources)
    learner = nn.ModuleDict({"backbone": backbone}).eval()
    if weights := catalog.shipped_weights(card.name, "tiny"):
        load_weights(learner, weights)
    elif isinstance(backbone, Fitted):
        backbone.fit(unique_refs(tiny.examples))
    batch = tiny.batch(tiny.examples[:32])

    def pooled() -> Tensor:
        seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
        return backbone.fuse(seen, backbone.read(batch.texts).take(batch.text_rows)).pooled.float()

    with torch.inference_mode():
        exact = pooled()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = [pooled()]
            if isinstance(backbone, LowPrecision):
                buffers = [(value.dtype, value.clone()) for value in backbone.buffers()]
                backbone.lower(torch.bfloat16)
                rounded.append(pooled())
                assert [value.dtype for value in backbone.buffers()] == [dtype for dtype, _ in buffers]
                assert all(map(torch.equal, backbone.buffers(), [value for _, value in buffers]))
    apart = (exact - exact.mean(dim=0)).norm(dim=1).median()
    assert apart > 1e-3
    assert all((values - exact).norm(dim=1).median() < apart / 10 for values in rounded)


def test_what_was_seen_and_read_can_be_used_again(tiny: Tiny) -> None:
    backbone = tiny.learner.backbone
    one, other = tiny.examples[0].query, tiny.examples[8].query
    a, b = (one.images + other.images)[:2]
    s, t = one.text, other.text
    with torch.inference_mode():
        seen = backbone.see(backbone.prepare_images([a, b]), torch.tensor([0, 1]))
        read = backbone.read(backbone.prepare_texts([s, t]))
        reused = backbone.fuse(seen.take(torch.tensor([0, 0, 1, 1])), read.take(torch.tensor([0, 1, 0, 1])))
        pictures = backbone.see(backbone.prepare_images([a, a, b, b]), torch.tensor([0, 0, 1, 1]))
        separate = backbone.fuse(pictures, backbone.read(backbone.prepare_texts([s, t, s, t])))
    assert reused.pooled.shape == (4, backbone.width)
    assert reused.pooled.std(dim=0).max() > 1e-2
    for field in ("pooled", "text", "visual"):
        torch.testing.assert_close(getattr(reused, field), getattr(separate, field), rtol=0, atol=1e-5)


def test_pooled_alone_is_the_pooled_of_all_features(tiny: Tiny) -> None:
    backbone, batch = tiny.learner.model, tiny.batch(tiny.examples[:8])
    visual, textual = encode_pairs(backbone, batch)
    offered = "pooled_only" in inspect.signature(backbone.fuse).parameters
    with torch.inference_mode():
        whole, alone = (fuse(backbone, visual, textual, pooled_only) for pooled_only in (False, True))
    torch.testing.assert_close(alone.pooled, whole.pooled, rtol=0, atol=1e-5)
    assert (alone.text.shape[1] == 0) == offered
    tiny.learner.train()
    try:
        with torch.random.fork_rng():
            drawn = [torch.manual_seed(0) and fuse(backbone, visual, textual, one) for one in (False, True)]
    finally:
        tiny.learner.eval()
    assert torch.equal(drawn[0].pooled, drawn[1].pooled), "dropout in training draws the same numbers"
    assert torch.equal(drawn[0].text, drawn[1].text)


def test_features_have_the_promised_shapes(tiny: Tiny) -> None:
    backbone = tiny.learner.backbone
    query = tiny.examples[0].query
    with torch.inference_mode():
        seen = backbone.see(backbone.prepare_images(query.images), torch.arange(len(query.images)))
        read = backbone.read(backbone.prepare_texts([query.text] * len(query.images)))
        features = backbone.fuse(seen, read)
    assert features.pooled.shape == (len(query.images), backbone.width)
    for states, mask in ((features.text, features.text_mask), (features.visual, features.visual_mask)):
        assert states.shape[:2] == mask.shape
        assert mask.dtype == torch.bool


def test_answers_cannot_reach_a_model(tiny: Tiny) -> None:
    backbone, head = tiny.learner.backbone, tiny.learner.head
    doors = (backbone.prepare_images, backbone.prepare_texts, backbone.see, backbone.read, backbone.fuse)
    asked = [list(inspect.signature(door).parameters) for door in doors]
    assert asked[:-1] == [["refs"], ["texts"], ["images", "slot"], ["texts"]]
    assert asked[-1] in (["seen", "read"], ["seen", "read", "pooled_only"])

    examples = tiny.examples[:8]
    lied_to = [replace(example, reference=_lie(example.reference, tiny.labels)) for example in examples]
    assert not torch.equal(head.targets(examples), head.targets(lied_to))
    plain = tiny.logits(examples)
    assert torch.equal(plain, tiny.logits(examples, targets=True))
    assert torch.equal(plain, tiny.logits(lied_to, targets=True))


def test_gradients_reach_every_parameter(tiny: Tiny) -> None:
    """Those they do not reach stand in the model's README, as patterns of names (`part.of.it.*`)."""
    learner = tiny.learner
    learner.zero_grad()
    learner(tiny.batch(tiny.examples[:8], targets=True)).loss.backward()
    idle = {
        name
        for name, parameter in learner.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    }
    learner.zero_grad()
    readme = (FOLDERS[_name(learner)] / "README.md").read_text(encoding="utf8")
    excused = [f"backbone.{pattern}" for pattern in re.findall(r"`([\w.]+\*)`", readme)]
    assert idle == {name for name, _ in learner.named_parameters() if any(fnmatch(name, p) for p in excused)}


def test_a_momentum_copy_shares_what_is_not_weights(tiny: Tiny) -> None:
    followed = MomentumCopy(tiny.learner, 0.9).module
    for one, other in zip(tiny.learner.parameters(), followed.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    held = [value for value in vars(tiny.resources).values() if value is not None]
    for module, copied in zip(tiny.learner.modules(), followed.modules(), strict=True):
        for attribute, value in vars(module).items():
            if any(value is thing for thing in held):
                assert vars(copied)[attribute] is value


def _numbers(batch: PairBatch) -> int:
    """How many numbers a batch's pictures and texts are made into."""
    return sum(value.numel() for prepared in (batch.images, batch.texts) for value in prepared.values())


def _lie(reference: Label | Caption, labels: Sequence[str]) -> Label | Caption:
    """The label after the true one; of captions, that all are of one picture."""
    if isinstance(reference, Caption):
        return Caption("one")
    return Label(labels[(labels.index(reference.value) + 1) % len(labels)])


def _name(learner: Learner) -> str:
    """The folder that a model's class lies in."""
    return type(learner.backbone).__module__.split(".")[-2]


ODD_SIZES = {"dot": (1, 1), "strip": (20_000, 10), "column": (10, 20_000), "plain": (48, 48)}
ODD_TEXTS = {
    "empty": "",
    "blank": " \t\n",
    "long": "red square " * 5_000,
    "unknown": "\u2603\U0001f600 \u65e5\u672c",
    "marked": "[CLS] [SEP] [MASK] [PAD]",
    "broken": "\x00\ufffd",
}


@pytest.fixture(scope="module")
def odd_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    folder = tmp_path_factory.mktemp("odd")
    refs = []
    for name, size in ODD_SIZES.items():
        Image.effect_noise(size, 50).convert("RGB").save(folder / f"{name}.png")
        refs.append(ImageRef(folder / f"{name}.png", name))
    return refs


def test_odd_pictures_and_texts_have_answers(tiny: Tiny, odd_pictures: list[ImageRef]) -> None:
    """Each is finite and, beside every other, the same as alone."""
    regions = None if tiny.resources.regions is None else StoredRegions([], FlatExtractor())
    resources = replace(tiny.resources, regions=regions)
    backbone = catalog.load_model(catalog.model_card(_name(tiny.learner)), "tiny", resources)
    backbone.load_state_dict(tiny.learner.backbone.state_dict())
    backbone.eval()

    def pooled(refs: Sequence[ImageRef], texts: Sequence[str]) -> Tensor:
        with torch.inference_mode():
            seen = backbone.see(backbone.prepare_images(refs), torch.zeros(len(refs), dtype=torch.int64))
            return backbone.fuse(seen, backbone.read(backbone.prepare_texts(texts))).pooled

    pairs = [(ref, text) for ref in odd_pictures for text in ODD_TEXTS.values()]
    together = pooled([ref for ref, _ in pairs], [text for _, text in pairs])
    assert together.isfinite().all()
    alone = torch.cat([pooled([ref], [text]) for ref, text in pairs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
