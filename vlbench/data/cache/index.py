"""An Arrow index of the examples of large files, written once into the cache, and sequences that read rows lazily.

An index is an Arrow file in the IPC format with one row per example, in record batches of `ROWS` rows. Its columns:

- `id`, `group`, `text`: strings.
- `images`: the query's images as JSON, `[[path, key], ...]`.
- `tags`: as a JSON object.
- `reference`: as JSON, as pydantic writes the dataclass that the adapter's return annotation names.

The file is mapped into memory. Ids, groups, texts, images and tags are read by Arrow, and equal images and tags are
decoded once; only references are parsed. `IndexedExamples.columns` holds the columns as Python objects: each is made on
first use and kept, equal references are one object. So whoever goes over all examples reads columns
(`vlbench.core.columns`), and an example is made only where one is asked for: by its row, or in a pass over all, which
parses the references once for all later passes.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import pyarrow as pa
from pydantic import TypeAdapter

from vlbench.core.columns import Columns, LazyColumn, LazyExamples, columns_of, queries_at, refs_of, take
from vlbench.core.errors import LONGEST, DataError
from vlbench.core.examples import Example, Examples, ImageRef, Query
from vlbench.core.garbage import without_garbage_collection
from vlbench.core.paths import visible
from vlbench.core.task import Adapter, SplitFiles
from vlbench.core.user_code import UserCodeError
from vlbench.data.cache.folder import CannotWrite, atomic_file, cache_folder, file_sha256
from vlbench.data.files.code import CODE, content_sha256, files_below, with_imports
from vlbench.data.files.foreign import reading

BIG = 32 << 20
"""Bytes of annotations above which examples are not held in memory."""
ROWS = 4096
"""Examples per record batch, and per block of a pass over all of them."""
_SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("group", pa.string()), ("text", pa.string()), ("images", pa.binary()),
        ("tags", pa.binary()), ("reference", pa.large_binary()),
    ]
)  # fmt: skip

Value = TypeVar("Value")


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, "is not a readable index", "delete it, and it is rebuilt")


class _Memo(dict[bytes, Value], Generic[Value]):
    """The values of JSON texts of an index file, each decoded once."""

    def __init__(self, path: Path, decode: Callable[[bytes], Value]) -> None:
        self._path, self._decode = path, decode

    def __missing__(self, content: bytes) -> Value:
        with _reading(self._path):
            value = self[content] = self._decode(content)
        return value


class Parser:
    """Parses the references of the index at `path`. kind: as of `IndexedExamples`."""

    def __init__(self, path: Path, kind: type[Example[object]]) -> None:
        self.path = path
        self._decode: Callable[[bytes], object] = TypeAdapter(get_args(kind)[0]).validate_json

    def parse(self, contents: Sequence[bytes]) -> list[object]:
        """The references of JSON texts."""
        with _reading(self.path):
            return list(map(self._decode, contents))


class IndexedExamples(LazyExamples):
    """The examples of an index file; raises DataError if the file cannot be read, also where values are decoded.

    kind: `Example[...]` with the type of their reference.
    """

    def __init__(self, path: Path, kind: type[Example[object]]) -> None:
        self.path, self.kind = path, kind
        self._parser = Parser(path, kind)
        self._images, self._tags = _Memo(path, _read_images), _Memo(path, _read_tags)
        with _reading(path):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()  # nothing is copied
            table.validate(full=True)  # without which Arrow reads damaged offsets beyond the file, and crashes
        self._table: Mapping[str, pa.ChunkedArray] = dict(zip(table.column_names, table.columns, strict=True))
        # Columns hold what they are read with, never `self`: all columns would live until garbage is collected.
        self._references = LazyColumn(len(self), partial(_distinct, self._table["reference"], self._parser.parse))

    def __reduce__(self) -> tuple[type[IndexedExamples], tuple[Path, type[Example[object]]]]:
        return IndexedExamples, (self.path, self.kind)  # a worker process opens the file itself

    def __len__(self) -> int:
        return len(self._table["id"])

    def __iter__(self) -> Iterator[Example[object]]:
        self._references.values  # noqa: B018 - parses them once for this pass and all later ones
        yield from super().__iter__()

    @cached_property
    def columns(self) -> Columns[object]:
        length = len(self)
        names = dict.fromkeys(
            tag for content in self._table["tags"].unique().to_pylist() for tag in self._tags[content]
        )
        return Columns(
            ids=LazyColumn(length, self._table["id"].to_pylist),
            groups=LazyColumn(length, partial(_distinct, self._table["group"], list)),
            references=self._references,
            tags={tag: LazyColumn(length, partial(_tag_values, self._table["tags"], self._tags, tag)) for tag in names},
        )

    @cached_property
    def refs(self) -> Iterable[ImageRef]:
        contents = self._table["images"].unique().to_pylist()
        return tuple(dict.fromkeys(ref for content in contents for ref in self._images[content]))

    def take(self, rows: Sequence[int]) -> list[Example[object]]:
        tags = map(self._tags.__getitem__, self._values("tags", rows))
        columns = (
            self._values("id", rows),
            self.queries(rows),
            self._references_at(rows),
            self._values("group", rows),
            tags,
        )
        return list(map(Example, *columns))

    def queries(self, rows: Sequence[int]) -> list[Query]:
        return list(map(Query, map(self._images.__getitem__, self._values("images", rows)), self._values("text", rows)))

    def _values(self, name: str, rows: Sequence[int]) -> list[Any]:
        """The values of a column in these rows, as Arrow holds them."""
        column = self._table[name]
        if isinstance(rows, range) and rows.step == 1:
            values: list[Any] = column.slice(rows.start, len(rows)).to_pylist()
            return values
        return [column[row].as_py() for row in rows]

    def _references_at(self, rows: Sequence[int]) -> list[object]:
        if self._references.is_read:
            return list(map(self._references.values.__getitem__, rows))
        return self._parser.parse(self._values("reference", rows))


def _distinct(column: pa.ChunkedArray, decode: Callable[[list[Any]], list[Value]]) -> list[Value]:
    """The values of a whole column, of which each distinct one is decoded once."""
    encoded = column.dictionary_encode()
    values = decode(encoded.chunk(0).dictionary.to_pylist()) if encoded.num_chunks else []
    return [values[code] for chunk in encoded.chunks for code in chunk.indices.to_pylist()]


def _tag_values(column: pa.ChunkedArray, tags: Mapping[bytes, Mapping[str, str]], tag: str) -> list[str | None]:
    return _distinct(column, lambda contents: [tags[content].get(tag) for content in contents])


class Joined(LazyExamples):
    """Several sequences of examples, one after the other."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Example[object]]:
        return chain.from_iterable(self.parts)

    @cached_property
    def columns(self) -> Columns[object]:
        parts = list(map(columns_of, self.parts))
        names = dict.fromkeys(tag for part in parts for tag in part.tags)
        return Columns(
            ids=self._joined([part.ids for part in parts]),
            groups=self._joined([part.groups for part in parts]),
            references=self._joined([part.references for part in parts]),
            tags={tag: self._joined([part.tags.get(tag, [None] * len(part.ids)) for part in parts]) for tag in names},
        )

    @property
    def refs(self) -> Iterable[ImageRef]:
        return chain.from_iterable(map(refs_of, self.parts))

    def take(self, rows: Sequence[int]) -> list[Example[object]]:
        return self._by_part(rows, take)

    def queries(self, rows: Sequence[int]) -> list[Query]:
        return self._by_part(rows, queries_at)

    def _by_part(self, rows: Sequence[int], read: Callable[[Examples, Sequence[int]], list[Value]]) -> list[Value]:
        """What `read` returns of each part for its rows, in the order of `rows`."""
        numbers = [bisect_right(self._ends, row) for row in rows]
        starts = [0, *self._ends]
        values = {
            number: iter(
                read(part, [row - starts[number] for row, own in zip(rows, numbers, strict=True) if own == number])
            )
            for number, part in enumerate(self.parts)
            if number in numbers
        }
        return [next(values[number]) for number in numbers]

    def _joined(self, parts: Sequence[Sequence[Value]]) -> LazyColumn[Value]:
        return LazyColumn(len(self), lambda: list(chain.from_iterable(parts)))


