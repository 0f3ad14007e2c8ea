"""Recall and rank metrics of image-text retrieval from a matrix of scores, as a module of `evaluate`.

>>> import evaluate
>>> from vlbench.metrics.hub import path
>>> retrieval = evaluate.load(str(path("retrieval")))
>>> retrieval.add_batch(predictions=[[0.9, 0.2, 0.6, 0.1]], references=[[0, 1]])
>>> retrieval.add_batch(predictions=[[0.3, 0.4, 0.5, 0.7]], references=[[2, 3]])
>>> values = retrieval.compute()
>>> values["tr_r1"], values["ir_r1"], values["ir_meanr"]
(100.0, 50.0, 1.5)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.gallery import Gallery
from vlbench.metrics import retrieval
from vlbench.metrics.ranks import from_matrix

METRICS = (
    *(retrieval.tr_r1, retrieval.tr_r5, retrieval.tr_r10, retrieval.ir_r1, retrieval.ir_r5, retrieval.ir_r10),
    *(retrieval.rsum, retrieval.tr_medr, retrieval.ir_medr, retrieval.tr_meanr, retrieval.ir_meanr),
)


class Retrieval(evaluate.Metric):  # type: ignore[misc]
    """R@1, R@5, R@10, their sum, median and mean rank, in both directions; ties are pessimistic."""

    def _info(self) -> evaluate.MetricInfo:
        rows, columns = datasets.List(datasets.Value("float64")), datasets.List(datasets.Value("int64"))
        features = datasets.Features({"predictions": rows, "references": columns})
        inputs = "predictions: an image's scores with all texts. references: its own texts' columns."
        return evaluate.MetricInfo(__doc__, "Karpathy and Fei-Fei 2015, Faghri et al. 2018", features, inputs)

    def _compute(self, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[int]]) -> dict[str, float]:
        scores, owner = _matrix(predictions), _owner(references, len(predictions[0]))
        images = [ImageRef(Path(), str(row)) for row in range(len(scores))]
        names = [str(column) for column in range(len(owner))]
        rankings = from_matrix(scores, Gallery("", images, names, names, owner))
        examples = [
            Example(name, Query((images[row],), ""), Caption(str(row)), str(row))
            for name, row in zip(names, owner, strict=True)
        ]
        return {metric.name: metric(rankings, examples).value for metric in METRICS}


def _matrix(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise DataError(f"images have scores with {lengths[0]} to {lengths[-1]} texts: expected one with every text")
    return np.array(rows, np.float64)


def _owner(references: Sequence[Sequence[int]], texts: int) -> list[int]:
    """The row of each text's image."""
    row_of = {column: row for row, columns in enumerate(references) for column in columns}
    named = sum(len(columns) for columns in references)
    if named != texts or row_of.keys() != set(range(texts)):
        raise DataError(
            f"references name {named:,} texts, {len(row_of):,} different ones, where predictions have {texts:,}: "
            f"expected each column of the scores with one image, counted from 0"
        )
    return [row_of[column] for column in range(texts)]
