"""Named rules that extract an answer from the text that a model generated; metrics score the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Rule = Callable[[str, Sequence[str]], str | None]
"""Generated text and the closed list of answers (may be empty) -> the answer; None if the text contains none."""

_PREFIX = re.compile(r"^(?:the\s+)?(?:short\s+)?answer\s*(?:is\s*:?|:)\s*", re.IGNORECASE)
_MARKS = "\"'`*! "
_CLAUSE_END = re.compile(r"[.,;:!?\n]|\bbut\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|no|never|cannot)\b|n['\u2019]t\b", re.IGNORECASE)


def verbatim(generated: str, labels: Sequence[str]) -> str | None:
    """Return the whole text without surrounding space; with a list, the label that equals it ignoring case, or None."""
    answer = generated.strip()
    if not labels:
        return answer or None
    return next((label for label in labels if label.lower() == answer.lower()), None)


def short_answer(generated: str, labels: Sequence[str]) -> str | None:
    """Return the first line in lower case, without a leading "Answer:" or "The answer is", marks or a final period.

    >>> short_answer("The answer is: **Red**.\\nI see a red circle.", ())
    'red'
    """
    answers = (_unmarked(_PREFIX.sub("", _unmarked(line))) for line in generated.splitlines())
    return next(filter(None, answers), None)


def named_label(generated: str, labels: Sequence[str]) -> str | None:
    """Return the only label in the text as a whole word, ignoring case; None for several, none, or a negated one.

    >>> named_label("True: both show dogs.", ("False", "True"))
    'True'
    >>> named_label("It is not true.", ("False", "True"))
    """
    occurrences = {label: _find_label(label, generated) for label in labels}
    named = [label for label, matches in occurrences.items() if matches]
    if len(named) != 1 or any(_is_negated(generated[: match.start()]) for match in occurrences[named[0]]):
        return None
    return named[0]


def _unmarked(text: str) -> str:
    """The text in lower case, without emphasis, and without marks and a period at its ends."""
    return text.replace("**", "").strip(_MARKS).removesuffix(".").strip(_MARKS).lower()


def _find_label(label: str, generated: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"(?<!\w){re.escape(label)}(?!\w)", generated, re.IGNORECASE))


def _is_negated(before: str) -> bool:
    """Whether the clause at the end of this text contains a negation."""
    return bool(_NEGATION.search(_CLAUSE_END.split(before)[-1]))


RULES: Mapping[str, Rule] = {"verbatim": verbatim, "short_answer": short_answer, "named_label": named_label}
