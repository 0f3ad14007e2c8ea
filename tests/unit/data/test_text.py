"""The tokenizer, against a greedy longest-match WordPiece written here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import DataError, VlbenchError
from vlbench.data.text.tokenizer import TextEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "red", "circle", "##s", "a", "blue", "is", ".", "un", "##touch", "##able", "cafe", "##d"]
TEXTS = ["the red circle is left of a blue square", "exactly two green triangles", "no picture shows red circles"] * 4


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(SPECIAL + WORDS) + "\n", encoding="utf-8")
    return path


def slow_pieces(word: str, vocabulary: list[str]) -> list[str]:
    pieces: list[str] = []
    while word:
        prefix = "##" if pieces else ""
        end = next((end for end in range(len(word), 0, -1) if prefix + word[:end] in vocabulary), 0)
        if not end:
            return ["[UNK]"]
        pieces.append(prefix + word[:end])
        word = word[end:]
    return pieces


@pytest.mark.parametrize(
    "text", ["The red circles.", "untouchable the zebra a", "Café RED-circle is", "", "[SEP] [PAD] a"]
)
def test_wordpiece(vocab: Path, text: str) -> None:
    words = text.lower().replace("é", "e")
    for sign in ".-[]":
        words = words.replace(sign, f" {sign} ")
    pieces = [piece for word in words.split() for piece in slow_pieces(word, SPECIAL + WORDS)]
    expected = ["[CLS]", *pieces, "[SEP]"]
    ids, mask = TextEncoder.from_vocab(vocab, 20).encode([text])
    assert ids.dtype == np.int64 and mask.dtype == np.bool_ and ids.shape == mask.shape == (1, 20)
    assert [(SPECIAL + WORDS)[number] for number in ids[0]] == expected + ["[PAD]"] * (20 - len(expected))
    assert mask[0].tolist() == [place < len(expected) for place in range(20)]


def test_rows_do_not_depend_on_neighbours(vocab: Path) -> None:
    encoder = TextEncoder.from_vocab(vocab, 9)
    texts = ["a", "the red circle is a blue circle is a red circle", "", "the circles"]
    ids, mask = encoder.encode(texts)
    for row, text in enumerate(texts):
        one, one_mask = encoder.encode([text])
        assert one.tolist() == ids[row : row + 1].tolist() and one_mask.tolist() == mask[row : row + 1].tolist()
    nothing, _ = encoder.encode([])
    assert nothing.shape == (0, 9)


def test_a_cut_keeps_the_end(vocab: Path) -> None:
    ids, mask = TextEncoder.from_vocab(vocab, 5).encode(["the red circle is blue"])
    assert [(SPECIAL + WORDS)[number] for number in ids[0]] == ["[CLS]", "the", "red", "circle", "[SEP]"]
    assert mask.all()


def test_saved_and_read_again(tmp_path: Path, vocab: Path) -> None:
    encoder = TextEncoder.from_vocab(vocab, 7)
    encoder.save(tmp_path / "run" / "tokenizer.json")
    again = TextEncoder.from_file(tmp_path / "run" / "tokenizer.json")
    assert (again.sha256, again.max_length, again.vocab_size) == (encoder.sha256, 7, len(SPECIAL + WORDS))
    assert again.encode(["the circles"])[0].tolist() == encoder.encode(["the circles"])[0].tolist()
    shorter = TextEncoder.from_file(tmp_path / "run" / "tokenizer.json", 5)
    assert shorter.max_length == 5 and shorter.sha256 != encoder.sha256


def test_training_is_bounded_and_covers_its_texts() -> None:
    encoder = TextEncoder.train(iter(TEXTS), 90, 40)
    assert encoder.vocab_size <= 90
    ids, _ = encoder.encode(TEXTS)
    assert not (ids == 1).any()
    small, _ = TextEncoder.train(TEXTS, 60, 40).encode(TEXTS[:1])
    large, _ = encoder.encode(TEXTS[:1])
    assert (small != 0).sum() > (large != 0).sum()


def test_training_gives_the_same_vocabulary_in_every_process() -> None:
    code = f"from vlbench.data.text.tokenizer import TextEncoder; print(TextEncoder.train({TEXTS!r}, 80, 16).sha256)"
    hashes = {TextEncoder.train(TEXTS, 80, 16).sha256}
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        hashes.add(
            subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.strip()
        )
    assert len(hashes) == 1


def test_bert_from_a_folder_or_file(tmp_path: Path, vocab: Path) -> None:
    from_folder = TextEncoder.bert(tmp_path, 9)
    from_folder.save(tmp_path / "tokenizer.json")
    assert TextEncoder.bert(vocab, 9).sha256 == from_folder.sha256
    assert TextEncoder.bert(tmp_path / "tokenizer.json", 9).sha256 == from_folder.sha256


def test_bert_out_of_reach_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlbench.data.text.tokenizer._BERT", str(tmp_path / "nowhere"))
    with pytest.raises(VlbenchError, match=r"--vocabulary PATH/vocab\.txt"):
        TextEncoder.bert(None, 20)
    with pytest.raises(VlbenchError, match=r"no vocabulary at .*--vocabulary"):
        TextEncoder.bert(tmp_path, 20)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_how_editors_save_a_vocabulary_does_not_count(tmp_path: Path, vocab: Path, end: str, encoding: str) -> None:
    expected = TextEncoder.from_vocab(vocab, 9)
    text = vocab.read_text(encoding="utf-8").rstrip("\n")
    saved = tmp_path / "saved.txt"
    saved.write_bytes((text.replace("\n", "\r\n" if "\r" in end else "\n") + end).encode(encoding))
    assert TextEncoder.from_vocab(saved, 9).sha256 == expected.sha256
    expected.save(tmp_path / "tokenizer.json")
    content = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_bytes((content + end).encode(encoding))
    assert TextEncoder.from_file(tmp_path / "tokenizer.json").sha256 == expected.sha256


@pytest.mark.parametrize(
    "content, message",
    [
        ("the\nred\n", r"no \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
        ("\n".join([*SPECIAL, "a", "a"]), "'a' twice"),
        (None, "is no vocabulary that can be read"),
    ],
)
def test_a_bad_vocabulary(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(VlbenchError, match=message):
        TextEncoder.from_vocab(path, 20)


def test_a_bad_tokenizer_file_and_a_bad_length(tmp_path: Path, vocab: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(DataError, match=r"is not a tokenizer\.json"):
        TextEncoder.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(VlbenchError, match="max_length is 1"):
        TextEncoder.from_vocab(vocab, 1)
