"""Files made to harm: every reader answers with a sentence that names the file, before it takes memory for it."""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from vlbench.core.errors import CoverageError, ExitCode, VlbenchError
from vlbench.data.images.load import open_image
from vlbench.data.json.document import read_json
from vlbench.data.json.lines import read_json_lines
from vlbench.data.regions.tsv import read_tsv
from vlbench.engine.weights.score_tensor import read_score_tensor
from vlbench.engine.weights.state_dict import read_state
from vlbench.records.attention import read_attention
from vlbench.records.folder import read_record_file
from vlbench.records.predictions import read_predictions
from vlbench.records.profiles import read_profile
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples
from vlbench.records.score_matrix import read_matrix

SHAPE = (2, 3)
SCORES = np.arange(6, dtype=np.float32).reshape(SHAPE)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def parquet(**columns: object) -> bytes:
    return written(lambda file: pq.write_table(pa.table(columns), file))


NPY = written(lambda file: np.save(file, SCORES))
PT = written(lambda file: torch.save({"scores": torch.from_numpy(SCORES)}, file))
TENSORS = save({"scores": torch.from_numpy(SCORES)})
SAMPLES = parquet(example_id=["a"], prediction=["yes"], status=["ok"], control=[""])
READERS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "scores.npy": (lambda path: read_matrix(path, SHAPE), NPY),
    "scores.npz": (lambda path: read_matrix(path, SHAPE), written(lambda file: np.savez(file, SCORES))),
    "scores.safetensors": (lambda path: read_matrix(path, SHAPE), TENSORS),
    "scores.pt": (lambda path: read_score_tensor(path, SHAPE), PT),
    "ranks.parquet": (lambda path: read_rankings(path, ()), SAMPLES),
    "lists.json": (lambda path: read_rankings(path, ()), b'{"i2t": {"a": ["b"]}}'),
    "predictions.parquet": (lambda path: read_predictions(path, 1), SAMPLES),
    "predictions.json": (read_predictions, b'{\n  "a": "yes",\n  "b": "no"\n}'),
    "predictions.jsonl": (read_predictions, b'{"id": "a", "answer": "yes"}\n'),
    "predictions.csv": (read_predictions, b"a,yes\nb,no\n"),
    "samples.parquet": (read_samples, SAMPLES),
    "weights.safetensors": (read_state, TENSORS),
    "weights.pt": (read_state, PT),
    "image.png": (open_image, written(lambda file: Image.new("RGB", (9, 9)).save(file, "PNG"))),
    "document.json": (read_json, b'{"a": [1, 2, {"b": null}]}'),
    "lines.jsonl": (lambda path: list(read_json_lines(path)), b'{"a": 1}\n{"b": 2}\n'),
    "regions.tsv": (lambda path: list(read_tsv(path)), b"a\t1\t1\tAAA=\n"),
    "run.json": (read_record_file, b'{"schema_version": 1}'),
    "profile.json": (read_profile, b'{"profile_version": 1}'),
    "attention.parquet": (lambda path: read_attention(path, "run"), SAMPLES),
}


@pytest.fixture(autouse=True)
def limited_memory() -> Iterator[None]:
    """Half a GiB more than the process has, beyond which the system denies memory."""
    if sys.platform != "linux":
        yield
        return
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 29)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def offer(name: str, path: Path) -> None:
    """Raise AssertionError unless the reader returns, or raises a VlbenchError with the file's name."""
    try:
        READERS[name][0](path)
    except VlbenchError as error:
        assert name in error.message, error.message


@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_a_damaged_file(name: str, tmp_path: Path) -> None:
    content, rng = READERS[name][1], np.random.default_rng(0)
    path = tmp_path / name
    cuts = [content[: len(content) * part // 8] for part in range(8)]
    flipped = [
        content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
        for at in rng.integers(len(content), size=24)
    ]
    for damaged in (*cuts, *flipped, rng.bytes(500), b"\0" * 500, b"[" * 100_000, b"9" * 5000, b'{"a": NaN}'):
        path.write_bytes(damaged)
        offer(name, path)
    path.unlink()
    path.mkdir()
    offer(name, path)


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"attention.parquet"}))  # a run may lack it
def test_every_reader_names_an_absent_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match=str(tmp_path / name)):
        READERS[name][0](tmp_path / name)


