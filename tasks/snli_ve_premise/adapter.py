"""SNLI-VE with its premise: a photograph, a hypothesis and a caption of the photograph, one of three labels."""

from __future__ import annotations

from collections.abc import Iterator

from vlbench._tasks.snli_ve.lines import read_examples
from vlbench.core.examples import Example, Label
from vlbench.core.task import SplitFiles


def examples(files: SplitFiles) -> Iterator[Example[Label]]:
    """One example per line; the text is the hypothesis, then the premise; the group is the photograph.

    Raises:
        DataError: a line that is not what the official format promises, with file and line number.
    """
    return read_examples(files, ["sentence2", "sentence1"])  # models that cut long texts lose the premise's end
