"""Transformers' generative models, with their own processor.

Shapes: B prompts, T tokens, C candidates, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, cast

import torch
from torch import Tensor, nn

from vlbench.core.backbone import PretrainedWeights, Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Prompt
from vlbench.core.record import Decoding
from vlbench.data.resources import Resources
from vlbench.models.hf.continuation import IGNORED, LABELS, continued, kept, log_likelihoods
from vlbench.models.hf.folder import folder_of
from vlbench.models.hf.library import GenerativeModel, Output
from vlbench.models.hf.pretrained import PretrainedFolder
from vlbench.models.hf.processor import processing_of
from vlbench.models.hf.prompting import Prompter


class HFGenerative(nn.Module):
    """A model of AutoModelForImageTextToText with its own processor; a `core.backbone.Generator`."""

    def __init__(self, source: PretrainedFolder, resources: Resources) -> None:
        super().__init__()
        self.source = source
        self.prompter = Prompter(source, resources.images)
        self.stops = _stops(source, self.prompter.stop)
        self.network = source.make_generative()
        self.width = int(source.config.get_text_config().hidden_size)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build the one size of the card, untrained. Raises VlbenchError (exit 6): no processor that loads."""
        return cls(PretrainedFolder(folder_of(card), card.name, resources.loading), resources)

    def load_pretrained(self) -> PretrainedWeights:
        """Load the network's weights; there is no head."""
        self.network, report = self.source.load_generative()
        return PretrainedWeights(report, {})

    def adaptable(self) -> nn.Module:
        return self.network

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move nothing if the library placed the network on devices."""
        loading = self.source.loading
        return self if loading.device_map or loading.quantize else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        """Run the processor on B prompts, followed by `answers` and the end token if answers are given.

        Returns: input_ids [B, T] int64, attention_mask [B, T], and what else the model takes; with answers also LABELS.

        Raises:
            DataError: an image cannot be read.
            VlbenchError: the processor rejects the number of images, or an answer has no tokens.
        """
        processed = self.prompter(prompts)
        if answers is None:
            return processed
        return self._continued(processed, [self._ended(answer) for answer in answers])

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        """Generate a text of at most `longest` tokens for each prompt, with greedy decoding."""
        from transformers import GenerationConfig

        decoding, make_config = self.decoding(longest), cast(Callable[..., object], GenerationConfig)
        self._model.generation_config = make_config(  # without the sampling that its folder may suggest
            do_sample=decoding.do_sample,
            num_beams=decoding.num_beams,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=self.stops,
            pad_token_id=self.prompter.pad,
        )
        with self._library_faults():
            generated = self._model.generate(**self._to_dtype(prompts))
        return self.prompter.decode(generated[:, prompts["input_ids"].shape[1] :])

    @property
    def _model(self) -> GenerativeModel:
        return cast(GenerativeModel, self.network)

    @property
    def chat_template(self) -> str:
        """The template that renders prompts; empty for a model trained without one."""
        return self.prompter.style.template

    def rendered(self, prompt: Prompt) -> str:
        """The text that the processor takes; each image is one placeholder in it."""
        return self.prompter.style.text(prompt)

    def decoding(self, longest: int) -> Decoding:
        """Greedy decoding of at most `longest` tokens, up to a token that ends an answer."""
        tokens = self.prompter.tokenizer.convert_ids_to_tokens(self.stops)
        named = zip(self.stops, tokens, strict=True)  # a folder may name tokens that its tokenizer does not have
        return Decoding(
            max_new_tokens=longest, stop=tuple(f"token {stop}" if name is None else str(name) for stop, name in named)
        )

    def image_processing(self) -> dict[str, str]:
        """The image processor's class and the library that it resizes with; empty if the processor has none."""
        processor = getattr(self.prompter.processor, "image_processor", None)
        return {} if processor is None else processing_of(processor)

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate followed by the end token, after each prompt.

        Without the end token, a candidate that is a prefix of another ("1", "10") could never be the less likely one.
        """
        batch = len(prompts["input_ids"])
        columns = [
            self._log_likelihoods(self._continued(prompts, [self._ended(candidate)] * batch)).sum(dim=1)
            for candidate in candidates
        ]
        return torch.stack(columns, dim=1)

    def nll(self, answered: Tensors) -> Tensor:
        """The mean negative log-likelihood [B] of the tokens of each answer and its end token."""
        tokens = (answered[LABELS] != IGNORED).sum(dim=1)
        return -self._log_likelihoods(answered).sum(dim=1) / tokens

    def states(self, prompts: Tensors) -> Tensor:
        """The last hidden state of each prompt's last token, [B, D]."""
        padded = self._continued(prompts, [()] * len(prompts["input_ids"]))
        inputs = self._to_dtype({name: value for name, value in padded.items() if name != LABELS})
        base = self._model.base_model
        whole = base is self.network
        with self._library_faults():
            output: Output = base(**inputs, use_cache=False, output_hidden_states=whole)
        states = output.hidden_states[-1] if whole else output.last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        return states[torch.arange(len(last), device=last.device), last]

    def _ended(self, answer: str) -> tuple[int, ...]:
        return (*self.prompter.answer(answer), self.prompter.stop)

    def _log_likelihoods(self, answered: Tensors) -> Tensor:
        """The log-likelihoods [B, K - 1] of the tokens after each prompt; 0 elsewhere."""
        labels = answered[LABELS]
        inputs = self._to_dtype({name: value for name, value in answered.items() if name != LABELS})
        with self._library_faults():
            output: Output = self.network(**inputs, use_cache=False, logits_to_keep=kept(labels))
        return log_likelihoods(output.logits, labels)

    @contextmanager
    def _library_faults(self) -> Iterator[None]:
        """Turn errors about the size of images, or the number of their placeholders, into faults of the folder."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
                raise
            raise self.source.fault("a processor that does not fit its network", error) from error

    def _continued(self, prompts: Tensors, continuations: Sequence[Sequence[int]]) -> Tensors:
        suffix = self.source.config.model_type == "paligemma"
        return continued(prompts, continuations, self.prompter.pad, suffix)

    def _to_dtype(self, prompts: Tensors) -> Tensors:
        """Convert floating-point inputs, such as images, to the precision of the network."""
        dtype = self._model.dtype
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in prompts.items()}


def _stops(source: PretrainedFolder, stop: int) -> list[int]:
    """The tokens that end a generated text: the tokenizer's and those that the folder names."""
    from transformers import GenerationConfig

    if not (source.folder / "generation_config.json").is_file():
        return [stop]
    with source.reading("a generation_config.json that does not load"):
        named = GenerationConfig.from_pretrained(source.folder).eos_token_id
        return sorted({stop, *map(int, named if isinstance(named, list) else [] if named is None else [named])})
