"""SNLI-VE: an example is a photograph, a hypothesis and one of three labels."""

from __future__ import annotations

from collections.abc import Iterator

from vlbench._tasks.snli_ve.lines import read_examples
from vlbench.core.examples import Example, Label
from vlbench.core.task import SplitFiles


def examples(files: SplitFiles) -> Iterator[Example[Label]]:
    """Yield one example per line; the text is the hypothesis alone, the group is the photograph.

    Raises DataError if a line does not have the official format; the message names file and line.
    """
    return read_examples(files, ["sentence2"])
