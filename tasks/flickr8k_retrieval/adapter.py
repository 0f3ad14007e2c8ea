"""Flickr8k retrieval: `dataset_flickr8k.json` to examples, one per caption."""

from __future__ import annotations

from collections.abc import Iterator

from vlbench.core.examples import Caption, Example
from vlbench.core.task import SplitFiles
from vlbench.data.splits.karpathy import retrieval_examples


def examples(files: SplitFiles) -> Iterator[Example[Caption]]:
    """One example per caption, five per photograph, in the order of the file.

    Raises:
        DataError: a file that is not what its format promises, entry named.
    """
    return retrieval_examples(files)
