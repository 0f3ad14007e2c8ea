"""Read the members of a large JSON object, or the elements of a list, one by one, without holding the file."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import BinaryIO, TypeVar

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import cannot_read
from vlbench.data.json.document import as_list, as_object, list_at, read_json
from vlbench.data.json.lines import not_json, not_utf8, reject_constant, reject_gzip

CHUNK = 1 << 20
"""Bytes per read."""
LONGEST_MEMBER = 1 << 30
"""Characters; the largest member of official files, a list of all questions, has half of that."""
LONGEST_ATOM = 16
"""More characters than any literal or escape has: a syntax error this far from the end is not due to a cut-off text."""

Parsed = TypeVar("Parsed")
Parser = Callable[[str, int], tuple[Parsed, int]]
"""Text and position -> the value there and the position after it; raises JSONDecodeError."""

_skip_space = re.compile(r"[ \t\n\r]*").match
_parse_value = JSONDecoder(parse_constant=reject_constant).raw_decode


def entries(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the key and value of each member of the object in a JSON file, in file order.

    A byte order mark and CRLF line ends are accepted. Memory holds all keys, one member, and 1 MiB of text or as much
    as a larger member needs. Raises DataError if the file cannot be read, is compressed, is not UTF-8, is truncated or
    otherwise not JSON (NaN and Infinity are not), with the position; is not an object; or has a key twice.
    """
    keys: set[str] = set()
    with _opened(path) as window:
        has_next = window.parse(_parse_start)
        while has_next:
            key, value, has_next = window.parse(_parse_member)
            if key in keys:
                raise _twice(path, key)
            keys.add(key)
            yield key, value
        _finish(window)


def list_entries(path: Path, key: str, members: dict[str, object]) -> Iterator[object]:
    """Yield the elements of the list called `key` of the object in a JSON file, in file order.

    members: receives the other members of the object when the file is read up to them, and an empty list for `key`.
    Memory holds these and one element. Raises DataError as `entries` does, or if there is no such list.
    """
    with _opened(path) as window:
        if not window.parse(partial(_opens, "{")):
            as_object(read_json(path), str(path))  # names what the file holds
        has_next = window.parse(_parse_start)
        while has_next:
            if key not in members and window.parse(partial(_open_list_called, key)):
                members[key] = []
                yield from _elements(window)
                has_next = window.parse(_parse_delimiter)
                continue
            name, value, has_next = window.parse(_parse_member)
            if name in members:
                raise _twice(path, name)
            members[name] = value
        _finish(window)
    list_at(members, key, str(path))


def elements(path: Path) -> Iterator[object]:
    """Yield the elements of the list in a JSON file, in file order; memory holds one. Raises DataError as `entries`
    does, or if it is not a list.
    """
    with _opened(path) as window:
        if not window.parse(_open_list):
            as_list(read_json(path), str(path))  # names what the file holds
        yield from _elements(window)
        _finish(window)


def is_list(path: Path) -> bool:
    """Whether a JSON file holds a list, as far as its first character tells."""
    with _opened(path) as window:
        return window.parse(partial(_opens, "["))


@contextmanager
def _opened(path: Path) -> Iterator[_Window]:
    try:
        with path.open("rb") as stream:
            yield _Window(path, stream)
    except OSError as error:
        raise cannot_read(path, error) from None


def _twice(path: Path, key: str) -> DataError:
    return DataError(f"{path} holds the key {key[:60]!r} twice: expected once; fetch the file again")


def _elements(window: _Window) -> Iterator[object]:
    """Yield the elements of the list whose bracket has just been parsed, and parse its end."""
    has_next = window.parse(_has_elements)
    while has_next:
        value, has_next = window.parse(_parse_element)
        yield value


def _finish(window: _Window) -> None:
    """Check that nothing but space is left."""
    window.parse(_parse_end)
    while not window.at_end:
        window.read_chunk()
        window.parse(_parse_end)


