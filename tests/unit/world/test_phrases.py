from __future__ import annotations

import re
from dataclasses import astuple
from importlib import resources
from pathlib import Path

import pytest

from vlbench.data.text.tokenizer import TextEncoder
from vlbench.world.language.phrases import TEMPLATES, phrase_statement
from vlbench.world.language.statements import STATEMENT_KINDS, StatementKind, draw_statement
from vlbench.world.rng import stream

VOCABULARY = (resources.files("vlbench.world") / "vocab.txt").read_text(encoding="utf-8").splitlines()
PHRASED = {
    kind: [
        (s := draw_statement(kind, stream(kind, n)), phrase_statement(s, stream("say", kind, n))) for n in range(400)
    ]
    for kind in STATEMENT_KINDS
}


def words(sentence: str) -> list[str]:
    return re.findall(r"[a-z]+|[^a-z\s]", sentence.lower())


@pytest.mark.parametrize("kind", STATEMENT_KINDS)
def test_there_are_five_ways_to_say_the_same(kind: StatementKind) -> None:
    statement = draw_statement(kind, stream(kind))
    said = {
        re.sub("image|object", "x", re.sub("picture|shape", "x", phrase_statement(statement, stream(n))))
        for n in range(100)
    }
    assert len(TEMPLATES[kind]) >= 5
    assert len(said) >= 5


@pytest.mark.parametrize("kind", STATEMENT_KINDS)
def test_sentences_have_5_to_18_pieces_all_in_the_vocabulary(kind: StatementKind) -> None:
    for _, sentence in PHRASED[kind]:
        assert 5 <= len(words(sentence)) <= 18, sentence
        assert set(words(sentence)) <= set(VOCABULARY), sentence
        assert re.fullmatch(r"[A-Z][a-z ]+\.", sentence)
        assert "  " not in sentence


def test_every_word_of_every_template_is_in_the_vocabulary() -> None:
    for template in (template for templates in TEMPLATES.values() for template in templates):
        spoken = template.replace("{image}", "image")
        assert set(re.findall("[a-z]+", re.sub(r"\{\w+\}", " ", spoken))) <= set(VOCABULARY), template


@pytest.mark.parametrize("kind", STATEMENT_KINDS)
def test_a_sentence_names_every_attribute_of_what_it_is_about(kind: StatementKind) -> None:
    for statement, sentence in PHRASED[kind]:
        singular = {word.removesuffix("s") for word in words(sentence)}
        for look in (statement.first, statement.second):
            assert {word for word in astuple(look) if word} <= singular, sentence


def test_a_sentence_names_its_picture_number_bound_and_place() -> None:
    for statement, sentence in PHRASED["count"]:
        assert f"{statement.bound} " in sentence.lower() and f" {statement.side} " in sentence
    for statement, sentence in PHRASED["position"]:
        assert statement.place in sentence.lower() and statement.side in sentence.lower()
    hints = {
        "left": ["left of"],
        "right": ["right of"],
        "above": ["above", "over", "higher"],
        "below": ["below", "under", "lower"],
    }
    for statement, sentence in PHRASED["relation"]:
        assert any(hint in sentence for hint in hints[statement.direction]), sentence


def test_the_vocabulary_is_a_wordpiece_vocabulary_that_spells_anything(tmp_path: Path) -> None:
    assert VOCABULARY[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(VOCABULARY) == len(set(VOCABULARY))
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    encoder = TextEncoder.from_vocab(path, max_length=40)
    ids, mask = encoder.encode(["Xylophone-42? What colour is it!", "There is a red circle in the left picture."])
    assert VOCABULARY.index("[UNK]") not in ids
    assert [VOCABULARY[i] for i in ids[1][mask[1]]] == [
        "[CLS]",
        "there",
        "is",
        "a",
        "red",
        "circle",
        "in",
        "the",
        "left",
        "picture",
        ".",
        "[SEP]",
    ]
