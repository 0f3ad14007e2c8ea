"""Examples read from an index are the ones the adapter yields, and it is made anew when a file changes."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vlbench.core.cards import SplitCard
from vlbench.core.columns import Chosen, columns_of, ids_and_queries, queries_of, refs_of, take
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.garbage import without_garbage_collection
from vlbench.core.task import Indexed, SplitFiles, ids_of
from vlbench.data.cache import index
from vlbench.data.cache.index import IndexedExamples, Joined, Parser, annotation_files, read_examples


@dataclass(frozen=True, slots=True)
class Answer:
    words: tuple[str, ...]
    box: tuple[float, float] | None = None
    sure: bool = False


read: list[str] = []


def adapter(files: SplitFiles) -> Iterator[Example[Answer]]:
    read.append(files.split)
    for row, line in enumerate(files.path("lines").read_text().splitlines()):
        ref = ImageRef(files.place("images") / f"{row}.jpg", str(row))
        box = (0.1 * row, 1 / 3) if row % 2 else None
        yield Example(
            f"00{row}", Query((ref,), line), Answer((line, "caf\u00e9"), box, row == 3), f"g{row // 2}", {"n": line}
        )


def untyped(files: SplitFiles) -> Iterator[Example[Any]]:
    return adapter(files)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SplitFiles:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "BIG", 0)
    monkeypatch.setattr(index, "ROWS", 4)
    (tmp_path / "lines.txt").write_text("".join(f"line {n}\n" for n in range(10)))
    return SplitFiles("train", tmp_path, SplitCard(files={"lines": ("lines.txt",), "images": ("images",)}))


def test_the_same_examples(files: SplitFiles) -> None:
    expected = list(adapter(files))
    found = read_examples(adapter, files)
    assert isinstance(found, IndexedExamples) and isinstance(found, Indexed)
    assert list(found) == expected and len(found) == 10
    assert [found[row] for row in range(10)] == expected
    assert found[-1] == expected[-1] and found[2:9:3] == expected[2:9:3]
    assert type(found[3].reference) is Answer and found[3].reference.sure is True
    assert ids_of(found) == ids_of(expected) == [f"00{n}" for n in range(10)]
    with pytest.raises(IndexError):
        found[10]


def test_it_is_read_once_and_again_when_the_file_changes(files: SplitFiles) -> None:
    read.clear()
    first = read_examples(adapter, files)
    assert list(read_examples(adapter, files)) == list(first) and read == ["train"]
    files.path("lines").write_text("another\n")
    assert [example.query.text for example in read_examples(adapter, files)] == ["another"]
    assert read == ["train", "train"]


def test_another_place_of_images_is_another_index(files: SplitFiles) -> None:
    before = read_examples(adapter, files)[0].query.images[0].path
    (files.root / "coco" / "images").mkdir(parents=True)
    moved = SplitFiles(files.split, files.root, files.card, (files.root / "coco",))
    after = read_examples(adapter, moved)[0].query.images[0].path
    assert (before, after) == (files.root / "images" / "0.jpg", files.root / "coco" / "images" / "0.jpg")


def test_workers_get_it_by_its_place(files: SplitFiles) -> None:
    found = read_examples(adapter, files)
    for examples in (found, Chosen(found, [3, 1]), Joined([found, found])):
        assert columns_of(examples).references[1] == examples[1].reference
        assert list(pickle.loads(pickle.dumps(examples))) == list(examples)


def test_examples_are_freed_without_collecting_garbage(files: SplitFiles) -> None:
    with without_garbage_collection():
        for make in (lambda found: found, lambda found: Chosen(found, [3, 1]), lambda found: Joined([found, found])):
            examples = make(read_examples(adapter, files))
            columns = columns_of(examples)
            assert columns.ids[0] and columns.groups[0] and columns.references[0] and columns.tags["n"]
            left = weakref.ref(examples)
            del examples, columns
            assert left() is None


def test_small_files_and_unknown_references_are_lists(files: SplitFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(read_examples(untyped, files), list)
    monkeypatch.setattr(index, "BIG", 1 << 20)
    assert read_examples(adapter, files) == list(adapter(files))


def test_no_examples(files: SplitFiles) -> None:
    files.path("lines").write_text("")
    assert len(read_examples(adapter, files)) == 0


def test_a_torn_index_is_named(files: SplitFiles) -> None:
    found = read_examples(adapter, files)
    assert isinstance(found, IndexedExamples)
    found.path.write_bytes(found.path.read_bytes()[:100])
    with pytest.raises(DataError, match="delete it, and it is rebuilt"):
        read_examples(adapter, files)


@pytest.mark.parametrize(
    "damage",
    [
        (b'"words"', b'"w\xf8rds"'),  # a reference
        (b'[["', b'[x"'),  # images
        (b'{"n"', b'{xn"'),  # tags
        (b"line 3", b"line\xff3"),  # a text
        (b"\x03\0\0\0\x06\0\0\0\x09\0\0\0", b"\x03\0\0\0\x06\0\0\0\x09\0\0\x7f"),  # where an id ends
    ],
)
def test_a_damaged_index_is_named(files: SplitFiles, damage: tuple[bytes, bytes]) -> None:
    found = read_examples(adapter, files)
    assert isinstance(found, IndexedExamples)
    content = found.path.read_bytes()
    assert damage[0] in content
    found.path.unlink()  # the old file is mapped into memory
    found.path.write_bytes(content.replace(*damage))
    with pytest.raises(DataError, match=r"is not a readable index .*: delete it, and it is rebuilt"):
        list(read_examples(adapter, files))


def test_a_fault_leaves_no_index(files: SplitFiles, tmp_path: Path) -> None:
    def faulty(files: SplitFiles) -> Iterator[Example[Answer]]:
        yield from adapter(files)
        raise DataError("line 11 is not what it should be")

    with pytest.raises(DataError, match="line 11"):
        read_examples(faulty, files)
    assert not list((tmp_path / "cache").glob("examples/*"))


def test_shards_are_annotations_and_images_are_not(files: SplitFiles) -> None:
    (files.root / "images").mkdir()
    (files.root / "images" / "0.jpg").write_bytes(b"")
    (files.root / "shards").mkdir()
    for number in (1, 0):
        (files.root / "shards" / f"train_{number}.json").write_text("{}")
    card = SplitCard(files={"questions": ("shards",), "images": ("images",)})
    found = annotation_files(SplitFiles("train", files.root, card))
    assert [name for name, _ in found] == ["questions/train_0.json", "questions/train_1.json"]


def test_columns_are_those_of_the_list(files: SplitFiles) -> None:
    expected = list(adapter(files))
    found = read_examples(adapter, files)
    rows = [7, 2, 2, 9]
    for examples, listed in (
        (found, expected),
        (Chosen(found, rows), [expected[row] for row in rows]),
        (Joined([found, expected[:3], found]), [*expected, *expected[:3], *expected]),
    ):
        columns, own = columns_of(examples), columns_of(listed)
        for name in ("ids", "groups", "references"):
            assert list(getattr(columns, name)) == list(getattr(own, name))
        assert {tag: list(values) for tag, values in columns.tags.items()} == dict(own.tags)
        assert list(examples) == listed and take(examples, [3, 0, 1]) == [listed[3], listed[0], listed[1]]
        assert list(queries_of(examples)) == [example.query for example in listed]
        assert ids_and_queries(examples, [2, 1]) == ids_and_queries(listed, [2, 1])
        assert dict.fromkeys(refs_of(examples)) == dict.fromkeys(refs_of(listed))


def test_references_are_parsed_once_and_only_where_they_are_read(
    files: SplitFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, parse = list[int](), Parser.parse

    def count(self: Parser, contents: Sequence[bytes]) -> list[object]:
        parsed.append(len(contents))
        return parse(self, contents)

    monkeypatch.setattr(Parser, "parse", count)
    found = read_examples(adapter, files)
    columns = columns_of(found)
    assert ids_of(found) and list(columns.groups) and list(columns.tags["n"]) and list(queries_of(found))
    assert list(refs_of(found)) and ids_and_queries(found, [3, 4]) and not parsed
    assert found[3].reference == columns.references[3] and parsed == [1, 10]
    assert [example.reference for example in found] == list(columns.references) == list(columns_of(found).references)
    assert parsed == [1, 10]