def npy(descr: str, shape: str) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def tensors(kind: str, shape: list[int], end: int, content: bytes) -> bytes:
    header = json.dumps({"scores": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(header)) + header + content


def zipped(name: str, content: bytes, repeat: int = 1) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        for _ in range(repeat):
            member.write(content)
    return made.getvalue()


def overlapping(content: bytes, repeat: int) -> bytes:
    """A zip file whose table of contents lists the same bytes many times."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("data.pkl", content)
        archive.filelist *= repeat
    return made.getvalue()


HOSTILE = {
    "a shape of 22 GiB": ("scores.npy", npy("'<f4'", "(77000, 77000)"), "77,000 images by 77,000 texts where 2 by 3"),
    "a short file": ("scores.npy", npy("'<f4'", "(2, 3)"), "24 bytes where 0 follow"),
    "minus signs": ("scores.npy", npy("'<f4'", "(" + "-" * 9000 + "1, 3)"), r"not a readable \.npy"),
    "objects": ("scores.npy", npy("'|O'", "(2, 3)"), "Python objects"),
    "a zip bomb": ("scores.npz", zipped("scores.npy", b"\0" * (1 << 20), 64), r"not a readable \.npz"),
    "a large member": ("scores.npz", zipped("scores.npy", npy("'<f4'", "(2, 3)") + b"\0" * (1 << 24)), "announces 24"),
    "float8": ("scores.safetensors", tensors("F8_E4M3", [2, 3], 6, bytes(6)), r"of shape \(2, 3\): expected numbers"),
    "a cut tensor": ("scores.safetensors", tensors("F32", [2, 3], 24, bytes(9)), "does not load as safetensors"),
    "an expanded tensor": (
        "scores.pt",
        written(lambda file: torch.save(torch.zeros(1, 1).expand(77_000, 77_000), file)),
        "77,000 images by 77,000 texts",
    ),
    "a compressed pickle": ("scores.pt", zipped("data.pkl", b"\0" * (1 << 20), 20), "its parts hold 20,971,520 bytes"),
    "compressed weights": ("weights.pt", zipped("data.pkl", b"\0" * (1 << 20), 20), "its parts hold 20,971,520 bytes"),
    "equal parts": ("weights.pt", overlapping(NPY * 1000, 200), "its parts hold 30,400,000 bytes"),
    "equal rows": ("samples.parquet", parquet(example_id=pa.array(["a"] * 300_000)), "300,000 rows in"),
    "equal ranks": ("ranks.parquet", parquet(query_id=pa.array(["a"] * 300_000)), "300,000 rows in"),
    "NaN in a line": ("lines.jsonl", b'{"a": 1}\n{"b": NaN}\n', "line 2: not JSON .NaN"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_judged_before_it_is_read(what: str, tmp_path: Path) -> None:
    name, content, fault = HOSTILE[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VlbenchError, match=fault) as raised:
        READERS[name][0](tmp_path / name)
    assert raised.value.exit_code == (ExitCode.WEIGHTS if name.startswith("weights") else ExitCode.DATA)


@pytest.mark.parametrize(
    "name", ["lines.jsonl", "predictions.csv", "regions.tsv", "document.json", "run.json", "profile.json"]
)
def test_an_oversized_file_is_named_before_it_is_read(name: str, tmp_path: Path) -> None:
    """The file is sparse: 3 GiB of zeros, none of which is on the disk."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(VlbenchError, match=rf"{name}.* has (more than )?[\d,]+ bytes"):
        READERS[name][0](tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_far_larger_than_the_model_are_not_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(VlbenchError, match=r"has 3,221,225,472 bytes where the model's tensors have 24: ") as raised:
        read_state(path, {"scores": torch.from_numpy(SCORES)})
    assert raised.value.exit_code == ExitCode.WEIGHTS


@pytest.mark.parametrize("name", ["samples.parquet", "ranks.parquet", "predictions.parquet"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_long_text_in_every_row_is_not_repeated_in_memory(listed: bool, name: str, tmp_path: Path) -> None:
    """Dictionary encoding holds the text once: 2,000 rows of 1 MiB in a few kB."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * (1 << 20)])
    column = pa.ListArray.from_arrays(list(range(2001)), long) if listed else long
    ids = [str(number) for number in range(2000)]
    (tmp_path / name).write_bytes(parquet(example_id=ids, query_id=ids, prediction=column))
    assert (tmp_path / name).stat().st_size < 300_000
    read = (lambda path: read_predictions(path, 2000)) if name == "predictions.parquet" else READERS[name][0]
    with pytest.raises(VlbenchError, match=r"its column prediction[a-z.]* makes 2,097,152,000 bytes of text"):
        read(tmp_path / name)


def test_more_rows_than_examples_are_counted_and_not_read(tmp_path: Path) -> None:
    """The rows of a Parquet file are bounded by the examples of the largest split."""
    path = tmp_path / "predictions.parquet"
    same = {name: pa.array(["a"] * 300_000) for name in ("example_id", "prediction", "status", "control")}
    path.write_bytes(parquet(**same))
    with pytest.raises(CoverageError, match="holds 300,000 rows where 5 examples are expected"):
        read_predictions(path, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_scores_of_every_type_are_read_alike(dtype: torch.dtype, tmp_path: Path) -> None:
    scores = torch.from_numpy(SCORES).to(dtype)
    (tmp_path / "scores.safetensors").write_bytes(save({"scores": scores}))
    torch.save(scores, tmp_path / "scores.pt")
    for name in ("scores.safetensors", "scores.pt"):
        read = READERS[name][0](tmp_path / name)
        assert isinstance(read, np.ndarray) and read.dtype.kind == "f" and (read == SCORES).all()


def test_named_arrays_and_dicts_hold_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    for names in (("other",), ("scores", "images")):
        np.savez_compressed(path, **dict.fromkeys(names, SCORES))
        assert (read_matrix(path, SHAPE) == SCORES).all()
    np.savez(path, a=SCORES, b=SCORES)
    with pytest.raises(VlbenchError, match="holds 2 tensors where one"):
        read_matrix(path, SHAPE)
    torch.save({"any": torch.from_numpy(SCORES)}, tmp_path / "scores.pt")
    assert (read_score_tensor(tmp_path / "scores.pt", SHAPE) == SCORES).all()


@pytest.mark.parametrize("indent", [0, 1, 4])
def test_pretty_printed_answers_by_id(indent: int, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"7": "yes", "8": "no"}, indent=indent))
    assert [(one.example_id, one.answer) for one in read_predictions(path)] == [("7", "yes"), ("8", "no")]
