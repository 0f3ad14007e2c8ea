from __future__ import annotations

import pytest

from vlbench.world.language.entailment import implied
from vlbench.world.language.programs import (
    ANY,
    Alike,
    Bigger,
    Choose,
    ChooseRelation,
    Count,
    CountColours,
    Every,
    Exist,
    Logic,
    More,
    Program,
    QueryValue,
    Things,
    Verify,
    VerifyRelation,
    answers,
    definite_mentions,
    mentioned,
    solve,
)
from vlbench.world.language.questions import QUESTION_KINDS, QuestionKind
from vlbench.world.language.statements import Look
from vlbench.world.language.topics import draw_program
from vlbench.world.rng import stream
from vlbench.world.scenes.scene import Scene, Thing, make_scenes

Drawn = dict[QuestionKind, list[tuple[Program, str, Scene]]]

# A small red circle at the top left, two big blue squares in the middle row, a small blue triangle at the bottom right.
SCENE = Scene(
    "one",
    (
        Thing("circle", "red", "small", (0, 0), (4, 4, 11, 11)),
        Thing("square", "blue", "big", (1, 0), (2, 18, 14, 30)),
        Thing("square", "blue", "big", (1, 1), (18, 18, 30, 30)),
        Thing("triangle", "blue", "small", (2, 2), (36, 36, 43, 43)),
    ),
)
CIRCLE, SQUARE, TRIANGLE = (Things(Look(shape=shape)) for shape in ("circle", "square", "triangle"))
SQUARES, EVERYTHING = Things(Look(shape="square"), plural=True), Things(ANY, plural=True)
RED, BLUE, GREEN = (Look(colour=colour) for colour in ("red", "blue", "green"))

ANSWERS: list[tuple[Program, str | None]] = [
    (Exist(CIRCLE), "yes"),
    (Exist(Things(Look("big", "red"))), "no"),
    (Exist(Things(ANY, direction="left", anchor=CIRCLE.look)), "no"),
    (Exist(Things(BLUE, direction="below", anchor=CIRCLE.look)), "yes"),
    (Exist(Things(BLUE, direction="below", anchor=SQUARE.look)), None),
    (QueryValue(CIRCLE, "colour"), "red"),
    (QueryValue(SQUARE, "colour"), None),
    (QueryValue(SQUARES, "colour"), "blue"),
    (QueryValue(Things(CIRCLE.look, plural=True), "colour"), None),
    (QueryValue(EVERYTHING, "colour"), None),
    (QueryValue(Things(RED), "shape"), "circle"),
    (QueryValue(Things(BLUE, plural=True), "shape"), None),
    (QueryValue(Things(ANY, direction="right", anchor=SQUARE.look), "shape"), None),
    (QueryValue(Things(ANY, direction="above", anchor=TRIANGLE.look, plural=True), "size"), None),
    (QueryValue(Things(SQUARE.look, direction="above", anchor=TRIANGLE.look, plural=True), "size"), "big"),
    (QueryValue(CIRCLE, "across"), "left"),
    (QueryValue(SQUARES, "down"), None),
    (Verify(CIRCLE, "colour", "red"), "yes"),
    (Verify(TRIANGLE, "colour", "red"), "no"),
    (Verify(Things(Look(shape="circle", colour="blue")), "size", "small"), None),
    (Verify(TRIANGLE, "down", "top"), "no"),
    (Choose(TRIANGLE, "colour", ("red", "blue")), "blue"),
    (Choose(TRIANGLE, "colour", ("red", "green")), None),
    (Choose(TRIANGLE, "across", ("left", "right")), "right"),
    (VerifyRelation(CIRCLE, "above", TRIANGLE), "yes"),
    (VerifyRelation(CIRCLE, "right", TRIANGLE), "no"),
    (VerifyRelation(CIRCLE, "above", SQUARE), None),
    (VerifyRelation(CIRCLE, "above", Things(RED)), None),
    (ChooseRelation(TRIANGLE, ("left", "right"), CIRCLE), "right"),
    (ChooseRelation(CIRCLE, ("below", "above"), TRIANGLE), "above"),
    (Every("colour", "blue"), "no"),
    (Logic("and", RED, BLUE), "yes"),
    (Logic("and", RED, GREEN), "no"),
    (Logic("or", GREEN, BLUE), "yes"),
    (Logic("or", GREEN, Look(colour="yellow")), "no"),
    (Alike(CIRCLE, TRIANGLE, "size", same=True), "yes"),
    (Alike(CIRCLE, TRIANGLE, "colour", same=True), "no"),
    (Alike(CIRCLE, TRIANGLE, "colour", same=False), "yes"),
    (Bigger(CIRCLE, TRIANGLE), None),
    (More(BLUE, RED), "yes"),
    (More(CIRCLE.look, TRIANGLE.look), "no"),
    (Count(BLUE), "3"),
    (Count(GREEN), "0"),
    (CountColours(), "2"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "answer"), ANSWERS)
