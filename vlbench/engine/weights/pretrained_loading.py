"""Weights of a model's own into a learner: the backbone's, and the head that was trained with them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vlbench.core.backbone import Pretrained
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.record import LoadReport
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import in_order

_ROWS = ("classifier.3.weight", "classifier.3.bias")
"""Of a classifier's layers the one with a row per answer."""


def load_pretrained(
    learner: Learner, labels: tuple[str, ...], given: tuple[str, ...], with_head: bool, name: str
) -> LoadReport:
    """Fill the backbone and, where it fits, the head.

    Args:
        learner: over a model with weights of its own.
        labels: what the learner's head answers; empty where it ranks.
        given: what the rows of the head that comes along stand for; empty where nothing is said.
        with_head: whether that head must fit.
        name: the model's, for messages.

    Raises:
        VlbenchError: exit 6, the weights do not fit.
    """
    backbone, head = learner.backbone, learner.head
    if not isinstance(backbone, Pretrained):
        raise VlbenchError(f"{name} has no weights of its own: name a --checkpoint")
    loaded = backbone.load_pretrained()
    own = head.state_dict()
    rows, unmatched = _answering(loaded.head, labels, given)
    fitting = {key: value for key, value in rows.items() if key in own and own[key].shape == value.shape}
    complete = fitting.keys() == own.keys()
    if with_head and not complete:
        raise VlbenchError(
            f"the head of {name} is not the one its config.json announces: use --mode finetune, or save it again",
            ExitCode.WEIGHTS,
        )
    if complete:
        head.load_state_dict(fitting)
    matched = len(fitting) if complete else 0
    return loaded.report.model_copy(
        update={
            "matched": loaded.report.matched + matched,
            "missing": loaded.report.missing + len(own) - matched,
            "unmatched_answers": unmatched if complete else 0,
        }
    )


def _answering(
    head: Mapping[str, Tensor], labels: tuple[str, ...], given: tuple[str, ...]
) -> tuple[dict[str, Tensor], int]:
    """The head with its rows in the order of the labels, and how many of them are zeros; as it is where it ranks."""
    if not labels:
        return dict(head), 0
    others = {key: value for key, value in head.items() if key not in _ROWS}
    rows, unmatched = in_order({key: head[key] for key in _ROWS if key in head}, labels, given)
    return others | rows, len(unmatched)
