"""What a task card may say about its splits."""

import pytest

from vlbench.core.cards import Download, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.validate import parse

TEXTS = ("title", "description", "homepage", "licence", "citation")


def card(**within: str) -> TaskCard:
    return parse(TaskCard, fields(**within), "the card")


def fields(**within: str) -> dict[str, object]:
    splits = {name: {"files": {}, "within": within.get(name, "")} for name in ("train", "dev", "part", "piece")}
    return {
        **dict.fromkeys(TEXTS, ""), "name": "toy", "version": 1, "output": "classify", "images_per_example": 1,
        "metrics": {"accuracy": "a:b"}, "main_metric": "accuracy", "splits": splits, "train_split": "train",
        "select_on": "dev", "report_split": "dev",
    }  # fmt: skip


def test_larger_splits_are_followed_to_the_largest():
    toy = card(part="dev", piece="part")
    assert toy.larger_splits("piece") == ("part", "dev")
    assert toy.larger_splits("part") == ("dev",) and toy.larger_splits("dev") == ()


@pytest.mark.parametrize(
    ("within", "message"),
    [
        ({"part": "nowhere"}, "split 'nowhere' is not among the card's splits"),
        ({"part": "part"}, "split 'part' is within itself"),
        ({"part": "piece", "piece": "part"}, "is within itself by way of"),
    ],
)
def test_a_larger_split_must_be_another_one_of_the_card(within, message):
    with pytest.raises(VlbenchError, match=message):
        card(**within)


OUTSIDE = ["/etc", "../x", "a/../../x", "a\\b", "C:x", "a\0", ""]


@pytest.mark.parametrize("path", OUTSIDE)
def test_every_path_on_a_card_stays_below_the_data(path: str) -> None:
    files = {"files": {"annotations": ["fine.json", path]}}
    toy = fields()
    for values in ({"features": [path]}, {"siblings": [path]}, {"splits": toy["splits"] | {"train": files}}):
        with pytest.raises(VlbenchError, match="expected a path below the folder of the data"):
            parse(TaskCard, toy | values, "the card")
    source = {"url": "https://example.org/a.zip", "to": "toy", "gives": ["a"]}
    for values in ({"to": path}, {"gives": ["a", path]}):
        with pytest.raises(VlbenchError, match="expected a path below the folder of the data"):
            parse(Download, source | values, "the card")
    parse(TaskCard, toy | {"siblings": ["."], "features": ["features/*.tsv"]}, "the card")


@pytest.mark.parametrize("end", ["..", "a\\..\\b", ".hidden", "C:x"])
def test_the_name_in_a_url_is_one_of_a_file(end: str) -> None:
    with pytest.raises(VlbenchError, match="does not end in the name of a file"):
        parse(Download, {"url": f"https://example.org/{end}", "to": "toy", "gives": ["a"]}, "the card")
    assert parse(Download, {"url": "https://a.org/b.zip?c=d/..", "to": "a", "gives": ["b"]}, "it").name == "b.zip"


@pytest.mark.parametrize("url", ["ftp://a.org/b.zip", "file:///etc/passwd", "data:text/plain,b", "//a.org/b"])
def test_downloads_come_over_http_or_https(url: str) -> None:
    with pytest.raises(VlbenchError, match="is not http or https"):
        parse(Download, {"url": url, "to": "toy", "gives": ["a"]}, "the card")
