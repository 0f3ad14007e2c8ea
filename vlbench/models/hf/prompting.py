"""A generative model's own processor of prompts and images.

Shapes: B prompts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Protocol, cast

from PIL.Image import Image
from torch import Tensor

from vlbench.core.backbone import Tensors
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Prompt
from vlbench.data.resources import ImageSource
from vlbench.models.hf.library import Processor, ProcessorClass
from vlbench.models.hf.pretrained import PretrainedFolder, brief_reason
from vlbench.models.hf.style import style_of

_REJECTED = (ValueError, IndexError, TypeError)
"""The errors of processors of transformers about texts and images that they do not take."""


class Prompter:
    """The folder's processor.

    stop: the token that ends an answer. pad: the token that pads prompts.

    Raises VlbenchError: exit 6, the processor does not load, or its tokenizer has no end token.
    """

    def __init__(self, source: PretrainedFolder, images: ImageSource) -> None:
        name = source.name
        self.processor, self.name, self.images = _load_processor(source), name, images
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.eos_token_id is None:
            raise VlbenchError(
                f"{name} has a tokenizer without an eos_token, which ends an answer: set it and save it again",
                ExitCode.WEIGHTS,
            )
        self.stop = int(self.tokenizer.eos_token_id)
        pad = self.tokenizer.pad_token_id
        if pad is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.pad = self.stop if pad is None else int(pad)
        self.tokenizer.padding_side = "left"  # generated tokens are appended at the right
        self.style = style_of(self.processor, source)

    def __call__(self, prompts: Sequence[Prompt]) -> Tensors:
        """Process B prompts: `input_ids` [B, T] int64 and `attention_mask` [B, T], padded at the left, and others.

        Raises:
            DataError: an image cannot be read.
            VlbenchError: the processor rejects a prompt; the message names its text and its images.
        """
        texts = [self.style.text(prompt) for prompt in prompts]
        images = [[self.images.open(ref) for ref in prompt.images] for prompt in prompts]
        try:
            processed = self._process(texts, images)
        except _REJECTED as error:
            raise self._rejected(prompts, texts, images, error) from error
        return {key: value for key, value in processed.items() if isinstance(value, Tensor) and key != "labels"}

    def _process(self, texts: Sequence[str], images: Sequence[Sequence[Image]]) -> Mapping[str, object]:
        bos = self.tokenizer.bos_token
        options = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        return self.processor(text=list(texts), images=list(images), padding=True, return_tensors="pt", **options)

    def _rejected(
        self, prompts: Sequence[Prompt], texts: Sequence[str], images: Sequence[Sequence[Image]], error: Exception
    ) -> VlbenchError:
        """The error for the first prompt that the processor rejects, with its files."""
        prompt, reason = prompts[0], error
        for candidate, text, its_images in zip(prompts, texts, images, strict=True):
            try:
                self._process([text], [its_images])
            except _REJECTED as own:
                prompt, reason = candidate, own
                break
        files = ", ".join(str(ref.path) for ref in prompt.images) or "no image"
        remedy = "give fewer shots, or another model" if prompt.shots else "check these, or give another model"
        return VlbenchError(
            f"{self.name} rejects the prompt {prompt.query.text[:80]!r} with {files} ({brief_reason(reason)}): {remedy}"
        )

    @lru_cache(maxsize=100_000)  # noqa: B019 - a run has one Prompter, and answers repeat
    def answer(self, answer: str) -> tuple[int, ...]:
        """The tokens of an answer after any prompt, as if both were tokenized together.

        Raises VlbenchError: the answer has no tokens.
        """
        before, answered = self.style.before, self.style.lead + answer
        alone, both = self._tokens(before), self._tokens(before + answered)
        tokens = both[len(alone) :] if both[: len(alone)] == alone else self._tokens(answered)
        if not tokens:
            raise VlbenchError(f"{self.name} has no tokens for the answer {answer!r}: leave it out of the answers")
        return tuple(tokens)

    def decode(self, tokens: Tensor) -> list[str]:
        """Decode tokens [B, T] to B texts."""
        return [str(text) for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _tokens(self, text: str) -> list[int]:
        return [*map(int, self.tokenizer(text, add_special_tokens=False)["input_ids"])]


class _WithAttributes(Protocol):
    """A class of processors that lists its parts."""

    @classmethod
    def get_attributes(cls) -> list[str]: ...


def _load_processor(source: PretrainedFolder) -> Processor:
    """Load the processor without its part for videos, which needs torchvision and is not needed here.

    If the model runs its own code, the library selects the processor, which may be such code too.
    """
    import transformers

    library: ModuleType = transformers  # its mapping has types that a Protocol cannot match
    trusted = source.loading.trust_remote_code
    with source.reading("a processor that does not load"):
        own_code = source.own_code and trusted
        kind: ProcessorClass = (
            library.AutoProcessor if own_code else _without_videos(library.PROCESSOR_MAPPING[type(source.config)])
        )
        return kind.from_pretrained(source.folder, trust_remote_code=trusted)


def _without_videos(kind: type[_WithAttributes]) -> ProcessorClass:
    """A subclass of a processor class that takes images only."""

    def get_attributes(cls: type) -> list[str]:
        return [part for part in kind.get_attributes() if "video" not in part]

    return cast(ProcessorClass, type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes)}))
