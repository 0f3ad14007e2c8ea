"""SNLI-VE: an example is a photograph, a hypothesis and one of three labels."""

from __future__ import annotations

from collections.abc import Iterator

from vlbench._tasks.snli_ve.lines import read_examples
from vlbench.core.examples import Example, Label
from vlbench.core.task import SplitFiles


def examples(files: SplitFiles) -> Iterator[Example[Label]]:
    """Yield one example per line, as `read_examples` does; the text is the hypothesis alone."""
    return read_examples(files, ["sentence2"])