class _Window:
    """The part of a text that is in memory, and a position in it; `parse` moves the position and reads on as needed."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self.at_end = path, False
        self._stream, self._decode = stream, codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._position = "", 0
        self._bytes_read = self._characters_dropped = 0
        self.read_chunk()

    def parse(self, parser: Parser[Parsed]) -> Parsed:
        """Return what the parser reads at the current position, and move behind it."""
        while True:
            try:
                parsed, self._position = parser(self._text, self._position)
                return parsed
            except JSONDecodeError as error:
                if self.at_end or not _may_be_cut_off(error):
                    raise self._not_json(error.msg, error.pos) from None
                if len(self._text) - self._position > LONGEST_MEMBER:
                    raise self._not_json(
                        f"an entry of more than {LONGEST_MEMBER:,} characters", self._position
                    ) from None
                self.read_chunk()
            except (ValueError, RecursionError) as error:
                raise self._not_json(f"{error}, in the entry", self._position) from None

    def read_chunk(self) -> None:
        """Drop the parsed text and read a chunk, or as much as is unparsed, so that large members cost linear time."""
        content = self._stream.read(max(CHUNK, len(self._text) - self._position))
        if self._bytes_read == 0:
            reject_gzip(content, self.path, "JSON is")
            if content.startswith(codecs.BOM_UTF8):
                content, self._bytes_read = content.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
        self._bytes_read += len(content)
        self.at_end = not content
        try:
            added = self._decode(content, self.at_end)
        except UnicodeDecodeError as error:
            byte = self._bytes_read - len(error.object) + error.start
            raise not_utf8(str(self.path), f"{error.reason} at byte {byte}") from None
        self._characters_dropped += self._position
        self._text, self._position = self._text[self._position :] + added, 0

    def _not_json(self, reason: str, position: int) -> DataError:
        what = reason.removesuffix(" at")  # with which some of json's messages end
        return not_json(str(self.path), f"{what} at character {self._characters_dropped + position:,}")


def _parse_start(text: str, position: int) -> tuple[bool, int]:
    """Parse the brace that opens an object; True if a member follows."""
    position = _end_of_space(text, position)
    if not text.startswith("{", position):
        raise JSONDecodeError("a JSON object is expected, in braces", text, position)
    position = _end_of_space(text, position + 1)
    if position == len(text):
        raise JSONDecodeError("Expecting a key or '}'", text, position)
    return (False, position + 1) if text[position] == "}" else (True, position)


def _parse_member(text: str, position: int) -> tuple[tuple[str, object, bool], int]:
    """Parse a key, its value and the character behind them; True if another member follows."""
    key, position = _parse_key(text, position)
    value, position = _parse_value(text, _end_of_space(text, position))
    has_next, position = _parse_delimiter(text, position)
    return (key, value, has_next), position


def _parse_key(text: str, position: int) -> tuple[str, int]:
    """Parse a key and its colon."""
    position = _end_of_space(text, position)
    if not text.startswith('"', position):
        raise JSONDecodeError("Expecting a key in double quotes", text, position)
    key, position = _parse_value(text, position)
    position = _end_of_space(text, position)
    if not text.startswith(":", position):
        raise JSONDecodeError("Expecting ':' delimiter", text, position)
    return key, position + 1


def _parse_delimiter(text: str, position: int) -> tuple[bool, int]:
    """Parse the character behind a member of an object; True if another member follows."""
    position = _end_of_space(text, position)
    if not text.startswith((",", "}"), position):
        raise JSONDecodeError("Expecting ',' delimiter", text, position)
    return text[position] == ",", position + 1


def _opens(bracket: str, text: str, position: int) -> tuple[bool, int]:
    """Whether the next character but space is the bracket; the position stays."""
    start = _end_of_space(text, position)
    if start == len(text):
        raise JSONDecodeError("Expecting value", text, start)
    return text[start] == bracket, position


def _open_list(text: str, position: int) -> tuple[bool, int]:
    """Parse the bracket that opens a list; False if there is none, and the position stays."""
    opens_list, position = _opens("[", text, position)
    return opens_list, _end_of_space(text, position) + 1 if opens_list else position


def _open_list_called(key: str, text: str, position: int) -> tuple[bool, int]:
    """Parse a member of an object up to the bracket of its list if it is a list called `key`; False if not, and the
    position stays.
    """
    name, start = _parse_key(text, position)
    opens_list, start = _open_list(text, start)
    return (True, start) if opens_list and name == key else (False, position)


def _has_elements(text: str, position: int) -> tuple[bool, int]:
    """Parse the end of an empty list; True if an element follows."""
    position = _end_of_space(text, position)
    if position == len(text):
        raise JSONDecodeError("Expecting value", text, position)
    return (False, position + 1) if text[position] == "]" else (True, position)


def _parse_element(text: str, position: int) -> tuple[tuple[object, bool], int]:
    """Parse an element of a list and the character behind it; True if another element follows."""
    value, position = _parse_value(text, _end_of_space(text, position))
    position = _end_of_space(text, position)
    if not text.startswith((",", "]"), position):
        raise JSONDecodeError("Expecting ',' delimiter", text, position)
    return (value, text[position] == ","), position + 1


def _parse_end(text: str, position: int) -> tuple[None, int]:
    """Parse the space behind the object."""
    position = _end_of_space(text, position)
    if position < len(text):
        raise JSONDecodeError("Extra data", text, position)
    return None, position


def _end_of_space(text: str, position: int) -> int:
    space = _skip_space(text, position)
    return space.end() if space else position


def _may_be_cut_off(error: JSONDecodeError) -> bool:
    """Whether more text could resolve the error: it is near the end of the text, or a string is not closed."""
    return error.pos > len(error.doc) - LONGEST_ATOM or error.msg.startswith("Unterminated string")
