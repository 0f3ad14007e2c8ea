"""A tiny random detector under the names that published weights have."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.network import FasterRCNN, random_network

LAYOUT = Layout(blocks=(1, 2, 2, 1), width=4, rpn_width=8, classes=9, attributes=5)
_HEAD = {
    "classes": "cls_score",
    "class_embedding": "cls_embedding",
    "attribute_hidden": "fc_attr",
    "attributes": "attr_score",
}
_RPN = {"conv": "conv", "objectness": "objectness_logits", "deltas": "anchor_deltas"}


def trained(rules: Rules, layout: Layout = LAYOUT) -> FasterRCNN:
    """Nothing in it is as it begins, statistics and anchors included."""
    network = random_network(layout, rules, seed=5)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if name.endswith("running_var") else tensor + 0.01 * noise)
    return network


def published(network: FasterRCNN) -> dict[str, Tensor]:
    """The network's tensors under Detectron2's names, without counters, with the layer that refines boxes."""
    state = {_key(name): tensor.clone() for name, tensor in network.state_dict().items() if "num_batches" not in name}
    return {**state, "roi_heads.box_predictor.bbox_pred.weight": torch.zeros(36, network.layout.dim)}


def save(path: Path, layout: Layout = LAYOUT) -> Path:
    """Its weights as a file of PyTorch."""
    torch.save({"model": published(trained(Rules(), layout))}, path)
    return path


def _key(name: str) -> str:
    part, layer, *rest = name.split(".")
    if part == "backbone":
        return name
    if name == "rpn.anchors":
        return "proposal_generator.anchor_generator.cell_anchors.0"
    if part == "rpn":
        return ".".join(["proposal_generator.rpn_head", _RPN[layer], *rest])
    return ".".join(["roi_heads.res5" if layer == "res5" else f"roi_heads.box_predictor.{_HEAD[layer]}", *rest])
