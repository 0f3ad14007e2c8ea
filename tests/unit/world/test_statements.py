from __future__ import annotations

import dataclasses

import pytest

from vlbench.world.language.statements import STATEMENT_KINDS, Look, Statement, StatementKind, draw_statement, evaluate
from vlbench.world.rng import stream
from vlbench.world.scenes.scene import Scene, Thing

LEFT = Scene(
    "left",
    (
        Thing("circle", "red", "big", (0, 0), (1, 1, 13, 13)),
        Thing("square", "red", "small", (0, 2), (36, 4, 43, 11)),
        Thing("circle", "blue", "small", (2, 1), (20, 36, 27, 43)),
    ),
)
RIGHT = Scene(
    "right",
    (
        Thing("triangle", "green", "big", (1, 1), (17, 17, 29, 29)),
        Thing("circle", "green", "big", (2, 0), (1, 33, 13, 45)),
    ),
)
RED, BLUE, GREEN, YELLOW = (Look(colour=colour) for colour in ("red", "blue", "green", "yellow"))
CIRCLE, SQUARE, TRIANGLE = (Look(shape=shape) for shape in ("circle", "square", "triangle"))
BIG, SMALL, ANY = Look(size="big"), Look(size="small"), Look()

CASES: list[tuple[Statement, bool]] = [
    (Statement("exists", RED), True),
    (Statement("exists", RED, side="right"), False),
    (Statement("exists", Look("big", "red", "circle")), True),
    (Statement("exists", Look("small", "red", "circle")), False),
    (Statement("absent", TRIANGLE), True),
    (Statement("absent", TRIANGLE, side="right"), False),
    (Statement("both", CIRCLE), True),
    (Statement("both", RED), False),
    (Statement("either", GREEN), True),
    (Statement("either", YELLOW), False),
    (Statement("neither", YELLOW), True),
    (Statement("neither", GREEN), False),
    (Statement("crosswise", RED, GREEN), True),
    (Statement("crosswise", GREEN, RED), False),
    (Statement("count", ANY, bound="exactly", number=3), True),
    (Statement("count", RED, bound="exactly", number=3), False),
    (Statement("count", RED, bound="at least", number=2), True),
    (Statement("count", BLUE, bound="at least", number=2), False),
    (Statement("count", ANY, bound="at most", number=2), False),
    (Statement("count", ANY, side="right", bound="at most", number=2), True),
    (Statement("total", ANY, number=5), True),
    (Statement("total", CIRCLE, number=2), False),
    (Statement("more", ANY), True),
    (Statement("more", BIG), False),
    (Statement("more", BIG, side="right"), True),
    (Statement("more", TRIANGLE, side="left"), False),
    (Statement("relation", RED, SQUARE, direction="left"), True),
    (Statement("relation", SQUARE, SQUARE, direction="left"), False),
    (Statement("relation", BLUE, RED, direction="below"), True),
    (Statement("relation", BLUE, RED, direction="above"), False),
    (Statement("relation", TRIANGLE, CIRCLE, side="right", direction="right"), True),
    (Statement("relation", TRIANGLE, CIRCLE, side="right", direction="left"), False),
    (Statement("every", SQUARE, RED), True),
    (Statement("every", CIRCLE, RED), False),
    (Statement("every", TRIANGLE, RED), False),
    (Statement("every", ANY, GREEN, side="right"), True),
    (Statement("position", RED, place="top row"), True),
    (Statement("position", RED, place="middle row"), False),
    (Statement("position", BLUE, place="bottom row"), True),
    (Statement("position", BLUE, place="centre"), False),
    (Statement("position", TRIANGLE, side="right", place="centre"), True),
    (Statement("position", TRIANGLE, side="right", place="middle row"), True),
]


@pytest.mark.parametrize(("statement", "truth"), CASES, ids=lambda value: getattr(value, "kind", None))
def test_the_solver_knows(statement: Statement, truth: bool) -> None:
    assert evaluate(statement, LEFT, RIGHT) is truth


def test_the_cases_show_each_kind_true_and_false() -> None:
    assert {(statement.kind, truth) for statement, truth in CASES} == {
        (k, t) for k in STATEMENT_KINDS for t in (True, False)
    }


@pytest.mark.parametrize("kind", STATEMENT_KINDS)
def test_drawn_statements_vary_and_keep_their_kind(kind: StatementKind) -> None:
    drawn = [draw_statement(kind, stream("test", kind, n)) for n in range(60)]
    assert {statement.kind for statement in drawn} == {kind}
    assert len({dataclasses.astuple(statement) for statement in drawn}) > 5
    assert drawn == [draw_statement(kind, stream("test", kind, n)) for n in range(60)]
