"""SOHO against numbers of the official code (tests/golden/soho); weights load as `--checkpoint FILE` loads them.

The paper's own update of the dictionary has no released code; test_soho_dictionary.py computes it in plain loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlbench.core.backbone import Features
from vlbench.core.cards import ModelCard, SizeCard
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.heads.classify import SoftHead
from vlbench.models.soho.backbone import SOHO
from vlbench.models.soho.checkpoint import convert
from vlbench.models.soho.modeling import Dictionary, SOHONetwork
from vlbench.models.soho.pretraining import SOHOPretraining

Case = Any
Golden = Callable[[str, str], Case]
TOKENS = {"SimpleVDforPreGate": "gated", "SimpleVDforVQA": "none"}
"""What stands for a cell in the official necks."""


def size_of(card: ModelCard, config: dict[str, Any], **changes: str) -> SizeCard:
    """The released size of our card with the numbers of a case."""
    neck, bert, official = config["neck"], config["bert"], card.sizes["official"]
    assert config["resnet"]["depth"] == 18 and config["resnet"]["stem_channels"] == config["resnet"]["base_channels"]
    assert official.config["resnet"] == "resnet18" and official.config["neck_epsilon"] == neck["layer_norm_eps"]
    ours = {
        "channels": config["resnet"]["base_channels"],
        "token": TOKENS[neck["type"]],
        "entries": neck.get("num_tokens", 1),
        "decay": neck.get("decay", 0.4),
        "layers": bert["num_hidden_layers"],
        "width": bert["hidden_size"],
        "heads": bert["num_attention_heads"],
        "inner": bert["intermediate_size"],
        "positions": bert["max_position_embeddings"],
    }
    assert neck["out_channels"] == bert["hidden_size"] and neck["in_channels"] == 8 * config["resnet"]["base_channels"]
    return official.model_copy(update={"config": official.config | ours | changes})


@dataclass(frozen=True)
class Loading:
    """Builds the network of a case by our card, and loads the case's weights into it."""

    card: ModelCard
    resources: Resources
    folder: Path

    def of(self, case: Case, **changes: str) -> ModelCard:
        return self.card.model_copy(update={"sizes": {"golden": size_of(self.card, case.config, **changes)}})

    def file(self, case: Case) -> Path:
        """As the released files hold them."""
        path = self.folder / "epoch_40.pth"
        state = {f"module.{key}": value for key, value in case.weights.items()}
        torch.save({"meta": {"epoch": 40}, "state_dict": state, "optimizer": {}}, path)
        return path

    def pretraining(self, case: Case, **changes: str) -> SOHOPretraining:
        """In evaluation mode, all of its weights from the case's file."""
        card = self.of(case, **changes)
        module = SOHOPretraining.from_card(card, "golden", self.resources, {})
        report = load_weights(module, self.file(case), Wanted(card))
        assert (report.missing, report.unexpected, report.absent) == (0, 0, ())
        return module.eval()


@pytest.fixture
def loading(
    card_of: Callable[[str], ModelCard],
    resources: Resources,
    vocabulary_of: Callable[[int, int], TextEncoder],
    tmp_path: Path,
) -> Loading:
    """With a vocabulary as long as the cases'."""
    text = vocabulary_of(300, 16)
    return Loading(card_of("soho"), replace(resources, words=text, regions=None), tmp_path)


