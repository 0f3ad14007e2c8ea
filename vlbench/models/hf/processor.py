"""A pretrained model's own preprocessing: what was done to pictures and texts in its training is done here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from vlbench.core.backbone import Tensors
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.models.hf.pretrained import Source


class Words:
    """Its tokenizer. longest: tokens that a text is cut to, or filled up to where its family wants that.

    Raises:
        VlbenchError: exit 6, the folder's tokenizer does not load.
    """

    def __init__(self, source: Source, longest: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = _loaded(AutoTokenizer, source, "tokenizer")
        self.longest = min(longest, int(self.tokenizer.model_max_length))
        self.pad: bool | str = "max_length" if source.family.pad else True

    def __call__(self, texts: Sequence[str]) -> Tensors:
        """ids [M, T] int64 and mask [M, T] bool, True on the tokens of each text."""
        encoded = self.tokenizer(
            list(texts),
            padding=self.pad,
            truncation=True,
            max_length=self.longest,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {"ids": encoded["input_ids"], "mask": encoded["attention_mask"].bool()}


class Eyes:
    """Its image processor.

    Raises:
        VlbenchError: exit 6, the folder's image processor does not load.
    """

    def __init__(self, source: Source) -> None:
        from transformers import AutoImageProcessor

        self.processor = _loaded(AutoImageProcessor, source, "image processor")

    def __call__(self, pictures: Sequence[Image]) -> Tensors:
        """What it makes of N pictures: `pixel_values` [N, ...], and what else the model takes."""
        made = self.processor(images=list(pictures), return_tensors="pt")
        return {key: value for key, value in made.items() if isinstance(value, Tensor)}


def one_token(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [N, E] as states [N, 1, E] and their mask."""
    return embedded[:, None], torch.ones(len(embedded), 1, dtype=torch.bool, device=embedded.device)


def _loaded(loader: Any, source: Source, kind: str) -> Any:
    try:
        return loader.from_pretrained(source.folder, trust_remote_code=source.loading.trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise VlbenchError(
            f"{source.name} has a {kind} that does not load ({type(error).__name__}: {reason}): save it again with "
            f"save_pretrained",
            ExitCode.WEIGHTS,
        ) from None
