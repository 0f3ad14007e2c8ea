"""Objectives against the numbers of UNITER's, ALBEF's and VSE++'s official code (tests/golden/README.md).

Shapes: B pairs, T text tokens, R regions, F numbers per region, C classes, E embedding width, K rows of a queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.cards import Recipe
from vlbench.heads.rank import RankHead
from vlbench.models.layers.attention import attention_mask
from vlbench.models.layers.bert import EncoderLayer
from vlbench.models.layers.convert import substituted
from vlbench.models.layers.crossmodal_checkpoint import _LAYERS
from vlbench.models.layers.momentum import Queue
from vlbench.objectives.hinge import hinge_loss
from vlbench.objectives.itc import Momentum, itc_loss
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.region import mrc_argmax_loss, mrc_kl_loss, mrfr_mse_loss
from vlbench.objectives.wra import wpa_loss


@dataclass(frozen=True)
class Uniter:
    """UNITER's small network, put together from layers of this package: what its losses are taken over.

    It is no model of vlbench yet. That it is UNITER's is shown by its states, which `test_the_network` compares.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any]

    def linear(self, name: str, states: Tensor) -> Tensor:
        return functional.linear(states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, states: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(states, weight.shape, weight, bias, eps=1e-12)

    def transform(self, first: str, second: str, states: Tensor) -> Tensor:
        return self.norm(second, functional.gelu(self.linear(first, states)))

    @torch.no_grad()
    def states(self, given: dict[str, Tensor], ids: Tensor, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Last states of texts [B, T, D] and of regions [B, R, D]; padding stays where it is and is masked."""
        words, kinds = (self.weights[f"uniter.embeddings.{name}_embeddings.weight"] for name in ("word", "token_type"))
        places = self.weights["uniter.embeddings.position_embeddings.weight"][: ids.shape[1]]
        text = self.norm("uniter.embeddings.LayerNorm", words[ids] + places + kinds[0])
        image = "uniter.img_embeddings"
        shown = features + self.weights[f"{image}.mask_embedding.weight"][1] * hidden[..., None]
        seen = self.norm(f"{image}.img_layer_norm", self.linear(f"{image}.img_linear", shown))
        boxes = self.norm(f"{image}.pos_layer_norm", self.linear(f"{image}.pos_linear", given["img_pos_feat"]))
        states = torch.cat([text, self.norm(f"{image}.LayerNorm", seen + boxes + kinds[1])], dim=1)
        mask = attention_mask(torch.cat(real(given), dim=1))
        for number in range(self.config["num_hidden_layers"]):
            states = self.layer(number)(states, mask)
        return states[:, : ids.shape[1]], states[:, ids.shape[1] :]

    def layer(self, number: int) -> EncoderLayer:
        config, prefix = self.config, f"uniter.encoder.layer.{number}."
        layer = EncoderLayer(
            config["hidden_size"], config["num_attention_heads"], config["intermediate_size"], 0.0, 0.0
        )
        own = {key: value for key, value in self.weights.items() if key.startswith(prefix)}
        # Named as below an encoder, so that the first parts of names have their dot.
        named = {substituted(f".{key.removeprefix(prefix)}", _LAYERS)[1:]: value for key, value in own.items()}
        layer.load_state_dict(named)
        return layer.eval()


def real(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which text tokens [B, T] and which regions [B, R] are no padding."""
    longest, most = given["input_ids"].shape[1], given["img_feat"].shape[1]
    return (
        torch.arange(longest) < given["text_lengths"][:, None],
        torch.arange(most) < given["region_counts"][:, None],
    )


@pytest.fixture(scope="module")
def losses(golden_case: Any) -> Any:
    return golden_case("uniter", "losses")


@pytest.fixture(scope="module")
def uniter(losses: Any) -> Uniter:
    return Uniter(losses.weights, losses.config)


@pytest.fixture(scope="module")
def hidden_regions(uniter: Uniter, losses: Any) -> Tensor:
    """States of all regions [B, R, D], where the chosen ones were hidden."""
    given = losses.inputs
    return uniter.states(given, given["input_ids"], given["masked_img_feat"], given["img_masks"])[1]


def spread(rows: Tensor, chosen: Tensor) -> Tensor:
    """The rows of chosen regions [M, X] at their places [B, R, X], and what no loss may look at elsewhere."""
    every = torch.full((*chosen.shape, rows.shape[1]), 0.5)
    every[chosen] = rows
    return every


def test_the_network(uniter: Uniter, golden_case: Any) -> None:
    case = golden_case("uniter", "states")
    given = case.inputs
    own = Uniter(case.weights, case.config)
    none = torch.zeros(given["img_feat"].shape[:2], dtype=torch.bool)
    text, regions = own.states(given, given["input_ids"], given["img_feat"], none)
    words, seen = real(given)
    for row in range(len(text)):
        compact = torch.cat([text[row][words[row]], regions[row][seen[row]]])
        expected = case.outputs["sequence"][row, : len(compact)]
        torch.testing.assert_close(compact, expected, atol=case.absolute, rtol=case.relative)


def test_masked_words(uniter: Uniter, losses: Any) -> None:
    given = losses.inputs
    none = torch.zeros(given["img_feat"].shape[:2], dtype=torch.bool)
    text, _ = uniter.states(given, given["mlm_input_ids"], given["img_feat"], none)
    states = uniter.transform("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", text)
    logits = states @ losses.weights["cls.predictions.decoder.weight"].T + losses.weights["cls.predictions.bias"]
    labels = torch.where(given["txt_labels"] < 0, -100, given["txt_labels"])
    losses.assert_close("mlm_scores", logits[labels >= 0])
    losses.assert_close("mlm_mean", mlm_loss(logits, labels))


def test_features_of_masked_regions(uniter: Uniter, losses: Any, hidden_regions: Tensor) -> None:
    chosen = losses.inputs["img_masks"]
    states = uniter.transform("feat_regress.net.0", "feat_regress.net.2", hidden_regions)
    predicted = states @ losses.weights["feat_regress.weight"] + losses.weights["feat_regress.bias"]
    targets = spread(losses.inputs["feat_targets"], chosen)
    losses.assert_close("mrfr_mean", mrfr_mse_loss(predicted, targets, chosen))
    assert float(mrfr_mse_loss(predicted, targets, torch.zeros_like(chosen))) == 0.0


def test_classes_of_masked_regions(uniter: Uniter, losses: Any, hidden_regions: Tensor) -> None:
    chosen = losses.inputs["img_masks"]
    states = uniter.transform("region_classifier.net.0", "region_classifier.net.2", hidden_regions)
    logits = uniter.linear("region_classifier.net.3", states)
    probabilities = spread(losses.inputs["label_targets"], chosen)
    background = losses.inputs["label_targets"].argmax(dim=1) == 0
    assert bool(background.any()), "the background is never the label, also where it is the likeliest"
    losses.assert_close("mrc_mean", mrc_argmax_loss(logits, probabilities, chosen))
    losses.assert_close("mrc_kl_mean", mrc_kl_loss(logits, probabilities, chosen))
    for loss in (mrc_argmax_loss, mrc_kl_loss):
        assert float(loss(logits, probabilities, torch.zeros_like(chosen))) == 0.0


def test_matching_and_alignment(uniter: Uniter, losses: Any) -> None:
    given, matched = losses.inputs, losses.inputs["itm_targets"].bool()
    none = torch.zeros(given["img_feat"].shape[:2], dtype=torch.bool)
    text, regions = uniter.states(given, given["input_ids"], given["img_feat"], none)
    pooled = torch.tanh(uniter.linear("uniter.pooler.dense", text[:, 0]))
    scores = uniter.linear("itm_output", pooled)
    losses.assert_close("itm_scores", scores)
    losses.assert_close("itm_mean", itm_loss(scores, matched))
    words, seen = real(given)  # [CLS] and [SEP] take part, as in UNITER
    losses.assert_close("ot_loss", wpa_loss(text, regions, words, seen, matched))
    for name, wanted, sign in (("ot_positive", matched, 1), ("ot_negative", ~matched, -1)):
        rows = wanted.nonzero()[:, 0].tolist()
        one_by_one = [
            sign * wpa_loss(*(each[row : row + 1] for each in (text, regions, words, seen, matched))) for row in rows
        ]
        losses.assert_close(name, torch.stack(one_by_one))


def test_ranking_by_a_cross_encoder(golden_case: Any) -> None:
    """The head trained with `rank_loss: hinge`, on official scores of two pairs with two negatives each."""
    case = golden_case("uniter", "itm_rank")
    recipe = Recipe(rank_loss="hinge", margin=case.config["margin"], negative_texts=1, negative_images=1)
    head = RankHead(4, recipe)
    scores = case.outputs["scores"][:, 0]
    case.assert_close("rank_loss_mean", head.loss(scores, torch.zeros(2, dtype=torch.int64)))


@pytest.fixture
def hinge(golden_case: Any) -> Any:
    return golden_case("vsepp", "hinge")


@pytest.mark.parametrize(("form", "negatives"), [("max", "hardest"), ("sum", "all")])
def test_hinge_of_embeddings(hinge: Any, form: str, negatives: Any) -> None:
    images, texts = (hinge.inputs[name].clone().requires_grad_() for name in ("images", "texts"))
    diagonal = torch.eye(len(images), dtype=torch.bool)
    loss = hinge_loss(images @ texts.T, diagonal, hinge.config["margin_cosine"], negatives=negatives)
    loss.backward()
    hinge.assert_close(f"{form}_cosine", loss)
    hinge.assert_close(f"{form}_cosine_images_grad", images.grad)
    hinge.assert_close(f"{form}_cosine_texts_grad", texts.grad)
    ordered = hinge.inputs["images"].abs(), hinge.inputs["texts"].abs()
    scores = -(ordered[1][None] - ordered[0][:, None]).clamp(min=0).norm(dim=-1)  # [images, texts]
    hinge.assert_close(f"{form}_order", hinge_loss(scores, diagonal, hinge.config["margin_order"], negatives=negatives))


@pytest.mark.parametrize("name", ["pretrain_alpha0", "pretrain_alpha04"])
def test_albefs_step(name: str, golden_case: Any) -> None:
    """Online embeddings against those of the momentum encoders and the queue, by alpha with their distillation."""
    case = golden_case("albef", name)
    out, weights = case.outputs, case.weights
    image_queue, text_queue = (weights[f"{kind}_queue"].T for kind in ("image", "text"))
    online = [out[f"{kind}_feat"].clone().requires_grad_() for kind in ("image", "text")]
    keys = [out[f"{kind}_feat_m"].clone().requires_grad_() for kind in ("image", "text")]
    momentum = Momentum(keys[0], keys[1], image_queue, text_queue)
    loss = itc_loss(online[0], online[1], case.config["temp"], momentum=momentum, alpha=case.config["alpha"])
    case.assert_close("itc", loss)
    loss.backward()
    assert all(one.grad is not None for one in online) and all(one.grad is None for one in keys)
    count = len(online[0])
    matched = torch.arange(3 * count) < count
    case.assert_close("itm", itm_loss(out["itm_logits"], matched))
    for kind, rows in zip(("image", "text"), keys, strict=True):
        queue = Queue(*weights[f"{kind}_queue"].T.shape)
        queue.push(weights[f"{kind}_queue"].T)
        queue.push(rows)
        case.assert_close(f"{kind}_queue", queue.filled().T)


def test_albefs_masked_words_without_distillation(golden_case: Any) -> None:
    """With alpha 0.4 the official loss mixes in the momentum encoder's predictions, for which there is no function."""
    case = golden_case("albef", "pretrain_alpha0")
    case.assert_close("mlm", mlm_loss(case.outputs["mlm_logits"], case.inputs["mlm_labels"]))


def test_distillation_needs_a_momentum_encoder() -> None:
    with pytest.raises(ValueError, match=r"alpha 0\.4 needs momentum embeddings"):
        itc_loss(torch.eye(2), torch.eye(2), 0.1, alpha=0.4)
