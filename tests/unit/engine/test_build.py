"""The precision of the weights that a run holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vlbench.engine.build import lower_precision, make_evaluator
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.models.fake.backbone import Fake


class Lowered(Fake):
    """Can hold its weights in a lower precision."""

    def lower(self, dtype: torch.dtype) -> None:
        self.to(dtype)


@pytest.mark.parametrize(
    ("mode", "dtype", "expected"),
    [
        ("probe", "bfloat16", torch.bfloat16),
        ("probe", "float32", torch.float32),
        ("finetune", "bfloat16", torch.float32),  # master weights; the arithmetic is autocast's
    ],
)
def test_weights_that_are_not_trained_are_held_in_the_precision_of_the_run(
    mode: str, dtype: str, expected: torch.dtype, make_job: Callable[..., Job]
) -> None:
    job = make_job(mode=mode, dtype=dtype)
    for backbone, held in ((Lowered(), expected), (Fake(), torch.float32)):
        learner = Learner(backbone, make_evaluator(job).build_head(backbone))
        lower_precision(learner, job)
        assert {parameter.dtype for parameter in learner.backbone.parameters()} == {held}
        assert {parameter.dtype for parameter in learner.head.parameters()} == {torch.float32}
