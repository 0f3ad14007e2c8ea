"""The resources of a run: the tokenizer that fits the data, and regions of every image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.progress import Silent
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine import resources
from vlbench.engine.job import Job
from vlbench.engine.resources import make_regions, make_resources, make_tokenizer, resource_spec, unique_refs

MakeJob = Callable[..., Job]


def real(tiny_world: Path, tmp_path: Path) -> Path:
    """The files of a world's task without world.json, so that they count as real data."""
    return Path(shutil.copytree(tiny_world / "nlvr2", tmp_path / "data" / "nlvr2")).parent


def test_the_world_has_its_own_vocabulary(make_job: MakeJob, tiny_world: Path, told) -> None:
    text = make_tokenizer(resource_spec(make_job()), told)
    assert text.sha256 == TextEncoder.from_vocab(tiny_world / "vocab.txt", 32).sha256
    assert told.lines == []


def test_other_data_trains_a_vocabulary(make_job: MakeJob, tiny_world: Path, tmp_path: Path, told) -> None:
    job = make_job(data_root=real(tiny_world, tmp_path), size="tiny", allow_partial=True)
    text = make_tokenizer(resource_spec(job), told)
    sentences = [example.query.text for example in job.train]
    assert text.sha256 == TextEncoder.train(sentences, 4000, 32).sha256
    assert told.lines == ["training a WordPiece vocabulary on the texts of the train split"]


def test_a_vocabulary_that_is_given_is_used(make_job: MakeJob, tmp_path: Path) -> None:
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red"]))
    for size, length in (("tiny", 32), ("base", 20)):
        text = make_tokenizer(resource_spec(make_job(model="cvlp", size=size, vocabulary=words)), Silent())
        assert (text.vocab_size, text.max_length) == (6, length)


def test_base_names_the_missing_vocabulary(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise OSError(f"no {name} here")

    monkeypatch.setattr(
        "vlbench.data.text.tokenizer.Tokenizer", type("Tokenizer", (), {"from_pretrained": unreachable})
    )
    with pytest.raises(VlbenchError, match=r"bert-base-uncased .* give it with --vocabulary PATH/vocab\.txt"):
        make_tokenizer(resource_spec(make_job(model="cvlp", size="base")), Silent())


def test_regions_come_from_the_tables(make_job: MakeJob, told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "extract_all", lambda *_, **__: pytest.fail("extracted"))
    job = make_job(model="cvlp")
    source = make_regions(resource_spec(job), told)
    assert {len(source.get(ref).boxes) for ref in unique_refs(job.report)} <= set(range(1, 37))
    assert told.lines == []


def test_missing_regions_are_extracted_once(
    make_job: MakeJob, tiny_world: Path, tmp_path: Path, told, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = real(tiny_world, tmp_path)
    stored = make_regions(resource_spec(make_job(model="cvlp")), Silent())
    (root / "nlvr2" / "features" / "dev.tsv").unlink()
    job = make_job(model="cvlp", data_root=root, size="tiny", allow_partial=True)
    source = make_regions(resource_spec(job), told)
    assert told.lines == [
        f"96 images of nlvr2 have no region features: extracting them with "
        f"{resources.FlatExtractor().name}, once (kept in the cache)"
    ]
    ref = job.select[0].query.images[0]
    np.testing.assert_allclose(np.sort(source.get(ref).boxes, 0), np.sort(stored.get(ref).boxes, 0), atol=1.0)
    assert source.dim == stored.dim


def test_a_model_without_regions_gets_none(make_job: MakeJob) -> None:
    assert make_resources(resource_spec(make_job(model="fake")), Silent()).regions is None
    assert make_resources(resource_spec(make_job(model="cvlp")), Silent()).regions is not None


def test_every_image_once_in_order_of_use(make_job: MakeJob) -> None:
    job = make_job()
    refs = [ref for example in job.report for ref in example.query.images]
    assert unique_refs(job.report) == list(dict.fromkeys(refs))