@without_garbage_collection()
def read_examples(adapter: Adapter, files: SplitFiles, big: int | None = None) -> Examples:
    """Return the adapter's examples as a list, or as `IndexedExamples` built on first use if the files are large.

    It is also a list if the cache cannot be written. An adapter whose return annotation does not state the type of the
    reference is always read into a list. big: bytes of annotations above which files are large, `BIG` by default.
    """
    tables = [path for _, path in annotation_files(files)]
    kind = example_type(adapter)
    if kind is None or sum(path.stat().st_size for path in tables) < (BIG if big is None else big):
        return list(inside(adapter(files), files))
    cache = cache_folder()
    path = cache / "examples" / f"{_key(adapter, files, tables, cache)}.arrow"
    if not os.access(path, os.R_OK):
        try:  # no lock: all processes write the same examples under the same name
            _write(path, inside(adapter(files), files), kind)
        except CannotWrite:
            return list(inside(adapter(files), files))
    return IndexedExamples(path, kind)


def inside(examples: Iterator[Example[object]], files: SplitFiles) -> Iterator[Example[object]]:
    """Yield the same examples after checking that the paths of their images are inside the split's folders.

    These are the split's root, the folders that it shares, and the paths that its card names. Links inside them are
    allowed: only the user can create them, annotations cannot. Raises DataError if an image's path leads elsewhere.
    """
    named = [str(files.place(name)).split("{", 1)[0] for name in files.card.files]
    folders = [str(files.root), *map(str, files.siblings), *named]
    allowed = tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)  # noqa: PTH100, PTH118
    for example in examples:
        if not isinstance(example, Example):
            raise UserCodeError(
                f"the adapter yields a {type(example).__name__} for split {files.split!r} below {files.root}: expected "
                f"an Example"
            )
        for ref in example.query.images:
            path = str(ref.path)
            plain = path.startswith(allowed) and ".." not in path  # most paths; spares them the slow check below
            if "\0" in path or not (plain or os.path.abspath(path).startswith(allowed)):  # noqa: PTH100
                raise DataError(
                    f"example {example.id!r} of split {files.split!r} asks for the image {path[:LONGEST]!r} outside "
                    f"of {files.root}: fetch the annotations again, or correct the task's adapter"
                )
        yield example


