"""Load the weights that a transformers model comes with into a learner: its backbone and, where it fits, its head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vlbench.core.backbone import Pretrained
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.record import LoadReport
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import reorder_rows

_ROWS = ("classifier.3.weight", "classifier.3.bias")
"""The tensors of a head's last layer, with one row per answer."""


def load_pretrained(
    learner: Learner, labels: tuple[str, ...], given: tuple[str, ...], with_head: bool, name: str
) -> LoadReport:
    """Load the model's own weights into the backbone and, where it fits, the head.

    labels: the answers of the learner's head; empty where it ranks. given: the answers that the rows of the model's own
    head stand for; empty where unknown. with_head: whether the model's own head must fit.

    Raises:
        VlbenchError: the model comes without weights (exit 2), or a head that must fit does not (exit 6).
    """
    backbone, head = learner.backbone, learner.head
    if not isinstance(backbone, Pretrained):
        raise VlbenchError(f"{name} has no weights of its own: name a --checkpoint")
    loaded, own = backbone.load_pretrained(), head.state_dict()
    rows, unmatched = _reordered_head(loaded.head, labels, given)
    fitting = {key: value for key, value in rows.items() if key in own and own[key].shape == value.shape}
    complete = fitting.keys() == own.keys()
    if with_head and not complete:
        raise VlbenchError(
            f"the head of {name} is not the one its config.json describes: use --mode finetune, or save it again",
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


def _reordered_head(
    head: Mapping[str, Tensor], labels: tuple[str, ...], given: tuple[str, ...]
) -> tuple[dict[str, Tensor], int]:
    """The head with its rows in the order of the labels, and the number of rows of zeros; unchanged where it ranks."""
    if not labels:
        return dict(head), 0
    others = {key: value for key, value in head.items() if key not in _ROWS}
    rows, unmatched = reorder_rows({key: head[key] for key in _ROWS if key in head}, labels, given)
    return others | rows, len(unmatched)
