"""An Arrow index of the examples of large files, written once into the cache, and sequences that read rows lazily."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, get_args, get_type_hints, overload

import pyarrow as pa
from pydantic import TypeAdapter

from vlbench.core.errors import LONGEST, DataError
from vlbench.core.examples import Example, Examples
from vlbench.core.paths import visible
from vlbench.core.task import Adapter, SplitFiles, ids_of
from vlbench.core.user_code import UserCodeError
from vlbench.data.cache.folder import CannotWrite, atomic_file, cache_folder, file_sha256
from vlbench.data.files.code import CODE, content_sha256, files_below, with_imports
from vlbench.data.files.foreign import reading

BIG = 32 << 20
"""Bytes of annotations above which examples are not held in memory."""
ROWS = 4096
"""Examples per record batch, the unit that is read from the file."""
_SCHEMA = pa.schema([("id", pa.string()), ("example", pa.binary())])


class LazyExamples(Examples):
    """A sequence of examples that are read when they are accessed. Subclasses define `_read` and `__len__`."""

    @abstractmethod
    def _read(self, row: int) -> Example[object]:
        """The example of a row, 0 <= row < len(self)."""

    @overload
    def __getitem__(self, row: int) -> Example[object]: ...

    @overload
    def __getitem__(self, row: slice) -> list[Example[object]]: ...

    def __getitem__(self, row: int | slice) -> Example[object] | list[Example[object]]:
        length = len(self)
        if isinstance(row, slice):
            return [self._read(index) for index in range(*row.indices(length))]
        if not -length <= row < length:
            raise IndexError(f"row {row} of {length} examples")
        return self._read(row % length)


class IndexedExamples(LazyExamples):
    """The examples of an index file, parsed on every access; raises DataError if the file cannot be opened.

    kind: `Example[...]` with the type of their reference.
    """

    def __init__(self, path: Path, kind: type[Example[object]]) -> None:
        self.path, self.kind = path, kind
        self._parse = TypeAdapter(kind).validate_json
        with reading(path, "is not a readable index", "delete it, and it is rebuilt"):
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            last = self._file.num_record_batches - 1
            self._length = last * ROWS + self._file.get_batch(last).num_rows if last >= 0 else 0

    def __reduce__(self) -> tuple[type[IndexedExamples], tuple[Path, type[Example[object]]]]:
        return IndexedExamples, (self.path, self.kind)  # a worker process opens the file itself

    @property
    def ids(self) -> list[str]:
        """All ids in order, without parsing the examples."""
        return [name for batch in self._batches() for name in batch.column("id").to_pylist()]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Example[object]]:
        for batch in self._batches():
            yield from map(self._example, batch.column("example"))

    def _read(self, row: int) -> Example[object]:
        number, row_in_batch = divmod(row, ROWS)
        return self._example(self._file.get_batch(number).column("example")[row_in_batch])

    def _batches(self) -> Iterator[pa.RecordBatch]:
        return (self._file.get_batch(number) for number in range(self._file.num_record_batches))

    def _example(self, content: pa.BinaryScalar) -> Example[object]:
        return self._parse(content.as_buffer().to_pybytes())


class Chosen(LazyExamples):
    """Some rows of a sequence of examples, in the order of `rows`."""

    def __init__(self, examples: Examples, rows: Sequence[int]) -> None:
        self.examples, self.rows = examples, rows

    def __len__(self) -> int:
        return len(self.rows)

    def _read(self, row: int) -> Example[object]:
        return self.examples[self.rows[row]]


class Joined(LazyExamples):
    """Several sequences of examples, one after the other."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(map(len, self.parts)))

    @property
    def ids(self) -> list[str]:
        """All ids in order."""
        return [name for part in self.parts for name in ids_of(part)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Example[object]]:
        return chain.from_iterable(self.parts)

    def _read(self, row: int) -> Example[object]:
        number = bisect_right(self._ends, row)
        return self.parts[number][row - self._ends[number]]  # a negative row, counted from the end of the part


def read_examples(adapter: Adapter, files: SplitFiles) -> Examples:
    """Return the adapter's examples as a list, or as `IndexedExamples` built on first use if the files are large.

    It is also a list if the cache cannot be written. An adapter whose return annotation does not state the type of the
    reference is always read into a list.
    """
    tables = [path for _, path in annotation_files(files)]
    kind = example_type(adapter)
    if kind is None or sum(path.stat().st_size for path in tables) < BIG:
        return list(inside(adapter(files), files))
    cache = cache_folder()
    path = cache / "examples" / f"{_key(adapter, files, tables, cache)}.arrow"
    if not os.access(path, os.R_OK):
        try:  # no lock: all processes write the same examples under the same name
            _write(path, inside(adapter(files), files), TypeAdapter(kind))
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


def _write(path: Path, examples: Iterator[Example[object]], kind: TypeAdapter[Example[object]]) -> None:
    with atomic_file(path) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        while block := list(islice(examples, ROWS)):
            columns = [[example.id for example in block], [kind.dump_json(example) for example in block]]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
