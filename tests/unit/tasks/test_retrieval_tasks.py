"""The retrieval tasks: official sizes, real photographs and captions, and where images may lie."""

from __future__ import annotations

import json
import shutil

import pytest

from vlbench.catalog import load_task
from vlbench.core.errors import DataError
from vlbench.core.gallery import galleries
from vlbench.metrics import retrieval

FIGURES = ["tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10", "rsum"]
RANKS = ["tr_medr", "ir_medr", "tr_meanr", "ir_meanr"]
TASKS = ["coco_retrieval", "flickr30k_retrieval", "flickr8k_retrieval"]


@pytest.mark.parametrize(("split", "images"), [("train", 1200), ("val", 200), ("test", 200)])
def test_flickr8k(open_task, shared_data, split, images):
    task = open_task("flickr8k_retrieval", shared_data / "flickr8k")
    examples = task.load(split)
    (gallery,) = galleries(examples)
    assert (len(gallery.images), len(gallery.texts)) == (images, 5 * images)
    assert gallery.owner == [row for row in range(images) for _ in range(5)]
    assert all(ref.path.is_file() for ref in gallery.images)
    assert len(task.notes) == 1 and f"holds {5 * images:,} examples" in task.notes[0]


def test_flickr8k_is_as_the_file_says(open_task, shared_data):
    entries = json.loads((shared_data / "flickr8k" / "dataset_flickr8k.json").read_text())["images"]
    expected = [
        (str(sentence["sentid"]), sentence["raw"].strip(), entry["filename"].removesuffix(".jpg"))
        for entry in entries
        if entry["split"] == "val"
        for sentence in entry["sentences"]
    ]
    found = open_task("flickr8k_retrieval", shared_data / "flickr8k").load("val")
    assert [(example.id, example.query.text, example.group) for example in found] == expected


def test_coco(open_task, shared_data):
    examples = open_task("coco_retrieval", shared_data / "coco_mini").load("val2017")
    (gallery,) = galleries(examples)
    assert (len(gallery.images), len(gallery.texts)) == (79, 395)
    assert all(ref.path.is_file() for ref in gallery.images)
    content = json.loads((shared_data / "coco_mini" / "annotations" / "captions_val2017.json").read_text())
    words = {str(one["id"]): one["caption"] for one in content["annotations"]}
    assert sum(word != word.strip() for word in words.values()) > 0
    assert all(words[example.id].strip() == example.query.text != "" for example in examples)


def test_checking_real_data_decodes_it(vlbench, shared_data):
    root = shared_data / "coco_mini"
    done = vlbench("data", "check", "--task", "coco_retrieval", "--data-root", root, "--split", "val2017", "--json")
    report = json.loads(done.out)["splits"]["val2017"]
    assert (report["examples"], report["groups"], report["images"]) == (395, 79, 79)
    assert report["missing"] == report["undecodable"] == 0
    assert done.code == 5 and report["faults"] == ["395 examples where 25,000 are expected"]


@pytest.mark.parametrize("name", TASKS)
def test_the_official_sizes(name, open_task, tmp_path):
    """Photographs of the published splits, five captions each."""
    splits = open_task(name, tmp_path).card.splits
    karpathy = {"train": 113_287, "val": 5_000, "test": 5_000, "test_1k": 5_000}
    coco = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}
    photographs = {
        "coco_retrieval": karpathy | coco,
        "flickr30k_retrieval": {"train": 29_000, "val": 1_014, "test": 1_000},
        "flickr8k_retrieval": {"train": 6_000, "val": 1_000, "test": 1_000},
    }[name]
    assert {split: 5 * count for split, count in photographs.items()} == {
        split: card.count for split, card in splits.items()
    }


@pytest.mark.parametrize("name", TASKS)
def test_all_figures_in_the_order_of_tables(name, tmp_path):
    task = load_task(name, tmp_path, "real")
    others = [f"{figure}_{rule}" for rule in ("optimistic", "expected") for figure in FIGURES]
    assert list(task.metrics) == [*FIGURES, *RANKS, *others]
    assert all(metric is getattr(retrieval, figure) for figure, metric in task.metrics.items())
    assert task.card.main_metric == "rsum" and task.card.slices == ()


def karpathy_file(split, count, filepath=None):
    folder = {"filepath": filepath} if filepath else {}
    return {
        "images": [
            {
                "filename": f"{number}.jpg",
                "split": split,
                "sentences": [{"raw": f"{number} {n}", "sentid": 5 * number + n} for n in range(5)],
                **folder,
            }
            for number in range(count)
        ]
    }


def test_five_folds_of_a_thousand(open_task, tmp_path):
    (tmp_path / "dataset_coco.json").write_text(json.dumps(karpathy_file("test", 5000, "val2014")))
    task = open_task("coco_retrieval", tmp_path)
    folds = galleries(task.load("test_1k"))
    assert [(one.fold, len(one.images), len(one.texts)) for one in folds] == [(n, 1000, 5000) for n in "12345"]
    assert [one.images[0].key for one in folds] == ["0", "1000", "2000", "3000", "4000"]
    (whole,) = galleries(task.load("test"))
    assert [name for one in folds for name in one.text_ids] == whole.text_ids
    assert task.notes == [], "these are the official sizes"


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [
        ("coco_retrieval", "dataset_coco.json", "val2014"),
        ("coco_retrieval", "karpathy/dataset_coco.json", "images/val2014"),
        ("coco_retrieval", "dataset_coco.json", "../coco/val2014"),
        ("flickr30k_retrieval", "dataset_flickr30k.json", "flickr30k-images"),
        ("flickr30k_retrieval", "dataset_flickr30k.json", "../flickr30k/flickr30k_images"),
        ("flickr8k_retrieval", "dataset_flickr8k.json", "Flicker8k_Dataset"),
    ],
)
def test_where_photographs_may_lie(tmp_path, name, file, folder):
    root = tmp_path / name
    (root / file).parent.mkdir(parents=True)
    (root / folder).mkdir(parents=True)
    (root / file).write_text(json.dumps(karpathy_file("test", 1, "val2014" if name == "coco_retrieval" else None)))
    example, *_ = load_task(name, root, "real", allow_partial=True, data_root=tmp_path).load("test")
    assert example.query.images[0].path.resolve() == (root / folder / "0.jpg").resolve()
    assert example.query.images[0].path.parent.is_dir()


def test_a_sentence_id_comes_once(open_task, tmp_path):
    content = karpathy_file("test", 2)
    content["images"][1]["sentences"][0]["sentid"] = 3
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="holds ids twice: 3"):
        open_task("flickr8k_retrieval", tmp_path).load("test")


def test_less_than_the_official_split_is_an_error(vlbench, shared_data, tmp_path):
    shutil.copy(shared_data / "flickr8k" / "dataset_flickr8k.json", tmp_path)
    with pytest.raises(DataError, match=r"1,000 examples where 5,000 are expected: .* --allow-partial"):
        load_task("flickr8k_retrieval", tmp_path, "real").load("test")
    done = vlbench("data", "check", "--task", "flickr8k_retrieval", "--data-root", tmp_path, "--split", "test")
    assert done.code == 5 and "1,000 examples where 5,000 are expected" in done.out
