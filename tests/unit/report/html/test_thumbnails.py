from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlbench.report.html.thumbnails import thumbnails


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Twenty images of noise, which compress badly."""
    random, found = np.random.default_rng(0), {}
    for number in range(20):
        path = found[str(number)] = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(path)
    return found


def opened(address: str) -> Image.Image:
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_images_shrink_and_keep_their_shape(images: dict[str, Path]) -> None:
    made = thumbnails(images)
    assert made.notes == ()
    assert {opened(address).size for address in made.urls.values()} == {(192, 144)}


@pytest.mark.parametrize("budget", [60_000, 200_000])
def test_finer_ones_give_way_to_more_of_them(images: dict[str, Path], budget: int) -> None:
    made = thumbnails(images, budget)
    assert len(made.urls) == 20
    assert sum(map(len, made.urls.values())) <= budget
    assert opened(made.urls["0"]).size < (192, 144)


def test_what_does_not_fit_or_cannot_be_read_is_counted(images: dict[str, Path], tmp_path: Path) -> None:
    made = thumbnails(images, 10_000)
    assert 0 < len(made.urls) < 20
    assert sum(map(len, made.urls.values())) <= 10_000
    assert made.notes == (f"{20 - len(made.urls)} of 20 images are left out to keep this file small",)

    (tmp_path / "3.png").write_bytes(b"not an image")
    (tmp_path / "4.png").unlink()
    assert thumbnails(images).notes == ("2 of 20 images cannot be read",)
    assert thumbnails({}).urls == {}
