"""A generative model's own processor: prompts with their pictures become what it was trained on.

Shapes: B prompts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from torch import Tensor

from vlbench.core.backbone import Tensors
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Prompt
from vlbench.data.resources import ImageSource
from vlbench.models.hf.pretrained import Source
from vlbench.models.hf.processor import FAULTS
from vlbench.models.hf.style import style_of


class Prompter:
    """The processor of the model that a source is of.

    stop: the token that ends an answer. pad: the one that fills prompts up to one length.

    Raises:
        VlbenchError: exit 6, it does not load, or its tokenizer knows no end of a text.
    """

    def __init__(self, source: Source, pictures: ImageSource) -> None:
        name = source.name
        self.processor, self.name, self.pictures = _processor(source), name, pictures
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.eos_token_id is None:
            raise VlbenchError(
                f"{name} has a tokenizer without an eos_token, which ends an answer: set it and save it again",
                ExitCode.WEIGHTS,
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "left"  # so that what is written goes on at the right
        self.stop, self.pad = int(self.tokenizer.eos_token_id), int(self.tokenizer.pad_token_id)
        self.style = style_of(self.processor, source)

    def __call__(self, prompts: Sequence[Prompt]) -> Tensors:
        """`input_ids` and `attention_mask` [B, T], filled up at the left, and what the model takes besides.

        Raises:
            DataError: a picture cannot be read.
            VlbenchError: the processor cannot take so many pictures in one prompt.
        """
        texts = [self.style.text(prompt) for prompt in prompts]
        images = [[self.pictures.open(ref) for ref in prompt.images] for prompt in prompts]
        bos = self.tokenizer.bos_token
        options = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        try:
            made = self.processor(text=texts, images=images, padding=True, return_tensors="pt", **options)
        except (ValueError, IndexError, TypeError) as error:
            raise VlbenchError(
                f"{self.name} takes no prompt with {len(images[0])} pictures ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:160]}): give fewer shots, or another model"
            ) from None
        return {key: value for key, value in made.items() if isinstance(value, Tensor) and key != "labels"}

    @lru_cache(maxsize=100_000)  # noqa: B019 - there is one of it in a run, and answers come again and again
    def answer(self, answer: str) -> tuple[int, ...]:
        """The tokens of an answer after any prompt: as they are where both are cut into tokens together.

        Raises:
            VlbenchError: it has none.
        """
        before, answered = self.style.before, self.style.lead + answer
        alone, both = self._tokens(before), self._tokens(before + answered)
        found = both[len(alone) :] if both[: len(alone)] == alone else self._tokens(answered)
        if not found:
            raise VlbenchError(f"{self.name} has no tokens for the answer {answer!r}: leave it out of the answers")
        return tuple(found)

    def words(self, tokens: Tensor) -> list[str]:
        """What tokens [B, T] say."""
        return [str(text) for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _processor(source: Source) -> Any:
    """The processor without its part for videos, which needs torchvision and is not needed here.

    Where the model runs code of its own, the library finds the processor, which may be such code too.
    """
    from transformers import PROCESSOR_MAPPING, AutoProcessor

    trusted = source.loading.trust_remote_code
    try:
        kind = AutoProcessor if source.own_code and trusted else _stills(PROCESSOR_MAPPING[type(source.config)])
        return cast(Any, kind).from_pretrained(source.folder, trust_remote_code=trusted)
    except FAULTS as error:
        raise source.fault("a processor that does not load", error) from None


def _stills(kind: Any) -> Any:
    """The same processor for pictures only."""

    def get_attributes(cls: Any) -> list[str]:
        return [part for part in kind.get_attributes() if "video" not in part]

    return type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes)})
