"""Examples of big files, written once into the cache as Arrow and read from there one by one."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints, overload

import pyarrow as pa
from pydantic import TypeAdapter

from vlbench.core.errors import LONGEST, DataError
from vlbench.core.examples import Example
from vlbench.core.task import Adapter, SplitFiles, ids_of
from vlbench.data.cache.folder import atomic_file, cache_folder, file_sha256
from vlbench.data.files.code import CODE, content_sha256, files_below, with_imports

BIG = 32 << 20
"""Bytes of annotations from which on examples are not held in memory."""
ROWS = 4096
"""Examples per record batch: what one read from the file brings."""
_SCHEMA = pa.schema([("id", pa.string()), ("example", pa.binary())])


class IndexedExamples(Sequence[Example[Any]]):
    """The examples of an index file, each made anew when it is asked for. kind: `Example[...]` of their reference."""

    def __init__(self, path: Path, kind: type[Example[Any]]) -> None:
        """Open the file.

        Raises:
            DataError: it cannot be read.
        """
        self.path, self.kind = path, kind
        self._parse = TypeAdapter(kind).validate_json
        try:
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            last = self._file.num_record_batches - 1
            self._length = last * ROWS + self._file.get_batch(last).num_rows if last >= 0 else 0
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is no readable index ({error}): delete it to have it made anew") from None

    def __reduce__(self) -> tuple[type[IndexedExamples], tuple[Path, type[Example[Any]]]]:
        return IndexedExamples, (self.path, self.kind)  # a worker process opens the file itself

    @property
    def ids(self) -> list[str]:
        """All ids in order, without the examples."""
        return [name for batch in self._batches() for name in batch.column("id").to_pylist()]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Example[Any]]:
        for batch in self._batches():
            yield from map(self._example, batch.column("example"))

    @overload
    def __getitem__(self, row: int) -> Example[Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[Example[Any]]: ...

    def __getitem__(self, row: int | slice) -> Example[Any] | list[Example[Any]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(self._length))]
        if not -self._length <= row < self._length:
            raise IndexError(f"row {row} of {self._length} examples")
        number, place = divmod(row % self._length, ROWS)
        return self._example(self._file.get_batch(number).column("example")[place])

    def _batches(self) -> Iterator[Any]:
        return (self._file.get_batch(number) for number in range(self._file.num_record_batches))

    def _example(self, content: Any) -> Example[Any]:
        return self._parse(content.as_buffer().to_pybytes())


class Chosen(Sequence[Example[Any]]):
    """Some rows of a sequence of examples, in that order, none of them held."""

    def __init__(self, examples: Sequence[Example[Any]], rows: Sequence[int]) -> None:
        self.examples, self.rows = examples, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> Example[Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[Example[Any]]: ...

    def __getitem__(self, row: int | slice) -> Example[Any] | list[Example[Any]]:
        if isinstance(row, slice):
            return [self.examples[one] for one in self.rows[row]]
        return self.examples[self.rows[row]]


class Joined(Sequence[Example[Any]]):
    """Several sequences of examples, one after the other, none of them held."""

    def __init__(self, parts: Sequence[Sequence[Example[Any]]]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(map(len, self.parts)))

    @property
    def ids(self) -> list[str]:
        """All ids in order."""
        return [name for part in self.parts for name in ids_of(part)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Example[Any]]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, row: int) -> Example[Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[Example[Any]]: ...

    def __getitem__(self, row: int | slice) -> Example[Any] | list[Example[Any]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} examples")
        place = row % len(self)
        number = bisect_right(self._ends, place)
        return self.parts[number][place - self._ends[number]]  # counted from the part's end


def read_examples(adapter: Adapter, files: SplitFiles) -> Sequence[Example[Any]]:
    """What the adapter yields, as a list; from big files as `IndexedExamples`, made on first use.

    An adapter whose return annotation does not say what kind of reference it gives is always read into a list.
    """
    tables = [path for _, path in annotation_files(files)]
    kind = _kind(adapter)
    if kind is None or sum(path.stat().st_size for path in tables) < BIG:
        return list(inside(adapter(files), files))
    cache = cache_folder()
    place = cache / "examples" / f"{_key(adapter, files, tables, cache)}.arrow"
    if not place.is_file():
        _write(place, inside(adapter(files), files), TypeAdapter(kind))
    return IndexedExamples(place, kind)


def inside(examples: Iterator[Example[Any]], files: SplitFiles) -> Iterator[Example[Any]]:
    """The same examples, as long as their pictures lie where the split may have some, by their paths.

    That is: below its root, the folders that it shares, and the places that its card names. Links within those are the
    user's own doing: nothing that is read can make one.

    Raises:
        DataError: the path of a picture leads elsewhere.
    """
    named = [str(files.place(name)).split("{", 1)[0] for name in files.card.files]
    folders = [str(files.root), *map(str, files.siblings), *named]
    homes = tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)  # noqa: PTH100, PTH118
    for example in examples:
        for ref in example.query.images:
            path = str(ref.path)
            plain = path.startswith(homes) and ".." not in path  # spares most the work of the next line
            if "\0" in path or not (plain or os.path.abspath(path).startswith(homes)):  # noqa: PTH100
                raise DataError(
                    f"example {example.id!r} of split {files.split!r} asks for the picture {path[:LONGEST]!r} outside "
                    f"of {files.root}: fetch the annotations again, or mend the task's adapter"
                )
        yield example


def annotation_files(files: SplitFiles) -> Iterator[tuple[str, Path]]:
    """The split's files that are no pictures, with their name on the card: files, and the JSON in folders of shards."""
    for name in sorted(files.card.files):
        place = files.place(name)
        if place.is_file():
            yield name, place
        elif place.is_dir():
            yield from ((f"{name}/{path.name}", path) for path in sorted(place.glob("*.json*")))


def _kind(adapter: Adapter) -> type[Example[Any]] | None:
    """`Example[...]` with the reference's type, as the adapter's annotation says; None where it says nothing."""
    returned = get_type_hints(adapter).get("return")
    (kind,) = get_args(returned) or (None,)
    (reference,) = get_args(kind) or (Any,)
    return None if reference is Any else cast("type[Example[Any]]", kind)


def _key(adapter: Adapter, files: SplitFiles, tables: Sequence[Path], cache: Path) -> str:
    """Changes with the files, with where their pictures lie, and with the code that reads them."""
    # Adapters read through this package, through modules beside them and through each other's.
    beside, readers = Path(adapter.__code__.co_filename).parent, Path(__file__).parents[1]
    code = with_imports(beside, files_below(beside, CODE))
    meaning = [
        files.split,
        str(files.root.absolute()),
        [str(folder.absolute()) for folder in files.siblings],
        {name: str(files.place(name)) for name in files.card.files},
        [file_sha256(path, cache) for path in tables],
        content_sha256(code | {f"vlbench.data/{path.relative_to(readers)}": path for path in readers.rglob("*.py")}),
    ]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:32]


def _write(place: Path, examples: Iterator[Example[Any]], kind: TypeAdapter[Any]) -> None:
    with atomic_file(place) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        while block := list(islice(examples, ROWS)):
            columns = [[example.id for example in block], [kind.dump_json(example) for example in block]]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
