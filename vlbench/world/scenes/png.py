"""PNG files whose bytes are the same everywhere: the pixels are stored, because zlib builds compress differently."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_BLOCK = 0xFFFF


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture [H, W, 3] in RGB as an 8-bit truecolour PNG (PNG specification, sections 11.2 and 11.3)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # the leading 0 of each row: no filter
    rows[:, 1:] = pixels.reshape(height, width * 3)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows.tobytes())) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _stored(content: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4)."""
    blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    stream = b"\x78\x01"
    for number, block in enumerate(blocks, start=1):
        stream += struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ _BLOCK) + block
    return stream + struct.pack(">I", zlib.adler32(content))
