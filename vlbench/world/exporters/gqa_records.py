"""The fields of GQA's records: operations over a scene graph, types, groups and choices of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlbench.world.language import programs
from vlbench.world.language.programs import ANY, VALUES, Program, Property, Things, answers, mentioned, property_of
from vlbench.world.language.questions import DIRECTION_NAMES, QUESTION_KINDS, QuestionKind
from vlbench.world.language.statements import Look
from vlbench.world.scenes.pools import Photograph
from vlbench.world.scenes.scene import Direction, Scene, Thing

Operation = dict[str, str | list[int]]

PROPERTY_NAMES: dict[Property, str] = {
    "colour": "color", "size": "size", "shape": "name", "across": "hposition", "down": "vposition",
}  # fmt: skip
_GROUPS: dict[Property, str] = {
    "colour": "color", "size": "size", "shape": "shape", "across": "position", "down": "position",
}  # fmt: skip
_TYPES: dict[QuestionKind, tuple[str, str, str]] = {
    "exist": ("verify", "obj", "exist"),
    "exist_where": ("verify", "rel", "existRelS"),
    "verify": ("verify", "attr", "verifyAttr"),
    "verify_place": ("verify", "attr", "positionVerify"),
    "verify_relation": ("verify", "rel", "relVerify"),
    "every": ("verify", "global", "globalVerify"),
    "both": ("logical", "obj", "existAnd"),
    "either": ("logical", "obj", "existOr"),
    "same": ("compare", "attr", "twoSame"),
    "different": ("compare", "attr", "twoDifferent"),
    "bigger": ("compare", "attr", "comparativeChoose"),
    "colour": ("query", "attr", "directOf"),
    "size": ("query", "attr", "how"),
    "shape": ("query", "cat", "categoryAttr"),
    "place": ("query", "attr", "positionQuery"),
    "colour_where": ("query", "rel", "directWhich"),
    "shape_where": ("query", "rel", "categoryRelS"),
    "colour_of_all": ("query", "global", "globalQuery"),
    "shape_of_all": ("query", "global", "globalQuery"),
    "choose": ("choose", "attr", "chooseAttr"),
    "choose_place": ("choose", "attr", "positionChoose"),
    "choose_relation": ("choose", "rel", "relChooser"),
}
"""Structural, semantic and detailed type of a kind; `types_of` refines them."""


def object_ids(photograph: Photograph) -> dict[Thing, str]:
    """The id of each thing in the scene graph."""
    first = photograph.number * 10
    return {thing: str(first + place) for place, thing in enumerate(photograph.scene.things)}


def scene_graph(photograph: Photograph, side: int) -> dict[str, object]:
    """The scene graph of an image of side x side pixels: boxes in pixels, all relations between two things."""
    ids = object_ids(photograph)
    objects = {
        ids[thing]: {
            "name": thing.shape,
            "x": thing.box[0],
            "y": thing.box[1],
            "w": thing.box[2] - thing.box[0],
            "h": thing.box[3] - thing.box[1],
            "attributes": [thing.colour, thing.size],
            "relations": [
                {"name": words, "object": ids[other]}
                for other in photograph.scene.things
                for direction, words in DIRECTION_NAMES.items()
                if thing.stands(direction, other)
            ],
        }
        for thing in photograph.scene.things
    }
    return {"width": side, "height": side, "objects": objects}


def types_of(kind: QuestionKind, program: Program) -> dict[str, str]:
    """A question's types: semantic type `cat` if it asks for a shape, `attr` if it names an attribute."""
    structural, semantic, detailed = _TYPES[kind]
    match program:
        case programs.Exist(things) if kind == "exist" and things.look != Look(shape=things.look.shape):
            semantic, detailed = "attr", "existAttr"
        case programs.QueryValue(things, _) if things == Things(ANY, plural=True):
            semantic, detailed = "global", "globalQuery"
        case programs.Verify(_, "shape", _):
            semantic, detailed = "cat", "typeVerify"
        case programs.Choose(_, "shape", _):
            semantic, detailed = "cat", "typeChoose"
    return {"structural": structural, "semantic": semantic, "detailed": detailed}


def groups_of(kind: QuestionKind, program: Program) -> dict[str, str | None]:
    """global: the sort of answer an open question asks for. local: the question itself, independent of the image."""
    words = "_".join(_describe(things) for things in mentioned(program))
    asked = property_of(program)
    return {
        "global": _GROUPS[program.property] if isinstance(program, programs.QueryValue) else None,
        "local": f"{QUESTION_KINDS.index(kind):02d}-{words}" + (f",{PROPERTY_NAMES[asked]}" if asked else ""),
    }


def _describe(things: Things) -> str:
    look = things.look
    words = " ".join(word for word in (look.size, look.colour, look.shape or "shape") if word)
    return f"{words},{DIRECTION_NAMES[things.direction]},s" if things.direction else words


