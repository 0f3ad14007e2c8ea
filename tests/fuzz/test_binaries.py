"""Changed region tables, pictures and weights: a sentence, or what a reader may believe."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from vlbench.data.images.load import open_image
from vlbench.data.regions.store import store_for_tsv
from vlbench.data.regions.tsv import read_tsv, write_tsv
from vlbench.data.regions.types import Regions
from vlbench.engine.weights.loading import load_weights
from vlbench.engine.weights.state_dict import read_state, written_by

Change = Callable[[bytes, Random], bytes]
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")


class Net(nn.Module):
    """Small enough that every tensor of it is changed sooner or later."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        self.head = nn.Linear(3, 2)


def change_header(content: bytes, rng: Random, mutate: Any) -> bytes:
    """Safetensors with another JSON at its beginning, its length said rightly or not."""
    (length,) = struct.unpack("<Q", content[:8])
    header = mutate(content[8 : 8 + length], rng)
    said = len(header) if rng.random() < 0.8 else rng.choice((0, 1, 2**20, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", said) + header + content[8 + length :]


def change_member(content: bytes, rng: Random, mutate: Any) -> bytes:
    """A zip of PyTorch's in which one member is another."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            inner = old.read(name)
            if name == chosen:
                if rng.random() < 0.1:
                    continue
                inner = mutate(inner, rng, False)
            new.writestr(name, inner)
    return made.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("binaries")


@pytest.fixture(scope="module")
def weights() -> dict[str, bytes]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = Net().state_dict()
    whole, old = io.BytesIO(), io.BytesIO()
    torch.save(state, whole)
    torch.save({"model": state, "step": 3}, old, _use_new_zipfile_serialization=False)
    return {
        "safetensors": save(state, {"model": "net", "size": "tiny"}),
        "pth": whole.getvalue(),
        "bin": old.getvalue(),
    }


@pytest.fixture(scope="module")
def table(place: Path) -> bytes:
    chance = np.random.default_rng(0)
    rows = []
    for number, count in enumerate((1, 3, 2)):
        boxes = np.array([[1, 2, 30, 40]] * count, np.float32)
        features = chance.normal(size=(count, 4)).astype(np.float32)
        ids, sure = np.arange(count), np.full(count, 0.5, np.float32)
        rows.append((f"picture{number}", Regions(64, 48, boxes, features, ids, sure, ids, sure)))
    write_tsv(place / "whole.tsv", rows)
    return (place / "whole.tsv").read_bytes()


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    chance = np.random.default_rng(0)
    made = []
    for mode, kind in (("RGB", "PNG"), ("RGB", "JPEG"), ("P", "GIF"), ("RGBA", "WEBP"), ("L", "BMP"), ("RGB", "TIFF")):
        content = io.BytesIO()
        noise = chance.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(content, format=kind)
        made.append(content.getvalue())
    return made


def offer_weights(place: Path, weights: dict[str, bytes], rng: Random, mutate: Any, allowed: Any) -> None:
    kind = rng.choice(sorted(weights))
    inner = {"safetensors": change_header, "pth": change_member}.get(kind)
    path = place / f"weights.{kind}"
    changed = inner(weights[kind], rng, mutate) if inner and rng.random() < 0.7 else mutate(weights[kind], rng, False)
    path.write_bytes(changed)
    with allowed():
        state = read_state(path)
        assert all(isinstance(name, str) for name in state)
        written_by(path)
        net = Net()
        assert load_weights(net, path).matched >= 4
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())


def offer_table(place: Path, table: bytes, rng: Random, mutate: Any, allowed: Any) -> None:
    lines = table.split(b"\n")
    if rng.random() < 0.6:
        row = rng.randrange(len(lines) - 1)
        fields = lines[row].split(b"\t")
        column = rng.randrange(len(fields))
        odd = (b"", b"-1", b"0", b"1e9", b"nan", b"99999999999999999999", b"2147483648", b"====", b"AAAA", b"/8D/wA==")
        fields[column] = rng.choice((*odd, fields[column][::-1], fields[column] * 2))
        lines[row] = b"\t".join(fields)
    changed = b"\n".join(lines)
    path = place / "changed.tsv"
    path.write_bytes(changed if rng.random() < 0.7 else mutate(changed, rng, False))
    with allowed():
        for _, regions in read_tsv(path):
            assert regions.boxes.shape == (len(regions.features), 4)
            assert np.isfinite(regions.features).all() and np.isfinite(regions.boxes).all()
        store = store_for_tsv(path, place / "cache")
        assert all(store.get(key).boxes.shape[1] == 4 for key in store)


def offer_picture(place: Path, pictures: list[bytes], rng: Random, mutate: Any, allowed: Any) -> None:
    path = place / "picture.png"
    path.write_bytes(mutate(rng.choice(pictures), rng, False))
    with allowed():
        assert open_image(path).mode == "RGB"


@settings(max_examples=150)
@given(rng=st.randoms(use_true_random=False))
def test_weights(rng: Random, place: Path, weights: Any, mutate: Any, sentence_or_result: Any) -> None:
    offer_weights(place, weights, rng, mutate, sentence_or_result)


@settings(max_examples=150)
@given(rng=st.randoms(use_true_random=False))
def test_regions(rng: Random, place: Path, table: bytes, mutate: Any, sentence_or_result: Any) -> None:
    offer_table(place, table, rng, mutate, sentence_or_result)


@settings(max_examples=150)
@given(rng=st.randoms(use_true_random=False))
def test_pictures(rng: Random, place: Path, pictures: Any, mutate: Any, sentence_or_result: Any) -> None:
    offer_picture(place, pictures, rng, mutate, sentence_or_result)


@pytest.mark.slow
@settings(max_examples=1500, derandomize=False)
@given(rng=st.randoms(use_true_random=False))
def test_binaries_for_long(
    rng: Random, place: Path, weights: Any, table: bytes, pictures: Any, mutate: Any, sentence_or_result: Any
) -> None:
    offer_weights(place, weights, rng, mutate, sentence_or_result)
    offer_table(place, table, rng, mutate, sentence_or_result)
    offer_picture(place, pictures, rng, mutate, sentence_or_result)


def test_a_shard_index_stays_in_its_folder(place: Path, sentence_or_result: Any) -> None:
    """An index of shards that names a file elsewhere is refused."""
    (place / "elsewhere.safetensors").write_bytes(save(Net().state_dict()))
    folder = place / "model"
    folder.mkdir(exist_ok=True)
    index = folder / "model.safetensors.index.json"
    for name in ("../elsewhere.safetensors", str(place / "elsewhere.safetensors"), "..", ""):
        index.write_text(json.dumps({"weight_map": {"backbone.0.weight": name}}))
        reached = False
        with sentence_or_result():
            read_state(index)
            reached = True
        assert not reached
