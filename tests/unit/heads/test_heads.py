"""The heads over closed labels: shapes, targets, loss and predictions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlbench.core.backbone import Features
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.heads.classify import ClassifyHead

LABELS = ("False", "True", "Maybe")


def features(pooled: Tensor) -> Features:
    nothing = torch.zeros(len(pooled), 1, pooled.shape[1])
    mask = torch.ones(len(pooled), 1, dtype=torch.bool)
    return Features(pooled, nothing, nothing, mask, mask)


def example(id_: str, reference: object) -> Example[object]:
    return Example(id_, Query((ImageRef(Path("a"), "a"),), "text"), reference, "group")


@pytest.fixture
def head() -> ClassifyHead:
    torch.manual_seed(0)
    return ClassifyHead(8, LABELS, HeadLayout())


def test_layers_are_lxmerts() -> None:
    pair, classify = ClassifyHead(768, ("a", "b"), HeadLayout(), 2), ClassifyHead(768, ("a",) * 3129, HeadLayout())
    shapes = [
        tuple(layer.weight.shape) for head in (pair, classify) for layer in head.classifier if hasattr(layer, "weight")
    ]
    assert shapes == [(1536, 1536), (1536,), (2, 1536), (1536, 768), (1536,), (3129, 1536)]
    assert sum(parameter.numel() for parameter in classify.parameters()) == 5_993_529
    assert [type(layer) for layer in pair.classifier] == [nn.Linear, nn.GELU, nn.LayerNorm, nn.Linear]


def test_the_layout_orders_and_widens() -> None:
    head = ClassifyHead(8, LABELS, HeadLayout(hidden=1.5, order="norm-activation"))
    assert [type(layer) for layer in head.classifier] == [nn.Linear, nn.LayerNorm, nn.GELU, nn.Linear]
    assert head.classifier[0].out_features == 12


def test_sohos_released_head_is_relu_and_dropout() -> None:
    """Dropout draws while training and does nothing in evaluation; the last layer is where other layouts have it."""
    torch.manual_seed(0)
    head = ClassifyHead(8, LABELS, HeadLayout(hidden=4.0, order="relu-dropout", dropout=0.5))
    assert [type(layer) for layer in head.classifier] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert (head.classifier[0].out_features, head.classifier[2].p, head.classifier[3].out_features) == (32, 0.5, 3)
    pooled = features(torch.randn(5, 8))
    assert not torch.equal(head.train()(pooled), head(pooled))
    assert torch.equal(head.eval()(pooled), head(pooled))
    inner = (pooled.pooled @ head.classifier[0].weight.T).clamp(min=0)  # biases begin at 0
    torch.testing.assert_close(head(pooled), inner @ head.classifier[3].weight.T)


def test_a_pair_is_classified_by_both_images_in_order() -> None:
    torch.manual_seed(0)
    head, pooled = ClassifyHead(8, LABELS, HeadLayout(), 2), torch.randn(6, 8)
    logits = head(features(pooled))
    assert logits.shape == (3, 3)
    for row in range(3):
        side_by_side = torch.cat([pooled[2 * row], pooled[2 * row + 1]])
        torch.testing.assert_close(logits[row], head.classifier(side_by_side))
    swapped = head(features(pooled[[1, 0, 3, 2, 5, 4]]))
    assert (swapped - logits).abs().max() > 1e-3


def test_one_image_is_classified_by_its_pooled_vector(head: ClassifyHead) -> None:
    pooled = torch.randn(4, 8)
    assert torch.equal(head(features(pooled)), head.classifier(pooled))


def test_targets_are_indices_of_strings(head: ClassifyHead) -> None:
    targets = head.targets([example("a", Label("True")), example("b", Label("False")), example("c", Label("Maybe"))])
    assert targets.tolist() == [1, 0, 2] and targets.dtype == torch.int64


@pytest.mark.parametrize("reference", [Label("true"), ["True"]], ids=["unknown label", "no label"])
def test_an_unknown_label_is_named_with_its_example(head: ClassifyHead, reference: object) -> None:
    with pytest.raises(DataError, match=r"example 'dev-7' has the label .*[Tt]rue.* one of False, True, Maybe"):
        head.targets([example("dev-6", Label("True")), example("dev-7", reference)])


def test_loss_is_mean_cross_entropy(head: ClassifyHead) -> None:
    rows, targets = [[1.0, -2.0, 0.5], [0.0, 3.0, 3.0]], [2, 1]
    by_hand = [
        -math.log(math.exp(row[target]) / sum(map(math.exp, row))) for row, target in zip(rows, targets, strict=True)
    ]
    loss = head.loss(torch.tensor(rows), torch.tensor(targets))
    assert loss.item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


def test_finish_ranks_probabilities(head: ClassifyHead) -> None:
    first, second = head.finish(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 1.0]]), ["a", "b"])
    total = math.exp(1) + math.exp(-2) + math.exp(0.5)
    assert (first.example_id, first.answer, first.status) == ("a", "False", "ok")
    assert list(first.scores) == ["False", "Maybe", "True"]
    assert list(first.scores.values()) == pytest.approx([math.exp(x) / total for x in (1, 0.5, -2)], rel=1e-9)
    assert list(second.scores) == ["Maybe", "False", "True"]


def test_ties_go_to_the_first_label() -> None:
    labels = tuple(f"label {index}" for index in range(300))  # few enough would stay in order by luck
    logits = torch.zeros(1, 300)
    logits[0, 7] = 1.0
    (prediction,) = ClassifyHead(8, labels, HeadLayout()).finish(logits, ["a"])
    assert list(prediction.scores) == [labels[7], *labels[:7], *labels[8:]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_no_number_names_the_example(head: ClassifyHead, bad: float) -> None:
    with pytest.raises(VlbenchError, match=r"example 'b' got logits .*--lr"):
        head.finish(torch.tensor([[0.0, 1.0, 2.0], [0.0, bad, 2.0]]), ["a", "b"])


def test_as_many_ids_as_rows(head: ClassifyHead) -> None:
    with pytest.raises(ValueError, match="zip"):
        head.finish(torch.zeros(2, 3), ["a"])


def test_every_parameter_of_a_head_trains() -> None:
    head = ClassifyHead(8, LABELS, HeadLayout(), 2)
    head.loss(head(features(torch.randn(6, 8))), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
