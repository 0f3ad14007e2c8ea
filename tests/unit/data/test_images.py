"""Every kind of image that real data sets contain, and every way in which one can be broken."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.data.images.load import ImageFiles, mean_image, open_image

COLOUR = (10, 200, 30)


def saved(tmp_path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    path = tmp_path / "photo.png"  # whatever is inside
    image.save(path, format=kind, **options)  # type: ignore[arg-type]
    return path


def pixels(path: Path) -> NDArray[np.int64]:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind, slack", [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("GIF", 0), ("WEBP", 8), ("JPEG", 8)])
def test_the_content_decides_not_the_suffix(tmp_path: Path, kind: str, slack: int) -> None:
    found = pixels(saved(tmp_path, Image.new("RGB", (9, 7), COLOUR), kind))
    assert found.shape == (7, 9, 3)
    assert np.abs(found - COLOUR).max() <= slack


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), COLOUR).convert("CMYK")
    assert np.abs(pixels(saved(tmp_path, image, "JPEG", quality=95)) - COLOUR).max() <= 8


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *COLOUR])
    assert (pixels(saved(tmp_path, image, "PNG")) == COLOUR).all()
    transparent = Image.new("P", (4, 4), 1)
    transparent.putpalette([0, 0, 0, *COLOUR])
    transparent.putpixel((0, 0), 0)
    found = pixels(saved(tmp_path, transparent, "PNG", transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255] and (found[1:] == COLOUR).all()


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (*COLOUR, 255))
    image.putpixel((1, 0), (*COLOUR, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    found = pixels(saved(tmp_path, image, "PNG"))[0]
    assert found[0].tolist() == list(COLOUR) and found[1].tolist() == [255, 255, 255]
    assert np.abs(found[2] - 127).max() <= 1
    grey = Image.new("LA", (2, 1), (60, 255))
    grey.putpixel((1, 0), (60, 0))
    assert pixels(saved(tmp_path, grey, "PNG"))[0].tolist() == [[60] * 3, [255] * 3]
    keyed = Image.new("RGB", (2, 1), COLOUR)
    keyed.putpixel((0, 0), (1, 2, 3))
    assert pixels(saved(tmp_path, keyed, "PNG", transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, list(COLOUR)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut_off(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 128, 257, 32_896, 65_535]], dtype=np.uint16)
    found = pixels(saved(tmp_path, Image.fromarray(values), kind))
    assert found[0].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 255)]


def png(samples: NDArray[np.int64], depth: int, colour: int, key: NDArray[np.int64] | None = None) -> bytes:
    """A PNG of samples [H, W, C] as its specification has it, written without Pillow; key: its transparent colour."""
    rows = b""
    for row in samples.reshape(len(samples), -1):
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        rows += b"\0" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    header = struct.pack(">IIBBBBB", samples.shape[1], len(samples), depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if key is not None:
        chunks.insert(1, (b"tRNS", key.astype(">u2").tobytes()))
    packed = (struct.pack(">I", len(data)) + kind + data for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        part + struct.pack(">I", zlib.crc32(part[4:])) for part in packed
    )  # fmt: skip


GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6


KEYED = [(depth, GREY) for depth in (1, 2, 4, 8, 16)] + [(8, RGB)]
PLAIN = [*KEYED, (16, RGB), (8, GREY_ALPHA), (16, GREY_ALPHA), (8, RGB_ALPHA), (16, RGB_ALPHA)]


@pytest.mark.parametrize(
    ("depth", "colour", "keyed"), [*((*kind, True) for kind in KEYED), *((*kind, False) for kind in PLAIN)]
)
def test_every_depth_of_png_is_what_its_specification_says_on_white(
    tmp_path: Path, depth: int, colour: int, keyed: bool
) -> None:
    channels, most = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGB_ALPHA: 4}[colour], 2**depth - 1
    samples = np.random.default_rng(0).integers(0, most + 1, (5, 7, channels))
    key = samples[2, 3] = np.full(channels, 1 if depth < 16 else 40_001)
    samples[0, 0] = key ^ 1  # of 16 bits: the same in the upper 8
    (tmp_path / "a.png").write_bytes(png(samples, depth, colour, key if keyed else None))
    alpha = 1.0 - keyed * (samples == key).all(-1, keepdims=True)
    if colour in (GREY_ALPHA, RGB_ALPHA):
        alpha, samples = samples[..., -1:] / most, samples[..., :-1]
    expected = alpha * (samples * 255 / most) + (1 - alpha) * 255
    # Of more than one channel, Pillow drops the lower 8 of 16 bits instead of rounding.
    assert np.abs(pixels(tmp_path / "a.png") - expected).max() <= (1.2 if depth == 16 and channels > 1 else 0.5)


def test_a_transparent_colour_that_pillow_cannot_read_is_named(tmp_path: Path) -> None:
    samples = np.full((2, 2, 3), 40_001)
    (tmp_path / "a.png").write_bytes(png(samples, 16, RGB, samples[0, 0]))
    with pytest.raises(DataError, match="a transparent colour of 16 bits per channel: convert it"):
        open_image(tmp_path / "a.png")


def test_16_bits_with_transparency_and_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.array([[0, 257 * 9], [257 * 20, 65_535]], dtype=np.uint16))
    found = pixels(saved(tmp_path, image, "PNG", exif=exif, transparency=257 * 9))
    assert found[..., 0].tolist() == [[20, 0], [255, 255]]


def test_one_bit_and_grey(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[0, 255, 255, 0]], dtype=np.uint8)).convert("1")
    assert pixels(saved(tmp_path, bits, "PNG"))[0, :, 0].tolist() == [0, 255, 255, 0]
    assert (pixels(saved(tmp_path, Image.new("L", (3, 3), 77), "PNG")) == 77).all()


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in (COLOUR, (255, 0, 0), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(path) == COLOUR).all()


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (64, 32), "white")
    image.paste((0, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(saved(tmp_path, image, "JPEG", exif=exif))
    assert found.shape[:2] == ((32, 64) if orientation in (1, 3) else (64, 32))
    assert found[corner].max() < 40


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format=kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 100,000 x 100,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty (0 bytes)"),
        (b"<html>404 Not Found</html>", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not an image"),
        (encoded("JPEG")[:-400], "is a truncated or damaged image"),
        (encoded("PNG")[:-400], "is a truncated or damaged image"),
        (encoded("GIF")[:900], "is a truncated or damaged image"),
        (encoded("PNG")[:20], "is"),
        (bomb(), "claims more than 150,000,000 pixels"),
    ],
)
def test_a_broken_file_is_named_with_a_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        open_image(path)
    assert str(path) in caught.value.message and "restore the file" in caught.value.message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.png \(No such file or directory\)"):
        ImageFiles().open(ImageRef(tmp_path / "absent.png", "absent"))
    with pytest.raises(DataError, match="restore the file"):
        open_image(tmp_path)


def test_floating_point_is_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    with pytest.raises(DataError, match="convert it"):
        open_image(path)


def test_mean_image(tmp_path: Path) -> None:
    paths = []
    for number, (colour, size) in enumerate([((0, 10, 255), (10, 6)), ((1, 20, 0), (20, 10)), ((1, 60, 0), (30, 8))]):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", size, colour).save(paths[-1])
    mean = mean_image(paths)
    assert mean.size == (20, 8)
    assert (np.asarray(mean) == (1, 30, 85)).all()
