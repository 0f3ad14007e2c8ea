"""BriVL against numbers of the official code (tests/golden/brivl); weights load as `--checkpoint FILE` loads them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlbench.core.cards import ModelCard, SizeCard
from vlbench.core.pretraining import alone
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.heads.dual import DualHead
from vlbench.models.brivl.backbone import BriVL
from vlbench.models.brivl.checkpoint import convert
from vlbench.models.brivl.modeling import TINY
from vlbench.models.brivl.pretraining import BriVLPretraining
from vlbench.models.layers.efficientnet import EfficientNet, Layout, Stage

Case = Any
Golden = Callable[[str, str], Case]


def layout(stem: int, stages: list[list[str]], head: int) -> Layout:
    """EfficientNet's layout from timm's notation: kind_repeats_kernel_stride_expansion_channels_squeeze."""
    numbers = [re.findall(r"[rksec](\d+)", stage) for (stage,) in stages]
    return Layout(stem, tuple(Stage(*(int(number) for number in found[:5])) for found in numbers), head)


def size_of(config: dict[str, Any], **changes: str) -> SizeCard:
    """The sizes of a case as a size of our card."""
    bert = config["bert"]
    stages = json.loads(config["CNN"].partition(": ")[2])
    assert layout(config["stem"], stages, config["IMG_FEATURE_DIM"]) == TINY
    ours: dict[str, int | float | str | bool] = {
        "cnn": "tiny",
        "frozen_stages": 0,
        "side": config["IMG_SIZE"],
        "max_boxes": 36,
        "grid": config["GRID_SIZE"],
        "layers": bert["num_hidden_layers"],
        "frozen_layers": 0,
        "width": bert["hidden_size"],
        "heads": bert["num_attention_heads"],
        "inner": bert["intermediate_size"],
        "positions": bert["max_position_embeddings"],
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "initial_std": 0.02,
        "head_layers": config["IMG_TRANSFORMER_LAYER"],
        "head_heads": config["IMG_TRANSFORMER_HEAD"],
        "head_inner": config["transformer_dim_feedforward"],
        "head_dropout": 0.1,
        "embedding": config["IMG_FEATURE_DIM"],
        "sampling": "official",
    }
    pretraining = {"queue": config["QUEUE_SIZE"], "momentum": config["MOMENTUM"], "temperature": config["TEMPERATURE"]}
    return SizeCard(config=ours | changes, vocabulary="own", max_text=80, pretraining=pretraining)


@pytest.fixture
def card(card_of: Callable[[str], ModelCard]) -> Callable[..., ModelCard]:
    def made(case: Case, **changes: str) -> ModelCard:
        return card_of("brivl").model_copy(update={"sizes": {"golden": size_of(case.config, **changes)}})

    return made


@pytest.fixture
def reading(resources: Resources, vocabulary_of: Callable[[int, int], TextEncoder]) -> Resources:
    """With a vocabulary as long as the cases'."""
    return replace(resources, words=vocabulary_of(300, 80))


def official_file(case: Case, folder: Path) -> Path:
    """As the released file holds them."""
    file = folder / "BriVL-1.0-5500w.pth"
    torch.save({"learnable": {f"module.{key}": value for key, value in case.weights.items()}}, file)
    return file


@pytest.fixture
def load(card: Callable[..., ModelCard], reading: Resources, tmp_path: Path) -> Callable[..., BriVL]:
    """The network of a case in evaluation mode, all of whose weights came from the case's file."""

    def loaded(case: Case, **changes: str) -> BriVL:
        made = card(case, **changes)
        backbone = BriVL.from_card(made, "golden", reading)
        report = load_weights(
            Learner(backbone, DualHead()), official_file(case, tmp_path), Wanted(made, with_head=True)
        )
        assert (report.missing, report.unexpected, report.absent) == (0, 0, ())
        return backbone.eval()

    return loaded


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What each of the modules returns, by name, in one forward pass."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: found.update({name: output})

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    yield found
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_the_image_tower(golden_case: Golden, load: Callable[..., BriVL]) -> None:
    case = golden_case("brivl", "image")
    tower, mask = load(case).network.image, case.inputs["mask"].bool()
    parts = {"map": tower.cnn, "regions": tower.project, "states": tower.head.layers[-1], "embedding": tower.head.fc2}
    with outputs_of(parts) as found:
        found["normalized"] = tower(case.inputs["pixels"], case.inputs["shares"], mask)
    for name in case.outputs:
        case.assert_close(name, found[name], mask if name in ("regions", "states") else None)


