"""Named rules that turn what a model wrote into an answer; what an answer is worth is the metric's business alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Rule = Callable[[str, Sequence[str]], str | None]
"""What was written, and the closed list of answers (or none) -> the answer; None where there is none in it."""

_LABEL = re.compile(r"^(?:the\s+)?(?:short\s+)?answer\s*(?:is\s*:?|:)\s*", re.IGNORECASE)


def verbatim(written: str, labels: Sequence[str]) -> str | None:
    """All of it, without space around it."""
    return written.strip() or None


def short_answer(written: str, labels: Sequence[str]) -> str | None:
    """Its first line in lower case, without "Answer:" or "The answer is" before, quotes around or a period behind it.

    >>> short_answer("The answer is: Red.\\nI see a red circle.", ())
    'red'
    """
    line = next((line.strip() for line in written.splitlines() if line.strip()), "")
    return _LABEL.sub("", line).strip().removesuffix(".").strip("\"'` ").lower() or None


def named_label(written: str, labels: Sequence[str]) -> str | None:
    """The one label that it names as a whole word, whatever its case; None where it names several or none.

    >>> named_label("True: both show dogs.", ("False", "True"))
    'True'
    """
    named = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", written, re.IGNORECASE)]
    return named[0] if len(named) == 1 else None


RULES: Mapping[str, Rule] = {"verbatim": verbatim, "short_answer": short_answer, "named_label": named_label}
