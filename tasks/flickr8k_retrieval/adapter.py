"""Flickr8k retrieval: reads `dataset_flickr8k.json`, one example per caption."""

from __future__ import annotations

from collections.abc import Iterator

from vlbench.core.examples import Caption, Example
from vlbench.core.task import SplitFiles
from vlbench.data.splits.karpathy import retrieval_examples


def examples(files: SplitFiles) -> Iterator[Example[Caption]]:
    """Yield one example per caption, as `retrieval_examples` does: five per photograph, in the order of the file."""
    return retrieval_examples(files)
