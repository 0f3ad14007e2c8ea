"""Docstrings and comments use the field's words: image, probability, generate, unsupported."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlbench

PACKAGE = Path(vlbench.__file__).parent
TASKS = PACKAGE.parent / "tasks"
WORDS = re.compile(
    r"\b(pictures?(?!:)|without sight|by chance|refus(?:e|es|ed|al)|this house|by heart|drawn by lot|goes? on from)\b",
    re.IGNORECASE,
)
"""The field says image, image-blind, at random, reject, in-repo, overfit, resume; fields of records keep names."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a file, with their lines."""
    source = path.read_text(encoding="utf8")
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


FILES = sorted([*PACKAGE.rglob("*.py"), *TASKS.rglob("*.py")])


@pytest.mark.parametrize("package", sorted({path.relative_to(PACKAGE.parent).parts[1] for path in FILES}))
def test_prose_uses_the_fields_words(package: str) -> None:
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {match.group()}"
        for path in FILES
        if path.relative_to(PACKAGE.parent).parts[1] == package
        for line, text in prose(path)
        for match in WORDS.finditer(re.sub(r"`[^`]*`", "", text))
    ]
    assert not found, "\n".join(found)
