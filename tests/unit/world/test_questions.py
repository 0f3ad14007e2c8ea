from __future__ import annotations

import re
from dataclasses import astuple
from importlib import resources
from itertools import product

import pytest

from vlbench.world.language.programs import (
    Choose,
    Program,
    QueryValue,
    Things,
    Verify,
    VerifyRelation,
    answers,
    mentioned,
    solve,
)
from vlbench.world.language.questions import QUESTION_KINDS, TEMPLATES, QuestionKind, Wording, phrase_question
from vlbench.world.language.statements import Look
from vlbench.world.language.topics import draw_program
from vlbench.world.rng import stream
from vlbench.world.scenes.scene import make_scenes

Phrased = dict[QuestionKind, list[tuple[Program, Wording]]]
VOCABULARY = set((resources.files("vlbench.world") / "vocab.txt").read_text(encoding="utf-8").split())
OPEN_NOUNS = {"shape", "object", "thing", "something"}


@pytest.fixture(scope="module")
def phrased() -> Phrased:
    found: Phrased = {kind: [] for kind in QUESTION_KINDS}
    for (number, scene), kind in product(enumerate(make_scenes("dev", 120, seed=5)), QUESTION_KINDS):
        program = draw_program(kind, scene.things, stream(kind, number))
        if program and solve(program, scene):
            found[kind].append((program, phrase_question(kind, program, stream("say", kind, number))))
    return found


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_there_are_five_ways_to_ask_the_same(kind: QuestionKind, phrased: Phrased) -> None:
    program, _ = phrased[kind][0]
    ways = {phrase_question(kind, program, stream(number)).text for number in range(150)}
    plain = {re.sub("image|photo", "picture", re.sub("shape|object|thing", "x", way)) for way in ways}
    assert len(TEMPLATES[kind]) >= 5
    assert len(plain) >= 5


def test_every_question_is_english_in_words_of_the_vocabulary(phrased: Phrased) -> None:
    for questions in phrased.values():
        for _, wording in questions:
            assert re.fullmatch(r"[A-Z][a-z ,]+\?", wording.text), wording.text
            words = re.findall("[a-z]+", wording.text.lower())
            assert set(words) <= VOCABULARY, wording.text
            assert "  " not in wording.text and 3 <= len(words) <= 20
            assert not re.search(r"\ba (o|i|a)|\ban [^o]", wording.text), wording.text


def test_every_word_of_every_template_is_in_the_vocabulary() -> None:
    for template in (template for templates in TEMPLATES.values() for template in templates):
        assert set(re.findall("[a-z]+", re.sub(r"\{\w+\}", " ", template))) <= VOCABULARY, template


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_a_question_names_what_it_is_about(kind: QuestionKind, phrased: Phrased) -> None:
    for program, wording in phrased[kind]:
        words = {word.strip("?,").lower().removesuffix("s") for word in wording.text.split()}
        for things in mentioned(program):
            assert {word for word in astuple(things.look) if word} <= words, wording.text
        if isinstance(program, Choose) and kind == "choose":
            assert set(program.options) <= words
        if isinstance(program, Verify):
            assert program.value in words


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_marked_words_are_the_nouns_of_what_is_mentioned(kind: QuestionKind, phrased: Phrased) -> None:
    for program, wording in phrased[kind]:
        words = [word.strip("?,").lower() for word in wording.text.split()]
        things = mentioned(program)
        for place, mention in wording.heads:
            noun, look = words[place].removesuffix("s"), things[mention].look
            assert noun == look.shape or (look.shape is None and noun in OPEN_NOUNS), wording
        if not any(word in words for word in ("everything", "colours")):
            assert {mention for _, mention in wording.heads} == set(range(len(things))), wording


def test_a_question_for_the_answer_does_not_contain_it(phrased: Phrased) -> None:
    for program, wording in (one for questions in phrased.values() for one in questions):
        if isinstance(program, QueryValue):
            look = astuple(program.things.look)
            assert not set(answers(program)) & set(look), wording.text


def test_one_thing_and_several_agree_with_their_verbs() -> None:
    one = QueryValue(Things(Look(shape="circle")), "colour")
    many = QueryValue(Things(Look(shape="circle"), plural=True), "colour")
    singular = {phrase_question("colour", one, stream(number)).text for number in range(60)}
    plural = {phrase_question("colour", many, stream(number)).text for number in range(60)}
    assert "What colour is the circle?" in singular and "What colour are the circles?" in plural
    assert not any("circles" in text or " are " in text or " do " in text for text in singular)
    assert not any("circle " in text or "colour is" in text or " does " in text for text in plural)


def test_directions_are_said_as_meant() -> None:
    circle, square = Things(Look(shape="circle")), Things(Look(shape="square"))
    for direction, words in (("left", {"left"}), ("above", {"above", "over"}), ("below", {"below", "under"})):
        for number in range(20):
            text = phrase_question("verify_relation", VerifyRelation(circle, direction, square), stream(number)).text
            assert words & set(text.split())
            assert text.index("circle") < text.index("square")
