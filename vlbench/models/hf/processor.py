"""A pretrained model's own preprocessing: what was done to pictures and texts in its training is done here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL.Image import Image, new
from torch import Tensor

from vlbench.core.backbone import Tensors, Visual
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.models.hf.pretrained import Source

FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError)
"""What the library raises on preprocessing that is damaged, or lacks a part or another library."""


class Words:
    """Its tokenizer. longest: tokens that a text is cut to, or filled up to where its family wants that.

    Raises:
        VlbenchError: exit 6, the folder's tokenizer does not load, or has nothing to fill texts up with.
    """

    def __init__(self, source: Source, longest: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = _loaded(AutoTokenizer, source, "a tokenizer")
        if self.tokenizer.pad_token_id is None:
            if self.tokenizer.eos_token_id is None:
                raise VlbenchError(
                    f"{source.name} has a tokenizer without a pad_token, which fills texts up to one length: set it "
                    f"and save it again",
                    ExitCode.WEIGHTS,
                )
            self.tokenizer.pad_token = self.tokenizer.eos_token
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

        self.source, self.processor = source, _loaded(AutoImageProcessor, source, "an image processor")

    def __call__(self, pictures: Sequence[Image]) -> Tensors:
        """What it makes of N pictures: `pixel_values` [N, ...], and what else the model takes."""
        made = self.processor(images=list(pictures), return_tensors="pt")
        return {key: value for key, value in made.items() if isinstance(value, Tensor)}

    @torch.inference_mode()
    def check(self, see: Callable[[Tensors, Tensor], Visual]) -> None:
        """Look at a blank picture.

        Raises:
            VlbenchError: exit 6, the network cannot take what the image processor makes of it.
        """
        try:
            see(self([new("RGB", (64, 64))]), torch.zeros(1, dtype=torch.int64))
        except (ValueError, RuntimeError, TypeError, LookupError) as error:
            raise self.source.fault("an image processor that does not fit its network", error) from None


def processing_of(processor: Any) -> dict[str, str]:
    """What prepares images, as `core.backbone.ImageProcessing` says it; before transformers 5 the name tells of it."""
    name = type(processor).__name__
    backend = getattr(processor, "backend", "torchvision" if name.endswith("Fast") else "pil")
    return {"image_processor": name, "image_backend": str(backend)}


def one_token(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [N, E] as states [N, 1, E] and their mask."""
    return embedded[:, None], torch.ones(len(embedded), 1, dtype=torch.bool, device=embedded.device)


def _loaded(loader: Any, source: Source, kind: str) -> Any:
    try:
        return loader.from_pretrained(source.folder, trust_remote_code=source.loading.trust_remote_code)
    except FAULTS as error:
        raise source.fault(f"{kind} that does not load", error) from None
