"""Hostile changes to files of every format, and the one rule: a sentence or a correct result, never anything else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from vlbench.core.errors import VlbenchError

settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -(10**400), 0.5, -1e308, float("nan"), float("inf"), "", " ",
    "\x00", "\x1b[31m", "\ud800", "a\nb", "../../../etc/passwd", "/etc/passwd", "..", "{directory}", "x" * 100_000,
    [], {}, [[]], [None], {"": None}, [1, "two", None], "NaN", "1e400", "☃", {"a": {"a": {}}},
)  # fmt: skip
"""Values that stand where others are expected."""
DEEP = b"[" * 50_000
RAW = (b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"-Infinity", b"1e999", b"\r", b"\n\n", b"{", b"]", b'"',
       b"\\ud800", b"\t", b"9" * 5000, b"\x80", DEEP)  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container within, and every key or place of it."""
    todo = [value]
    while todo:
        inner = todo.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:
            yield inner, key
            todo.append(inner[key])


def change_value(value: Any, rng: Random) -> Any:
    """One change in the structure of a value of JSON."""
    places = list(_places(value))
    if not places:
        return rng.choice(HOSTILE)
    inner, key = rng.choice(places)
    kind = rng.choice(("delete", "replace", "replace", "replace", "duplicate", "swap", "add", "wrap"))
    if kind == "delete":
        del inner[key]
    elif kind == "replace":
        inner[key] = rng.choice(HOSTILE)
    elif kind == "duplicate" and isinstance(inner, list):
        inner.append(inner[key])
    elif kind == "swap":
        other, name = rng.choice(places)
        inner[key] = json.loads(json.dumps(other[name]))
    elif kind == "wrap":
        inner[key] = [inner[key]] if rng.random() < 0.5 else {"x": inner[key]}
    elif isinstance(inner, dict):
        inner["unheard of"] = rng.choice(HOSTILE)
    return value


def change_bytes(content: bytes, rng: Random) -> bytes:
    """One change in the bytes of a file."""
    at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    kind = rng.choice(("cut", "drop", "insert", "overwrite", "repeat", "flip", "gzip", "utf-16", "latin-1"))
    if kind == "cut":
        return content[:at]
    if kind == "drop":
        return content[:at] + content[min(to, at + 40) :]
    if kind == "insert":
        return content[:at] + rng.choice(RAW) + content[at:]
    if kind == "overwrite":
        return content[:at] + rng.choice(RAW) + content[min(to, at + 8) :]
    if kind == "repeat":
        return content[:to] + content[at:]
    if kind == "flip" and at < len(content):
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind == "gzip":
        return gzip.compress(content, 1)
    if kind == "utf-16":
        return content.decode("utf8", "replace").encode("utf-16")
    return content[:at] + "é".encode("latin-1") + content[at:]


def change_json(content: bytes, rng: Random) -> bytes:
    """A change in the structure of one document of JSON, or of one line of JSON lines."""
    try:
        return json.dumps(change_value(json.loads(content), rng)).encode("utf8", "replace")
    except ValueError:
        lines = content.split(b"\n")
        row = rng.randrange(len(lines))
        lines[row] = json.dumps(change_value(json.loads(lines[row] or b"{}"), rng)).encode()
        return b"\n".join(lines)


@pytest.fixture(scope="session")
def mutate() -> Callable[[bytes, Random], bytes]:
    """A file's content with one or two hostile changes; `structure` says whether it is JSON."""

    def change(content: bytes, rng: Random, structure: bool = True) -> bytes:
        if structure and rng.random() < 0.7:
            content = change_json(content, rng)
            return content if rng.random() < 0.8 else change_json(content, rng)
        return change_bytes(content, rng)

    return change


@pytest.fixture(scope="session")
def sentence_or_result() -> Callable[[], Any]:
    """A context in which a VlbenchError of one short line may be raised, and nothing else."""

    @contextmanager
    def context() -> Iterator[None]:
        try:
            yield
        except VlbenchError as error:
            assert error.message.strip(), "an error says nothing"
            assert "\n" not in error.message, error.message[:300]
            assert len(error.message) < 3000, f"{len(error.message)} characters: {error.message[:300]}"
            assert error.message.isprintable(), ascii(error.message[:300])

    return context
