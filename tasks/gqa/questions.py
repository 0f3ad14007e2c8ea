"""Reads GQA's question files in their official format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from vlbench._tasks.gqa.evidence import Evidence
from vlbench._tasks.gqa.fields import all_strings, flag, strings
from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.data.json.document import as_object, list_at, object_at
from vlbench.data.json.lines import Fields, folder, one_of, text
from vlbench.data.json.stream import entries

STRUCTURAL = ("verify", "query", "choose", "logical", "compare")
NO_STEPS = ("exist", "query: name", "choose name")
"""Operations that only read the result of the others; the official evaluation does not count them as steps."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image. tags: empty unless the question is balanced and its answer public."""

    id: str
    image: str
    text: str
    answer: GqaAnswer
    tags: Mapping[str, str] = field(default_factory=dict)


def read_questions(path: Path, public: bool, evidence: Evidence) -> Iterator[Question]:
    """Yield the questions of one file in its order, without reading the whole file into memory.

    public: whether the file contains the answers. evidence: of the questions' split. Raises DataError if the file
    cannot be read, or has a question that the official format does not allow.
    """
    for name, entry in entries(path):
        where = f"{path}, question {name[:60]!r}"
        fields = as_object(entry, where)
        yield _answered(name, fields, where, evidence) if public else _unanswered(name, fields, where)


def _unanswered(name: str, fields: Fields, where: str) -> Question:
    return Question(
        id=intern(name),
        image=intern(folder(fields, "imageId", where)),
        text=text(fields, "question", where),
        answer=GqaAnswer("", flag(fields, "isBalanced", where)),
    )


def _answered(name: str, fields: Fields, where: str, evidence: Evidence) -> Question:
    bare = _unanswered(name, fields, where)
    types = object_at(fields, "types", where)
    answer, structural = intern(text(fields, "answer", where)), one_of(types, "structural", STRUCTURAL, where)
    if not bare.answer.is_balanced:
        return Question(bare.id, bare.image, bare.text, GqaAnswer(answer, False, structural))
    choices = evidence.choices.get(name)
    group = object_at(fields, "groups", where).get("global")
    reference = GqaAnswer(
        answer=answer,
        is_balanced=True,
        structural=structural,
        detailed=intern(text(types, "detailed", where)),
        global_group=None if group is None else all_strings([group], "global", where)[0],
        entailed=tuple(other for other in strings(fields, "entailed", where) if other != name),
        valid=None if choices is None else choices[0],
        plausible=None if choices is None else choices[1],
        boxes=evidence.boxes(bare.image, _mentioned_objects(fields, where)) if evidence.objects else None,
    )
    semantic, operations = intern(text(types, "semantic", where)), list_at(fields, "semantic", where)
    tags = _tags(reference, semantic, bare.text, operations, where)
    return Question(bare.id, bare.image, bare.text, reference, tags)


def _tags(
    reference: GqaAnswer, semantic: str, question: str, operations: Sequence[object], where: str
) -> Mapping[str, str]:
    """The types by name, and the global group if there is one. length: in words. steps: of the program."""
    tags = {
        "structural": reference.structural,
        "semantic": semantic,
        "detailed": reference.detailed,
        "length": intern(str(len(question.split()))),
        "steps": intern(str(sum(_is_step(as_object(operation, where), where) for operation in operations))),
    }
    return tags if reference.global_group is None else tags | {"global": reference.global_group}


def _is_step(operation: Fields, where: str) -> bool:
    step = f"{text(operation, 'operation', where)}: {text(operation, 'argument', where)}"
    return not any(part in step for part in NO_STEPS)


def _mentioned_objects(fields: Fields, where: str) -> list[str]:
    """The objects that words of the question, then of the full answer, refer to, once per mention.

    The official evaluation counts them in the same way.
    """
    annotations = object_at(fields, "annotations", where)
    spans = (object_at(annotations, key, where) for key in ("question", "fullAnswer"))
    return [name for words in spans for name in all_strings(list(words.values()), "annotations", where)]
