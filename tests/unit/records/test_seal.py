"""The seal of a finished record: every edit of its content is found, and nothing else breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.core.errors import DataError
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.records.folder import RunFolder, read_record_file
from vlbench.records.seal import hashes_of, seal_of

Values = dict[str, Any]


@pytest.fixture
def sealed(spec: RunSpec, record: RunRecord) -> Path:
    """The file of a finished record with samples beside it."""
    folder = RunFolder.create(spec, record.fingerprint)
    folder.samples.write_bytes(b"samples")
    folder.write_record(record)
    return folder.run_json


def rewrite(path: Path, change: Callable[[Values], object]) -> None:
    values = json.loads(path.read_text(encoding="utf8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf8")


EDITS: dict[str, Callable[[Values], object]] = {
    "value": lambda values: values["results"][0].update(value=99.9),
    "last digit": lambda values: values["results"][0].update(value=33.33333333333334),
    "interval": lambda values: values["results"][0].update(ci95=[98.0, 100.0]),
    "slice": lambda values: values["results"][0]["slices"]["kind"]["count"].update(value=99.9),
    "control": lambda values: values["controls"]["blind"][0].update(value=0.0),
    "control removed": lambda values: values["controls"].clear(),
    "spec": lambda values: values["spec"].update(seed=7),
    "fingerprint": lambda values: values.update(fingerprint="f" * 16),
    "note": lambda values: values["task"].update(notes=[]),
    "hash of the samples": lambda values: values["files"].update({"samples.parquet": "0" * 64}),
    "status": lambda values: values.update(status="failed"),
    "seal": lambda values: values.update(seal="0" * 64),
    "a field more": lambda values: values.update(more=1),
    "a field less": lambda values: values.pop("majority"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_record_is_not_believed(sealed: Path, edit: str) -> None:
    rewrite(sealed, EDITS[edit])
    with pytest.raises(DataError, match=r"run.json is corrupt \(.* edited or damaged\): .* --no-resume"):
        read_record_file(sealed)


def test_a_seal_counts_values_not_text(sealed: Path, tmp_path: Path) -> None:
    """Other spacing, another order of keys, escapes and another file name leave it intact; non-ASCII text is in it."""
    values = json.loads(sealed.read_text(encoding="utf8"))
    assert "größer" in sealed.read_text(encoding="utf8")
    copy = tmp_path / "another name.json"
    copy.write_text(json.dumps(dict(reversed(values.items())), ensure_ascii=True, indent=7), encoding="utf8")
    assert read_record_file(copy) == read_record_file(sealed)
    rewrite(sealed, lambda values: values["task"].update(notes=["grösser | als\nnötig"]))
    with pytest.raises(DataError, match="edited or damaged"):
        read_record_file(sealed)


def test_a_seal_is_of_what_is_on_disk(
    spec: RunSpec, record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home paths are rewritten before the seal, which holds for another user too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = RunFolder.create(spec, record.fingerprint)
    folder.write_record(record.model_copy(update={"spec": spec.model_copy(update={"data_root": tmp_path / "data"})}))
    monkeypatch.setenv("HOME", "/home/another")
    assert read_record_file(folder.run_json).spec.data_root == Path("/home/another/data")


def test_a_record_without_fields_of_today_keeps_its_seal(sealed: Path) -> None:
    """As of a version that did not have them: the seal is not of later defaults."""

    def older(values: Values) -> None:
        del values["efficiency"], values["task"]["shots"]
        values["seal"] = seal_of(values)

    rewrite(sealed, older)
    assert read_record_file(sealed).efficiency is None


def test_only_finished_records_are_sealed(sealed: Path, record: RunRecord) -> None:
    folder = RunFolder(sealed.parent)
    done = read_record_file(sealed)
    assert done.seal and done.files == hashes_of([folder.samples]) and not done.is_unsealed
    for status in ("started", "failed", "interrupted"):
        folder.write_record(done.model_copy(update={"status": status}))
        unfinished = read_record_file(sealed)
        assert (unfinished.seal, unfinished.files, unfinished.is_unsealed) == ("", {}, False)


def test_records_of_older_versions_are_read(sealed: Path) -> None:
    rewrite(sealed, lambda values: [values.pop(name) for name in ("seal", "files")])
    assert read_record_file(sealed).is_unsealed


@pytest.mark.parametrize("depth", [900, 990, 100_000])
def test_deep_nesting_is_a_corrupt_record(sealed: Path, depth: int) -> None:
    text = sealed.read_text(encoding="utf8")
    sealed.write_text(text.replace('"majority": 50.0', f'"majority": {"[" * depth}{"]" * depth}'), encoding="utf8")
    with pytest.raises(DataError, match=r"run\.json is corrupt"):
        read_record_file(sealed)