def canvas(inputs: Mapping[str, Tensor]) -> Tensor:
    """The images as the network takes them: every pixel repeated 4 x 4, cut to its size, on a canvas of whole steps."""
    sizes = inputs["sizes"]
    height, width = ((sizes.amax(0) + 31) // 32 * 32).tolist()
    large = inputs["small"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    pixels = torch.zeros(len(large), 3, height, width, dtype=torch.uint8)
    for row, (own_height, own_width) in enumerate(sizes.tolist()):
        pixels[row, :, :own_height, :own_width] = large[row, :, :own_height, :own_width]
    return pixels


@torch.no_grad()
def forward(network: SOHONetwork, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every output of the network that a case may hold, by its name there."""
    maps: list[Tensor] = []
    handle = network.resnet.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    looked = network.look(canvas(inputs), inputs["sizes"])
    handle.remove()
    tokens, mask = network.neck.place(looked.tokens, looked.mask), looked.mask.flatten(1)
    text, visual = network.fuse(network.embeddings(inputs["ids"]), inputs["text_mask"].bool(), tokens, mask)
    found = {"map": maps[0], "tokens": tokens, "visual_mask": mask, "text": text, "visual": visual}
    return found if looked.codes is None else found | {"codes": looked.codes}


@pytest.mark.parametrize(
    ("name", "padding"),
    [("square", "official"), ("landscape", "official"), ("portrait", "official"), ("mixed", "shared")],
)
def test_the_pretrained_network(golden_case: Golden, loading: Loading, name: str, padding: str) -> None:
    """`official` is the official code with one image a batch; `mixed` holds two of different sizes."""
    case = golden_case("soho", name)
    module = loading.pretraining(case, padding=padding)
    network, words = module.backbone.network, case.inputs["text_mask"].bool()
    found = forward(network, case.inputs)
    found["match_logits"] = module.matching(found["text"][:, 0])
    found["word_logits"] = found["text"] @ network.embeddings.word_embeddings.weight.T
    for part in case.outputs:
        case.assert_close(part, found[part], words if part in ("text", "word_logits") else None)


@pytest.mark.parametrize("name", ["square", "landscape", "portrait"])
def test_the_released_size_counts_cells_as_released(golden_case: Golden, loading: Loading, name: str) -> None:
    case = golden_case("soho", name)
    assert loading.card.sizes["official"].config["padding"] == "official"
    case.assert_close("visual_mask", forward(loading.pretraining(case).backbone.network, case.inputs)["visual_mask"])


def test_exact_padding_sees_all_of_a_portrait(golden_case: Golden, loading: Loading) -> None:
    """Which is a choice of its own: the official code masks the last of this image's four columns."""
    case = golden_case("soho", "portrait")
    mask = forward(loading.pretraining(case, padding="exact").backbone.network, case.inputs)["visual_mask"]
    assert bool(mask.all()) and not bool(case.outputs["visual_mask"].all())


def test_the_largest_image_of_a_batch_is_as_alone(golden_case: Golden, loading: Loading) -> None:
    """With `official` padding no value of the canvas reaches an image, so rows do not depend on their neighbours."""
    case = golden_case("soho", "mixed")
    network = loading.pretraining(case, padding="official").backbone.network
    both = forward(network, case.inputs)
    torch.testing.assert_close(both["tokens"][0], case.outputs["tokens"][0], atol=case.absolute, rtol=case.relative)
    alone = forward(network, {name: value[1:] for name, value in case.inputs.items()})
    real = both["tokens"][1][both["visual_mask"][1]]
    torch.testing.assert_close(real, alone["tokens"][0][alone["visual_mask"][0]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["losses_square", "losses_landscape"])
def test_losses_of_pretraining(
    golden_case: Golden, loading: Loading, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden cells are given; which they are is drawn here by `_hidden` alone."""
    case = golden_case("soho", name)
    module, inputs = loading.pretraining(case), case.inputs
    hidden = case.outputs["visual_labels"] >= 0
    assert bool(hidden.any(1).all())
    monkeypatch.setattr(module, "_hidden", lambda codes, mask, seed: hidden)
    tokens: list[Tensor] = []
    visual: list[Tensor] = []
    module.backbone.network.neck.norm.register_forward_hook(lambda _module, _inputs, output: tokens.append(output))
    real_logits = module._entry_logits
    monkeypatch.setattr(module, "_entry_logits", lambda states: visual.append(states) or real_logits(states))
    batch = {
        "pixels": canvas(inputs),
        "sizes": inputs["sizes"],
        "image_rows": torch.arange(len(inputs["ids"])),
        "ids": inputs["ids"],
        "text_mask": inputs["text_mask"].bool(),
        "labels": inputs["labels"],
        "matched": inputs["matched"].bool(),
        "mask_seed": torch.tensor(0),
    }
    with torch.no_grad():
        losses = module.losses(batch)
        cosines = real_logits(visual[0])
    for part in ("mlm", "mvm", "itm"):
        case.assert_close(part, losses[part])
    case.assert_close("tokens", tokens[0])
    torch.testing.assert_close(cosines, case.outputs["entry_cosines"][hidden], atol=case.absolute, rtol=case.relative)
    with torch.no_grad():
        looked = module.backbone.network.look(batch["pixels"], batch["sizes"])
    assert looked.codes is not None
    assert torch.equal(looked.codes[hidden], case.outputs["visual_labels"][hidden])
    for row, codes in enumerate(looked.codes):
        assert torch.equal(hidden[row], codes == codes[hidden[row]][0]), "all cells of one entry are hidden together"


def test_the_network_finetuned_for_vqa_with_its_head(golden_case: Golden, loading: Loading) -> None:
    case = golden_case("soho", "vqa")
    card = loading.of(case)
    backbone = SOHO.from_card(card, "golden", loading.resources)
    answers = tuple(f"answer {number}" for number in range(case.config["head"]["answers"]))
    learner = Learner(backbone, SoftHead(backbone.width, answers, card.head_layout("golden")))
    report = load_weights(learner, loading.file(case), Wanted(card, with_head=True, answers=answers))
    assert (report.missing, report.unexpected, report.absent) == (0, 0, ())
    assert report.converted == report.matched
    found = forward(learner.eval().backbone.network, case.inputs)
    pooled = found["text"][:, 0]
    none, mask = pooled[:, :0, None], torch.zeros(len(pooled), 0, dtype=torch.bool)
    found["logits"] = learner.head(Features(pooled, none, none, mask, mask))
    for part in case.outputs:
        case.assert_close(part, found[part], case.inputs["text_mask"].bool() if part == "text" else None)


@pytest.mark.parametrize("name", ["dictionary", "dictionary_continued"])
def test_three_steps_of_the_dictionary(golden_case: Golden, name: str) -> None:
    """From a new model's buffers and from those of an official file, through the names of that file."""
    case = golden_case("soho", name)
    config, inputs = case.config, case.inputs
    buffers = {f"neck.vq.{part}": inputs[part] for part in ("embed", "cluster_size", "cluster_sum", "embed_avg")}
    converted = convert(buffers)
    assert not converted.unexpected
    begin = "backbone.network.neck.dictionary."
    dictionary = Dictionary(config["num_tokens"], config["token_dim"], "official", config["decay"]).train()
    dictionary.load_state_dict({key.removeprefix(begin): value for key, value in converted.weights.items()})
    found: dict[str, list[Tensor]] = {part: [] for part in ("tokens", "codes", "entries", "cluster_size", "embed_avg")}
    for cells in inputs["cells"]:
        mask = torch.ones(1, len(cells), dtype=torch.bool)
        states = cells[None].clone().requires_grad_()
        tokens, codes = dictionary(states, mask)
        tokens.sum().backward()
        assert states.grad is not None and bool((states.grad == 1).all()), "gradients go straight to the cells"
        after = (tokens[0].detach(), codes[0], dictionary.entries, dictionary.counts, dictionary.sums)
        for part, value in zip(found, after, strict=True):
            found[part].append(value.clone())
    for part, values in found.items():
        case.assert_close(part, torch.stack(values))
    moved = torch.stack(found["tokens"]) - torch.stack([inputs["embed"][codes] for codes in found["codes"]])
    assert moved.abs().max() > 0.1, "the case distinguishes tokens after the move from those before"
