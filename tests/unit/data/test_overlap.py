"""What splits share: by id, by name, by bytes; and what is forbidden of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.cards import Leak, SplitCard, TaskCard
from vlbench.core.examples import ImageRef, Query
from vlbench.core.task import Task
from vlbench.data.splits.leaks import leaks
from vlbench.data.splits.overlap import Contents, digests, overlaps, shared


def card(name: str = "mine", siblings: tuple[str, ...] = (), stated: tuple[Leak, ...] = ()) -> TaskCard:
    places = {name: SplitCard(files={}) for name in ("train", "dev", "test", "extra")}
    places["all"] = SplitCard(files={}, overlaps=("train",))
    return TaskCard(
        name=name, title="", version=1, description="", output="classify", images_per_example=1,
        metrics={"accuracy": "a:b"}, main_metric="accuracy", splits=places, train_split="train", select_on="dev",
        report_split="test", siblings=siblings, leaks=stated, homepage="", licence="", citation="",
    )  # fmt: skip


def contents(split: str, rows: dict[str, tuple[str, Path]], task: str = "mine") -> Contents:
    """Rows are id -> text and image."""
    made = Contents(task, split)
    for name, (text, path) in rows.items():
        made.add(name, Query((ImageRef(path, path.stem),), text), path.stem)
    return made


@pytest.fixture
def place(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Write bytes under a name."""

    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def test_ids_names_and_bytes(place) -> None:  # type: ignore[no-untyped-def]
    red, again, blue, white = (
        place(*one) for one in (("a/red.png", b"red"), ("b/again.png", b"red"), ("a/blue.png", b"blu"), ("w.png", b"w"))
    )
    train = contents("train", {"1": ("one", red), "2": ("two", blue), "3": ("three", blue)})
    test = contents("test", {"1": ("one", red), "2": ("another", white), "4": ("four", again)})
    both = shared(train, test, digests([train, test]))
    assert (both.examples, both.renamed, both.pictures) == (("1",), ("2",), ("red",))
    assert both.copies == ("red = again",)


def test_one_name_in_two_folders_is_one_image_only_where_nothing_says_otherwise(place) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = place("train/1.png", b"sun"), place("test/1.png", b"sea")
    train, test = contents("train", {"a": ("a", ours)}), contents("test", {"b": ("b", theirs)})
    assert not shared(train, test, digests([train, test]))
    assert shared(train, test, {}).pictures == ("1",)
    assert not shared(train, test, {}, by_name=False)
    theirs.write_bytes(b"sun")
    assert shared(train, test, digests([train, test])).pictures == ("1",)


def test_only_files_as_long_as_one_of_another_split_are_read(place, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    paths = [place(f"{name}.png", text) for name, text in (("a", b"12"), ("b", b"34"), ("c", b"567"), ("d", b"890"))]
    train = contents("train", {"1": ("", paths[0]), "2": ("", paths[1]), "3": ("", paths[2])})
    test = contents("test", {"4": ("", paths[3]), "5": ("", paths[3].with_name("gone.png"))})
    calls: list[tuple[int, int]] = []
    known = digests([train, test], lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    assert {path.stem: known[path] for path in paths[:2]} == {"a": "2 bytes", "b": "2 bytes"}
    assert len(known) == 4 and len(known[paths[2]]) == 64


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("train", "test", "WRONG"), ("train", "dev", "WRONG"), ("train", "extra", "WRONG"), ("dev", "test", "WRONG"),
        ("train", "all", "known"), ("test", "extra", "shared"), ("all", "dev", "shared"),
    ],
)  # fmt: skip
def test_verdicts(place, one: str, other: str, verdict: str) -> None:  # type: ignore[no-untyped-def]
    image = place("a.png", b"a")
    found = [contents(one, {"1": ("x", image)}), contents(other, {"2": ("y", image)})]
    (overlap,) = overlaps(card(), found, digests(found))
    assert (overlap.split, overlap.other, overlap.verdict) == (one, other, verdict)


def test_line_numbers_as_ids_are_no_fault(place) -> None:  # type: ignore[no-untyped-def]
    a, b = place("a.png", b"a"), place("b.png", b"b")
    found = [contents("train", {"0": ("x", a)}), contents("test", {"0": ("y", b)})]
    (overlap,) = overlaps(card(), found, digests(found))
    assert (overlap.verdict, overlap.shared.renamed) == ("shared", ("0",))


