"""Named rules that turn what a model wrote into an answer; what an answer is worth is the metric's business alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Rule = Callable[[str, Sequence[str]], str | None]
"""What was written, and the closed list of answers (or none) -> the answer; None where there is none in it."""

_PREFIX = re.compile(r"^(?:the\s+)?(?:short\s+)?answer\s*(?:is\s*:?|:)\s*", re.IGNORECASE)
_MARKS = "\"'`*! "
_CLAUSE_END = re.compile(r"[.,;:!?\n]|\bbut\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|no|never|cannot)\b|n['\u2019]t\b", re.IGNORECASE)


def verbatim(written: str, labels: Sequence[str]) -> str | None:
    """All of it, without space around it; where there is a list, the label that it is, whatever its case, or None."""
    answer = written.strip()
    if not labels:
        return answer or None
    return next((label for label in labels if label.lower() == answer.lower()), None)


def short_answer(written: str, labels: Sequence[str]) -> str | None:
    """Its first line in lower case, without "Answer:" or "The answer is" before, marks around or a period behind it.

    >>> short_answer("The answer is: **Red**.\\nI see a red circle.", ())
    'red'
    """
    answers = (_unmarked(_PREFIX.sub("", _unmarked(line))) for line in written.splitlines())
    return next(filter(None, answers), None)


def named_label(written: str, labels: Sequence[str]) -> str | None:
    """The one label that it names as a whole word, whatever its case; None where it names several, none, or denies it.

    >>> named_label("True: both show dogs.", ("False", "True"))
    'True'
    >>> named_label("It is not true.", ("False", "True"))
    """
    found = {label: _named(label, written) for label in labels}
    named = [label for label, matches in found.items() if matches]
    if len(named) != 1 or any(_denied(written[: match.start()]) for match in found[named[0]]):
        return None
    return named[0]


def _unmarked(text: str) -> str:
    """Without emphasis, and without marks and a period at its ends; in lower case."""
    return text.replace("**", "").strip(_MARKS).removesuffix(".").strip(_MARKS).lower()


def _named(label: str, written: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"(?<!\w){re.escape(label)}(?!\w)", written, re.IGNORECASE))


def _denied(before: str) -> bool:
    """Whether the clause that ends with this text has a negation in it."""
    return bool(_NEGATION.search(_CLAUSE_END.split(before)[-1]))


RULES: Mapping[str, Rule] = {"verbatim": verbatim, "short_answer": short_answer, "named_label": named_label}
