"""What an answer that never looks would score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vlbench.core.errors import CoverageError
from vlbench.core.examples import Example, Label


def majority(examples: Sequence[Example[Label]]) -> float:
    """The accuracy, in percent, of always giving the label that is most frequent in these examples.

    Raises:
        CoverageError: there are no examples.
    """
    if not examples:
        raise CoverageError("there are no examples to take a majority of: expected at least one")
    return 100 * max(Counter(example.reference.value for example in examples).values()) / len(examples)