def test_leaks_are_counted_where_both_are_there_and_told_where_not(place) -> None:  # type: ignore[no-untyped-def]
    stated = Leak(split="dev", task="theirs", other="train", pictures=970, source="somebody")
    ours, theirs = card(stated=(stated,)), card("theirs")
    task = Task(ours, Path(), "real", lambda _: iter(()), {})
    dev = contents("dev", {"1": ("x", place("ours/a.png", b"a"))})
    (said,) = leaks(task, {"mine": [dev]}, {"mine": ours}, digests([dev]))
    assert (said.split, said.pictures, said.counted, said.verified, said.source) == (
        "dev",
        970,
        False,
        False,
        "somebody",
    )
    train = contents("train", {"9": ("z", place("theirs/b.png", b"a"))}, "theirs")
    known = digests([dev, train])
    (counted,) = leaks(task, {"mine": [dev], "theirs": [train]}, {"mine": ours, "theirs": theirs}, known)
    assert (counted.pictures, counted.counted, counted.names) == (1, True, ("a = b",))
    test = contents("train", {"9": ("z", place("c.png", b"c"))}, "theirs")
    both, cards = {"mine": [dev], "theirs": [test]}, {"mine": ours, "theirs": theirs}
    assert leaks(task, both, cards, digests([dev, test])) == []


def test_what_nobody_could_compare_stays_as_the_card_says(place) -> None:  # type: ignore[no-untyped-def]
    stated = Leak(split="dev", task="theirs", other="train", pictures=970, source="somebody")
    ours, theirs = card(stated=(stated,)), card("theirs")
    task = Task(ours, Path(), "real", lambda _: iter(()), {})
    dev = contents("dev", {"1": ("x", place("ours/a.png", b"a"))})
    absent = {"8": ("y", Path("absent.png"))}
    for train in (
        contents("train", {"9": ("z", place("theirs/b.png", b"b"))}, "theirs"),
        contents("train", absent, "theirs"),
        contents("train", absent | {"9": ("z", place("theirs/b.png", b"b"))}, "theirs"),
    ):
        both, cards = {"mine": [dev], "theirs": [train]}, {"mine": ours, "theirs": theirs}
        known = {} if train.images.keys() == {"b"} else digests([dev, train])
        assert [(leak.pictures, leak.counted) for leak in leaks(task, both, cards, known)] == [(970, False)]


def test_names_count_between_tasks_only_where_they_share_a_folder() -> None:
    ours, theirs, strangers = card(siblings=("coco",)), card("theirs", ("coco",)), card("theirs")
    task = Task(ours, Path(), "real", lambda _: iter(()), {})
    test = contents("test", {"1": ("x", Path("here/7.jpg"))})
    train = contents("train", {"2": ("y", Path("there/7.jpg"))}, "theirs")
    splits = {"mine": [test], "theirs": [train]}
    assert [leak.names for leak in leaks(task, splits, {"mine": ours, "theirs": theirs}, {})] == [("7",)]
    assert leaks(task, splits, {"mine": ours, "theirs": strangers}, {}) == []


def test_copies_are_counted_as_images_and_as_pairs(place) -> None:  # type: ignore[no-untyped-def]
    """Three names of one image in one split and two in the other: six pairs, three images and two."""
    dev = contents("dev", {str(n): ("", place(f"dev/{n}.png", b"red")) for n in range(3)})
    rows = {str(n): ("", place(f"test/{n}.png", b"red" if n < 12 else b"blue")) for n in (10, 11, 12)}
    test = contents("test", rows)
    both = shared(dev, test, digests([dev, test]))
    assert (len(both.copies), both.copied, both.copied_other) == (6, ("0", "1", "2"), ("10", "11"))
    train = contents("train", rows, "theirs")
    cards = {"mine": card(), "theirs": card("theirs")}
    task = Task(cards["mine"], Path(), "real", lambda _: iter(()), {})
    (leak,) = leaks(task, {"mine": [dev], "theirs": [train]}, cards, digests([dev, train]))
    assert (leak.pictures, leak.counted, len(leak.names)) == (3, True, 6)


@pytest.mark.parametrize("name", list(catalog.task_folders()))
def test_every_split_of_a_card_states_its_number_of_examples(name: str) -> None:
    splits = catalog.task_card(name).splits
    assert [split for split, one in splits.items() if one.count is None] == []
    assert all(one.count > 0 and set(one.md5) <= set(one.files) for one in splits.values() if one.count is not None)


def test_counts_of_parts_add_up_to_the_whole() -> None:
    """NLVR: 92,244 examples (Suhr et al. 2017, table 1; the paper swaps dev and test); VQA v2: val is cut in two."""
    nlvr, vqa2 = catalog.task_card("nlvr").splits, catalog.task_card("vqa2").splits
    assert sum(one.count or 0 for one in nlvr.values()) == 92_244
    assert (vqa2["nominival"].count or 0) + (vqa2["minival"].count or 0) == vqa2["val"].count
    for name in catalog.task_folders():
        card_of = catalog.task_card(name)
        for split, one in card_of.splits.items():
            assert all(
                (one.count or 0) <= (card_of.splits[larger].count or 0) for larger in card_of.larger_splits(split)
            )


def test_cards_name_splits_that_there_are() -> None:
    cards = {name: catalog.task_card(name) for name in catalog.task_folders()}
    stated = [(leak.task, leak.other) for one in cards.values() for leak in one.leaks]
    assert stated and all(split in cards[task].splits for task, split in stated)
    with pytest.raises(ValueError, match="nowhere"):
        card(stated=(Leak(split="nowhere", task="x", other="train", source=""),))
