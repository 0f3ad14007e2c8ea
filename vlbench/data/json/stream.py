"""The members of one large JSON object from elsewhere, one after the other, without the file in memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import BinaryIO, TypeVar

from vlbench.core.errors import DataError
from vlbench.data.json.lines import GZIP

CHUNK = 1 << 20
"""Bytes read at a time."""
LONGEST_ATOM = 16
"""No literal and no escape has as many characters, so a fault this far from the end of a text is not a torn one."""

Found = TypeVar("Found")
Rule = Callable[[str, int], tuple[Found, int]]
"""Text and a place in it -> what stands there and the place behind it, or a JSONDecodeError."""

_gap = re.compile(r"[ \t\n\r]*").match


def entries(path: Path) -> Iterator[tuple[str, object]]:
    """Yield key and value of each member of the object that a file of JSON holds, in its order.

    A byte order mark and CRLF line ends are tolerated. Held in memory: all keys, one member, and 1 MiB of text or as
    much as a larger member needs.

    Raises:
        DataError: the file cannot be read, is compressed, is not UTF-8, is torn or else not JSON (NaN and Infinity are
            none), with the position; holds something else than an object; or holds a key twice.
    """
    seen: set[str] = set()
    try:
        with path.open("rb") as stream:
            for key, value in _members(_Window(path, stream)):
                if key in seen:
                    raise DataError(f"{path} holds the key {key[:60]!r} twice: expected once; fetch the file again")
                seen.add(key)
                yield key, value
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): give a readable file") from None


def _members(window: _Window) -> Iterator[tuple[str, object]]:
    go_on = window.parse(_opening)
    while go_on:
        key, value, go_on = window.parse(_member)
        yield key, value
    window.parse(_nothing)
    while not window.whole:
        window.read_on()
        window.parse(_nothing)


class _Window:
    """A text of which only the part at hand is held; `parse` moves on in it, and reads on where that part ends."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self.whole = path, False
        self._stream, self._decode = stream, codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._at = "", 0
        self._bytes_read = self._characters_dropped = 0
        self.read_on()

    def parse(self, rule: Rule[Found]) -> Found:
        """What the rule finds where the window stands, which then stands behind it."""
        while True:
            try:
                found, self._at = rule(self._text, self._at)
                return found
            except JSONDecodeError as error:
                if self.whole or not _may_be_torn(error):
                    raise self._fault(error.msg, error.pos) from None
                self.read_on()
            except (ValueError, RecursionError) as error:
                raise self._fault(str(error), self._at) from None

    def read_on(self) -> None:
        """Drop what is parsed and read a chunk, or as much as is left unparsed, so that large members cost no more."""
        content = self._stream.read(max(CHUNK, len(self._text) - self._at))
        if self._bytes_read == 0:
            content = self._start(content)
        self._bytes_read += len(content)
        self.whole = not content
        try:
            added = self._decode(content, self.whole)
        except UnicodeDecodeError as error:
            place = self._bytes_read - len(error.object) + error.start
            raise DataError(
                f"{self.path}: not UTF-8 ({error.reason} at byte {place}): save the file as UTF-8"
            ) from None
        self._characters_dropped += self._at
        self._text, self._at = self._text[self._at :] + added, 0

    def _start(self, content: bytes) -> bytes:
        if content.startswith(GZIP):
            raise DataError(f"{self.path} is compressed by gzip where JSON is expected: unpack it with gunzip")
        if content.startswith(codecs.BOM_UTF8):
            self._bytes_read = len(codecs.BOM_UTF8)
        return content.removeprefix(codecs.BOM_UTF8)

    def _fault(self, what: str, place: int) -> DataError:
        where = self._characters_dropped + place
        return DataError(f"{self.path}: not JSON ({what} at character {where:,}): mend the file or fetch it again")


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number, in the entry")


_value = JSONDecoder(parse_constant=_refuse).raw_decode


def _opening(text: str, at: int) -> tuple[bool, int]:
    """The brace that opens an object; whether a member follows."""
    at = _end_of_gap(text, at)
    if not text.startswith("{", at):
        raise JSONDecodeError("a JSON object is expected, in braces", text, at)
    at = _end_of_gap(text, at + 1)
    if at == len(text):
        raise JSONDecodeError("Expecting a key or '}'", text, at)
    return (False, at + 1) if text[at] == "}" else (True, at)


def _member(text: str, at: int) -> tuple[tuple[str, object, bool], int]:
    """A key, its value, and the sign behind them: whether another member follows."""
    at = _end_of_gap(text, at)
    if not text.startswith('"', at):
        raise JSONDecodeError("Expecting a key in double quotes", text, at)
    key, at = _value(text, at)
    at = _end_of_gap(text, at)
    if not text.startswith(":", at):
        raise JSONDecodeError("Expecting ':' delimiter", text, at)
    value, at = _value(text, _end_of_gap(text, at + 1))
    at = _end_of_gap(text, at)
    if not text.startswith((",", "}"), at):
        raise JSONDecodeError("Expecting ',' delimiter", text, at)
    return (key, value, text[at] == ","), at + 1


def _nothing(text: str, at: int) -> tuple[None, int]:
    at = _end_of_gap(text, at)
    if at < len(text):
        raise JSONDecodeError("Extra data", text, at)
    return None, at


def _end_of_gap(text: str, at: int) -> int:
    found = _gap(text, at)
    return found.end() if found else at


def _may_be_torn(error: JSONDecodeError) -> bool:
    """Whether more text could mend it: it lies at the end of the text, or is a string that nothing ends."""
    return error.pos > len(error.doc) - LONGEST_ATOM or error.msg.startswith("Unterminated string")
