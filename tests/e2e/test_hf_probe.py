"""A linear head on a frozen CLIP: its answers are the saved weights times what the library's towers make of a pair."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor

from vlbench.core.examples import Example
from vlbench.data.images.load import open_image
from vlbench.engine.source import load_task

LABELS = ("contradiction", "neutral", "entailment")


@pytest.fixture
def photographs(shared_data: Path, tmp_path: Path) -> Path:
    """The five real examples as `dev`, and again as `train` under other ids."""
    source, root = shared_data / "snli_ve_sample", tmp_path / "photographs"
    root.mkdir()
    (root / "flickr30k_images").symlink_to(source / "flickr30k_images")
    lines = [json.loads(line) for line in (source / "snli_ve_dev.jsonl").read_text().splitlines()]
    for split, mark in (("dev", ""), ("train", "again")):
        told = [json.dumps(line | {"pairID": line["pairID"] + mark}) for line in lines]
        (root / f"snli_ve_{split}.jsonl").write_text("\n".join(told) + "\n")
    return root


def by_hand(folder: Path, weights: dict[str, Tensor], example: Example[Any]) -> Tensor:
    """The three probabilities: both unit vectors and their product, scaled, through one linear layer."""
    model = hf.CLIPModel.from_pretrained(folder).eval()
    eyes, words = hf.AutoImageProcessor.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)
    text = words([example.query.text], truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        found = model(
            pixel_values=eyes(images=[open_image(example.query.images[0].path)], return_tensors="pt")["pixel_values"],
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
        )
    image, told = found.image_embeds[0], found.text_embeds[0]
    scale = math.sqrt(len(image))
    features = torch.cat([scale * image, scale * told, scale**2 * image * told])
    return (weights["head.classifier.0.weight"] @ features + weights["head.classifier.0.bias"]).softmax(dim=0)


@pytest.mark.parametrize("where", ["world", "photographs"])
def test_a_linear_head_over_both_towers(
    make_hf: Callable[..., Path],
    vlbench: Callable[..., Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    where: str,
) -> None:
    root: Path = request.getfixturevalue("tiny_world" if where == "world" else where)
    words = [json.loads(line)["sentence2"].lower() for line in next(root.rglob("snli_ve_dev.jsonl")).open()]
    folder = make_hf("CLIPModel", words=tuple(sorted({word for text in words for word in text.split()})))
    place = ("--data-root", root, "--allow-partial", "--output-path", tmp_path / "runs", "--quiet", "--split", "dev")
    how = ("--mode", "probe", "--steps", 60, "--select-on", "none", "--controls", "none")
    done = vlbench("run", "--task", "snli_ve", "--model", f"hf:{folder}", *place, *how)
    assert done.code == 0, done.err
    rows = pd.read_parquet(done.run / "samples.parquet").set_index("example_id")
    weights = load_file(done.run / "checkpoints" / "best" / "model.safetensors")
    reported = load_task("snli_ve", root, allow_partial=True).load("dev")
    assert len(rows) == len(reported)
    for example in reported[:12]:
        expected = by_hand(folder, weights, example)
        assert rows.loc[example.id, "prediction"] == LABELS[int(expected.argmax())]
        assert rows.loc[example.id, "confidence"] == pytest.approx(float(expected.max()), abs=1e-4)
    if where == "photographs":  # it was trained on the same pairs
        assert rows["prediction"].to_dict() == {one.id: one.reference.value for one in reported}