def answer_text(program: Program, answer: str) -> str:
    """An answer in GQA's words: a direction is given by the relation's name."""
    if isinstance(program, programs.ChooseRelation):
        return {str(direction): words for direction, words in DIRECTION_NAMES.items()}[answer]
    return answer


def choices(program: Program) -> dict[str, list[str]]:
    """valid: answers of the right sort. plausible: the possible answers to this question."""
    plausible = [answer_text(program, answer) for answer in answers(program)]
    match program:
        case programs.Choose(_, attribute, _):
            valid = list(VALUES[attribute])
        case programs.ChooseRelation():
            valid = list(DIRECTION_NAMES.values())
        case programs.Bigger():
            valid = list(VALUES["shape"])
        case _:
            valid = plausible
    return {"valid": valid, "plausible": plausible}


def operations(program: Program, scene: Scene, ids: Mapping[Thing, str]) -> list[Operation]:
    """The steps of the program, each with the steps it depends on and the objects it finds."""
    steps = _Steps(scene, ids, [])
    match program:
        case programs.Exist(things):
            steps.add("exist", [steps.find(things)], "?")
        case programs.Verify(things, attribute, value):
            steps.add(f"verify {_operand(attribute)}", [steps.find(things)], value)
        case programs.QueryValue(things, attribute):
            steps.add("query", [steps.find(things)], PROPERTY_NAMES[attribute])
        case programs.Choose(things, attribute, options):
            steps.add(f"choose {PROPERTY_NAMES[attribute]}", [steps.find(things)], "|".join(options))
        case programs.Every(attribute, value):
            steps.add(f"verify {_operand(attribute)}", [steps.find(Things(ANY, plural=True))], value)
        case programs.VerifyRelation(first, direction, second):
            steps.relation("verify rel", first, [direction], second)
        case programs.ChooseRelation(first, directions, second):
            steps.relation("choose rel", first, directions, second)
        case programs.Logic(joint, first_look, second_look):
            exist = [steps.add("exist", [steps.find(Things(look))], "?") for look in (first_look, second_look)]
            steps.add(joint, exist, "")
        case programs.Alike(first, second, attribute, same):
            comparison = "same" if same else "different"
            steps.add(f"{comparison} {_operand(attribute)}", [steps.find(first), steps.find(second)], "?")
        case programs.Bigger(first, second):
            steps.add("choose bigger", [steps.find(first), steps.find(second)], "?")
        case _:
            raise TypeError(f"GQA asks no {type(program).__name__}")
    return steps.operations


def format_operations(steps: Sequence[Operation]) -> str:
    """The operations in the format of GQA's `semanticStr`."""
    return "->".join(
        f"{step['operation']}: {step['argument']}" + (f" {step['dependencies']}" if step["dependencies"] else "")
        for step in steps
    )


def _operand(attribute: Property) -> str:
    """The attribute to verify or compare; GQA's word for a shape is `shape` here, not `name`."""
    return "shape" if attribute == "shape" else PROPERTY_NAMES[attribute]


@dataclass(frozen=True, slots=True)
class _Steps:
    """The operations so far; `add` and `find` return the index of the last operation they add."""

    scene: Scene
    ids: Mapping[Thing, str]
    operations: list[Operation]

    def add(self, operation: str, dependencies: list[int], argument: str) -> int:
        self.operations.append({"operation": operation, "dependencies": dependencies, "argument": argument})
        return len(self.operations) - 1

    def find(self, things: Things) -> int:
        """Add the operations that find the things: select, relate, filter by colour and size."""
        if things == Things(ANY, plural=True):
            return self.add("select", [], "scene")
        name, ids = things.look.shape or "shape", self._ids(things)
        if things.direction is None:
            last = self.add("select", [], f"{name} ({ids})")
        else:
            anchor = self.find(Things(things.anchor))
            last = self.add("relate", [anchor], f"{name},{DIRECTION_NAMES[things.direction]},s ({ids})")
        for attribute, value in (("color", things.look.colour), ("size", things.look.size)):
            if value:
                last = self.add(f"filter {attribute}", [last], value)
        return last

    def relation(self, operation: str, first: Things, directions: Sequence[Direction], second: Things) -> None:
        """Add the relation of the first to the second, which is found earlier and named in the argument."""
        other, subject = self.find(second), self.find(first)
        words = "|".join(DIRECTION_NAMES[direction] for direction in directions)
        name = second.look.shape or "shape"
        self.add(operation, [subject, other], f"{name},{words},o ({self._ids(second)})")

    def _ids(self, things: Things) -> str:
        return ",".join(self.ids[thing] for thing in things.among(self.scene) or ()) or "-"
