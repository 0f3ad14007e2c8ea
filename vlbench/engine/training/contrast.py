"""A contrastive loss over all pairs of an optimizer step, split over any number of forward passes and processes.

Each part of the step is embedded twice. The first pass is without gradients; the embeddings of all parts give the loss
of the step and its gradient with respect to every embedding. The second pass uses the same random states and
backpropagates those gradients to the weights.

Shapes: B pairs of the step, b pairs of a part, n of all parts of a process, E embedding width.
Source: Gao et al. 2021 (GradCache, arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vlbench.core.batch import Batch
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.memory import Undo
from vlbench.engine.runtime.randomness import RandomState, random_state, restore_random_state
from vlbench.engine.training.collectives import backward, gathered_rows
from vlbench.engine.training.micro_batches import Share
from vlbench.heads.base import Head
from vlbench.heads.forward import Embedded


@dataclass(frozen=True)
class Part:
    """One forward pass of this process. batch: its pairs. share: which pairs of the step they are."""

    batch: Batch
    share: Share

    @property
    def places(self) -> list[int]:
        """The indices of its pairs in the step; empty where the process has none and only joins the exchange."""
        return list(self.share.places) if self.share.weight else []


def contrast(
    accelerator: Accelerator,
    learner: Learner,
    wrapped: nn.Module,
    parts: Sequence[Part],
    order: Sequence[int],
    targets: Tensor,
) -> Tensor:
    """Add up the gradients of the loss over all pairs of a step, as `collectives.backward` does; return the loss.

    learner: with a DualHead, in training mode. wrapped: the learner as DDP wraps it. parts: of this process; all
    processes have the same number. order: the indices in the step of the pairs of all processes, by rank. targets: of
    the step's pairs [B], as the head makes them.
    """
    embeddings, states = _embedded(accelerator, Undo(learner), wrapped, parts)
    in_step = torch.empty(len(order), embeddings.shape[1], device=embeddings.device)
    in_step[list(order)] = gathered_rows(accelerator, embeddings.float())
    head, targets = learner.head, targets.to(in_step.device)
    loss, of_embeddings, of_head = _gradients(accelerator, head, in_step, embeddings.dtype, targets)
    share = 1 / (len(parts) * accelerator.num_processes)  # every part carries the same share of the head's gradient

    def surrogate(part_and_state: tuple[Part, RandomState]) -> Tensor:
        part, state = part_and_state
        restore_random_state(state)
        embedded: Embedded = wrapped(part.batch.to(accelerator.device), embeds=True)
        own = torch.zeros(len(part.share.places), in_step.shape[1], device=in_step.device)
        own[: len(part.places)] = of_embeddings[part.places]
        carried = (_side_by_side(embedded).float() * own).sum()
        for parameter, gradient in zip(embedded.head, of_head, strict=True):
            carried = carried + share * (parameter * gradient).sum()
        return carried

    backward(accelerator, wrapped, zip(parts, states, strict=True), len(parts), surrogate)
    return loss


def _embedded(
    accelerator: Accelerator, undo: Undo, wrapped: nn.Module, parts: Sequence[Part]
) -> tuple[Tensor, list[RandomState]]:
    """The embeddings of this process's pairs, [n, 2E], without gradients, and the random states before each part.

    undo: restores buffers and random states at the end, so that the second pass starts from the same state.
    """
    rows, states = list[Tensor](), list[RandomState]()
    with torch.no_grad():
        for part in parts:
            states.append(random_state())
            with accelerator.autocast():
                embedded: Embedded = wrapped(part.batch.to(accelerator.device), embeds=True)
            rows.append(_side_by_side(embedded)[: len(part.places)])
    undo()
    return torch.cat(rows), states


def _gradients(
    accelerator: Accelerator, head: Head, embeddings: Tensor, dtype: torch.dtype, targets: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The loss of a step's embeddings [B, 2E], and its gradients with respect to these and to the head's parameters.

    dtype: of the model's embeddings.
    """
    embeddings.requires_grad_()
    with accelerator.autocast():
        loss = head.loss(head(*embeddings.to(dtype).chunk(2, dim=1)), targets)
    # Without scaling, small gradients would underflow in float16.
    scale = 1.0 if accelerator.scaler is None else float(accelerator.scaler.get_scale())
    gradients = torch.autograd.grad(loss * scale, [embeddings, *head.parameters()])
    of_embeddings, *of_head = (gradient / scale for gradient in gradients)
    return loss.detach(), of_embeddings, of_head


def _side_by_side(embedded: Embedded) -> Tensor:
    """The embeddings of images and texts, [b, E] each, as [b, 2E]."""
    return torch.cat([embedded.images, embedded.texts], dim=1)