def annotation_files(files: SplitFiles) -> Iterator[tuple[str, Path]]:
    """Yield the split's files that are not images, with their name on the card: files, and JSON shards in folders."""
    for name in sorted(files.card.files):
        path = files.place(name)
        if path.is_file():
            yield name, path
        elif path.is_dir():
            yield from ((f"{name}/{shard.name}", shard) for shard in visible(path, "*.json*"))


def example_type(adapter: Adapter) -> type[Example[object]] | None:
    """`Example[...]` as in the adapter's return annotation; None if that does not state the type of the reference."""
    kinds: tuple[type[Example[object]], ...] = get_args(get_type_hints(adapter).get("return"))
    references = get_args(kinds[0]) if kinds else ()
    return kinds[0] if references and references[0] not in (Any, object) else None


def _key(adapter: Adapter, files: SplitFiles, tables: Sequence[Path], cache: Path) -> str:
    """A hash of the files, the paths of their images, and the code that reads them."""
    # Adapters read through this package, through modules beside them and through each other's.
    beside, readers = Path(adapter.__code__.co_filename).parent, Path(__file__).parents[1]
    code = with_imports(beside, files_below(beside, CODE))
    material = [
        files.split,
        str(files.root.absolute()),
        [str(folder.absolute()) for folder in files.siblings],
        {name: str(files.place(name)) for name in files.card.files},
        [file_sha256(path, cache) for path in tables],
        content_sha256(code | {f"vlbench.data/{path.relative_to(readers)}": path for path in readers.rglob("*.py")}),
    ]
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:32]


def _write(path: Path, examples: Iterator[Example[object]], kind: type[Example[object]]) -> None:
    dump = TypeAdapter(get_args(kind)[0]).dump_json
    with atomic_file(path) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        while block := list(islice(examples, ROWS)):
            columns = [
                [example.id for example in block],
                [example.group for example in block],
                [example.query.text for example in block],
                [_dump([(str(ref.path), ref.key) for ref in example.query.images]) for example in block],
                [_dump(example.tags) for example in block],
                [dump(example.reference) for example in block],
            ]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _dump(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def _read_images(content: bytes) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(Path(path), key) for path, key in json.loads(content))


def _read_tags(content: bytes) -> Mapping[str, str]:
    tags: Mapping[str, str] = json.loads(content)
    return tags
