"""JPEG files decoded with simplejpeg have the pixels of Pillow; whatever is unusual about a file, Pillow decodes it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.images import jpeg
from vlbench.data.images.image_cache import ImageCache, resized
from vlbench.data.images.load import open_image


def photograph(mode: str = "RGB") -> Image.Image:
    """101 x 67 pixels with smooth and with sharp parts."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((101, 67), Image.Resampling.BICUBIC)
    noise = Image.fromarray(rng.integers(0, 256, (67, 101, 3), np.uint8))
    return Image.blend(coarse, noise, 0.2).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def damaged(content: bytes) -> bytes:
    """A marker amid the coded pixels, which Pillow tolerates and simplejpeg does not."""
    middle = len(content) // 2
    return content[:middle] + b"\xff\xd0" + content[middle:]


COMMON = {
    f"subsampling {subsampling}, progressive {progressive}": encoded(
        photograph(), subsampling=subsampling, progressive=progressive
    )
    for subsampling in ("4:4:4", "4:2:2", "4:2:0")
    for progressive in (False, True)
}
UNUSUAL = {
    "grey": encoded(photograph("L")),
    "CMYK": encoded(photograph("CMYK")),
    "RGB": encoded(photograph(), keep_rgb=True),
    "rotated": encoded(photograph(), exif=rotated()),
    "damaged": damaged(encoded(photograph())),
    "another format": encoded(photograph(), "PNG"),
}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each image that is opened: whether Pillow did not have to decode it."""
    calls: list[bool] = []
    decode = jpeg.decode_jpeg

    def watch(path: Path, opened: ImageFile.ImageFile) -> Image.Image | None:
        image = decode(path, opened)
        calls.append(image is not None)
        return image

    monkeypatch.setattr("vlbench.data.images.load.decode_jpeg", watch)
    return calls


def pixels(path: Path) -> NDArray[np.uint8]:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("name", [*COMMON, *UNUSUAL])
def test_pixels_are_those_of_pillow(
    name: str, tmp_path: Path, decoded: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes((COMMON | UNUSUAL)[name])
    first = pixels(path)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    np.testing.assert_array_equal(pixels(path), first)
    assert decoded == [name in COMMON, False]


@pytest.mark.parametrize("size", [(101, 66), (60_000, 60_000)], ids=["another size", "too many pixels"])
def test_a_file_whose_headers_differ_is_left_to_pillow(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(photograph()))
    with Image.open(path) as opened:
        opened._size = size
        assert jpeg.decode_jpeg(path, opened) is None


def test_a_truncated_file_gets_the_message_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(photograph())[:-300])
    with pytest.raises(DataError, match="is a truncated or damaged image") as first:
        open_image(path)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    with pytest.raises(DataError) as second:
        open_image(path)
    assert first.value.message == second.value.message


def test_another_decoder_gets_another_entry_of_the_image_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "photo.jpg", ImageCache(tmp_path / "cache", 1 << 20)
    path.write_bytes(encoded(photograph()))
    for decoder in ("", "simplejpeg 1", "simplejpeg 2"):
        monkeypatch.setattr("vlbench.data.images.image_cache.jpeg_decoder", lambda name=decoder: name)
        resized(cache, ImageRef(path, "photo"), lambda *_: (8, 8), "bicubic 8")
    assert len(list((tmp_path / "cache").glob("??/*.npy"))) == 3