@torch.no_grad()
def test_geometric_sampling_is_another_network(golden_case: Golden, load: Callable[..., BriVL]) -> None:
    """The option does something: without it the case's regions are missed by far."""
    case = golden_case("brivl", "image")
    tower, mask = load(case, sampling="geometric").network.image, case.inputs["mask"].bool()
    with outputs_of({"regions": tower.project}) as found:
        tower(case.inputs["pixels"], case.inputs["shares"], mask)
    away = (found["regions"] - case.outputs["regions"])[mask].abs().max()
    assert away > 1000 * case.absolute


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "sampling"), [("text_full", "official"), ("text_full", "geometric"), ("text_padded", "official")]
)
def test_the_text_tower(golden_case: Golden, load: Callable[..., BriVL], name: str, sampling: str) -> None:
    """Padding takes part in BERT's attention, and in nothing after it; without padding both options are one network."""
    case = golden_case("brivl", name)
    tower, mask = load(case, sampling=sampling).network.text, case.inputs["mask"].bool()
    parts = {"bert": tower.layers[-1], "states": tower.head.layers[-1], "embedding": tower.head.fc2}
    with outputs_of(parts) as found:
        found["normalized"] = tower(case.inputs["ids"], mask)
    for part in case.outputs:
        case.assert_close(part, found[part], mask if part in ("bert", "states") else None)


@torch.no_grad()
def test_padding_counts_with_official_sampling_only(golden_case: Golden, load: Callable[..., BriVL]) -> None:
    case = golden_case("brivl", "text_padded")
    ids, mask = case.inputs["ids"], case.inputs["mask"].bool()
    assert not mask.all()
    masking = load(case, sampling="geometric").network.text(ids, mask)
    assert (masking - case.outputs["normalized"]).abs().max() > 100 * case.absolute


@torch.no_grad()
def test_a_text_does_not_depend_on_its_batch(golden_case: Golden, load: Callable[..., BriVL]) -> None:
    """Since padding counts, every text is padded to the longest text of the size."""
    backbone = load(golden_case("brivl", "text_full"))
    long = " ".join(f"word{number}" for number in range(60))
    alone_ids, both = backbone.prepare_texts(["word1 word2"]), backbone.prepare_texts([long, "word1 word2"])
    assert alone_ids["ids"].shape == (1, 80) and both["ids"].shape == (2, 80)
    assert both["mask"].sum(1).tolist() == [62, 4]
    torch.testing.assert_close(backbone.read(alone_ids).states[0], backbone.read(both).states[1], atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_convolutional_network(golden_case: Golden) -> None:
    """Seven stages, as B0 to B7 have; a case of its own, so that only its own tensors are there to be loaded."""
    case = golden_case("brivl", "cnn")
    network = EfficientNet(layout(case.config["stem"], case.config["stages"], case.config["head"]))
    converted = convert({"learnable": {f"imgencoder.backbone.{key}": value for key, value in case.weights.items()}})
    assert not converted.unexpected
    begin = "backbone.network.image.cnn."
    weights = {key.removeprefix(begin): value for key, value in converted.weights.items() if key.startswith(begin)}
    network.load_state_dict(weights)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    case.assert_close("map", network.eval()((case.inputs["pixels"] / 255 - mean) / deviation))


def embedded(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        images: Tensor = network.image(batch["pixels"], batch["boxes"], batch["mask"])
        texts: Tensor = network.text(batch["text_ids"], batch["text_mask"])
    return images, texts


def test_three_steps_of_pretraining(
    golden_case: Golden, card: Callable[..., ModelCard], reading: Resources, tmp_path: Path
) -> None:
    """Losses, queues, and what both kinds of towers embed afterwards.

    The official momentum towers move before they give keys and ours after each step, so theirs after three steps are
    ours before the third move.
    """
    case = golden_case("brivl", "loss")
    made = card(case)
    module = BriVLPretraining.from_card(made, "golden", reading, {})
    report = load_weights(module, official_file(case, tmp_path), Wanted(made))
    assert (report.absent, report.unexpected) == ((), 0)
    module.key.load_state_dict(module.backbone.network.state_dict())  # momentum towers begin as copies
    module.eval()
    for queue, name in ((module.image_queue, "img_queue"), (module.text_queue, "text_queue")):
        queue.rows.copy_(case.inputs[name].T)
    names = {"pixels": "pixels", "shares": "boxes", "mask_images": "mask", "ids": "text_ids", "mask_texts": "text_mask"}
    batches = [{ours: case.inputs[theirs][step] for theirs, ours in names.items()} for step in range(3)]
    batches = [{key: value.bool() if "mask" in key else value for key, value in batch.items()} for batch in batches]
    optimizer = torch.optim.SGD(module.backbone.network.parameters(), lr=0.1)
    losses = []
    for step, batch in enumerate(batches):
        loss = module.losses(batch)["itc"]
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 2:
            keys = embedded(module.key, batches[0])
        module.after_step(alone)
    case.assert_close("losses", torch.stack(losses))
    case.assert_close("img_queue", module.image_queue.rows.T)
    case.assert_close("text_queue", module.text_queue.rows.T)
    images, texts = embedded(module.backbone.network, batches[0])
    for name, value in zip(
        ("image_after", "text_after", "image_key_after", "text_key_after"), (images, texts, *keys), strict=True
    ):
        case.assert_close(name, value)