def test_the_answer_is_true_or_none(program: Program, answer: str | None) -> None:
    assert solve(program, SCENE) == answer


def test_the_bigger_of_two_is_named_by_its_shape() -> None:
    two = Scene("two", SCENE.things[::2][:2])
    assert [thing.shape for thing in two.things] == ["circle", "square"]
    assert solve(Bigger(CIRCLE, SQUARE), two) == solve(Bigger(SQUARE, CIRCLE), two) == "square"
    assert solve(Every("colour", "blue"), Scene("blue", SCENE.things[1:])) == "yes"


def test_a_relation_in_the_middle_is_neither() -> None:
    column = Scene("column", SCENE.things[:2])
    assert solve(ChooseRelation(CIRCLE, ("left", "right"), SQUARE), column) is None
    assert solve(VerifyRelation(CIRCLE, "left", SQUARE), column) == "no"


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Programs of each kind with their answers on random scenes."""
    found: Drawn = {kind: [] for kind in QUESTION_KINDS}
    for number, scene in enumerate(make_scenes("dev", 400, seed=3)):
        for kind in QUESTION_KINDS:
            program = draw_program(kind, scene.things, stream(kind, number))
            answer = program and solve(program, scene)
            if program and answer:
                found[kind].append((program, answer, scene))
    return found


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_drawn_programs_have_each_of_their_answers(kind: QuestionKind, drawn: Drawn) -> None:
    assert len(drawn[kind]) >= 10
    for program, answer, scene in drawn[kind]:
        assert answer in answers(program)
        assert all(things.among(scene) is not None for things in mentioned(program))
        assert all(things.meant(scene) for things in definite_mentions(program))
    # What is drawn is there; where it is not is for the complements to find.
    assert len({answer for _, answer, _ in drawn[kind]}) > 1 or kind in ("exist", "both", "either")


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_what_follows_from_an_answer_is_true(kind: QuestionKind, drawn: Drawn) -> None:
    followed = 0
    for program, answer, scene in drawn[kind]:
        for other in implied(program, answer):
            followed += 1
            assert other.program != program
            assert solve(other.program, scene) == other.answer, (program, answer, other)
    assert followed or kind in ("count", "colours", "more", "either")


def test_a_known_colour_implies_the_other_ways_to_ask() -> None:
    other = {(one.program, one.answer) for one in implied(QueryValue(CIRCLE, "colour"), "red")}
    assert (Verify(CIRCLE, "colour", "red"), "yes") in other
    assert (Verify(CIRCLE, "colour", "blue"), "no") in other
    assert (Choose(CIRCLE, "colour", ("blue", "red")), "red") in other
    assert (Exist(Things(Look(colour="red", shape="circle"))), "yes") in other
    assert implied(Verify(CIRCLE, "colour", "red"), "no") == ()


def test_neither_implies_that_each_is_missing() -> None:
    missing = Look(colour="yellow")
    other = implied(Logic("or", GREEN, missing), "no")
    assert {(one.program, one.answer) for one in other} == {
        (Exist(Things(GREEN)), "no"),
        (Exist(Things(missing)), "no"),
        (Logic("and", GREEN, missing), "no"),
    }
    assert all(solve(one.program, SCENE) == one.answer for one in other)
    assert implied(Logic("or", RED, GREEN), "yes") == ()
