"""From photographs to recall: regions of real pictures, without weights and by the detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vlbench.data.images.load import open_image
from vlbench.data.regions.store import store_for_tsv
from vlbench.data.regions.tsv import read_tsv
from vlbench.engine import resources
from vlbench.models.detector.config import Layout
from vlbench.records.folder import read_run

Call = Callable[..., Any]
TRAIN, TEST = 6, 4


@pytest.fixture
def photographs(shared_data: Path, tmp_path: Path) -> Path:
    """A data root of real photographs with their captions, in Karpathy's format."""
    source = shared_data / "coco_mini"
    content = json.loads((source / "annotations" / "captions_val2017.json").read_text())
    entries = []
    for place, image in enumerate(content["images"][: TRAIN + TEST]):
        captions = [one for one in content["annotations"] if one["image_id"] == image["id"]][:5]
        sentences = [{"sentid": one["id"], "raw": one["caption"]} for one in captions]
        split = "train" if place < TRAIN else "test"
        entries.append({"filename": image["file_name"], "filepath": "val2014", "split": split, "sentences": sentences})
    root = tmp_path / "coco"
    root.mkdir()
    (root / "val2014").symlink_to(source / "val2017", target_is_directory=True)
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    return root


def run(vlbench: Call, root: Path, tmp_path: Path) -> Any:
    return vlbench("run", "--task", "coco_retrieval", "--model", "cvlp", "--size", "tiny", "--data-root", root,
                   "--select-on", "none", "--allow-partial", "--steps", 2, "--batch-size", 4,
                   "--output-path", tmp_path / "runs", "--device", "cpu")  # fmt: skip


def test_nothing_but_photographs_is_needed(vlbench: Call, photographs: Path, tmp_path: Path) -> None:
    done = run(vlbench, photographs, tmp_path)
    assert done.code == 0, done.err
    assert "have no region features: extracting them with flat-1" in done.err
    scores = {result.metric: result for result in read_run(done.run).results}
    assert (scores["tr_r1"].n, scores["ir_r10"].n, scores["ir_r10"].value) == (TEST, 5 * TEST, 100.0)


def test_the_detectors_features_are_written_kept_and_used(
    vlbench: Call, photographs: Path, tmp_path: Path, tiny_detector: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tiny_detector.save(tmp_path / "tiny.bin", Layout((1, 1, 1, 1), 1, 4, 7, 3))
    arguments = ("data", "features", "--task", "coco_retrieval", "--data-root", photographs, "--allow-partial",
                 "--extractor", "fasterrcnn", "--weights", weights, "--device", "cpu")  # fmt: skip
    done = vlbench(*arguments, "--split", "train,test")
    assert done.code == 0, done.err
    tables = [photographs / "features" / f"{split}.tsv" for split in ("train", "test")]
    assert done.out.splitlines() == [str(table) for table in tables]

    store = store_for_tsv(tables[1], tmp_path / "store")
    written = dict(read_tsv(tables[1]))
    assert list(store) == list(written) and len(store) == TEST
    for key, regions in written.items():
        found = store.get(key)
        assert (found.features == regions.features).all() and (found.boxes == regions.boxes).all()
        assert found.features.shape == (36, 32)  # a tiny model takes any width: the weight-free extractor's is 64
        assert (found.width, found.height) == open_image(photographs / "val2014" / f"{key}.jpg").size
        assert (regions.object_confidences > 0).all() and (regions.attribute_confidences > 0).all()

    first = tables[1].read_bytes()
    monkeypatch.setattr("vlbench.models.detector.extractor.DetectorExtractor.__call__", None)  # all of it is kept
    assert vlbench(*arguments, "--split", "test").code == 2  # it would be written over
    assert vlbench(*arguments, "--split", "test", "--overwrite").code == 0
    assert tables[1].read_bytes() == first

    monkeypatch.setattr(resources, "extract_all", lambda *_: pytest.fail("an image is described again"))
    ran = run(vlbench, photographs, tmp_path)
    assert ran.code == 0, ran.err
    assert {result.metric for result in read_run(ran.run).results} >= {"tr_r1", "ir_r1", "rsum"}
