"""Transformers' models that write: pictures and a prompt in one sequence, through their own processor.

Shapes: B prompts, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from vlbench.core.backbone import PretrainedWeights, Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Prompt
from vlbench.core.record import Decoding
from vlbench.data.resources import Resources
from vlbench.models.hf.continuation import IGNORED, LABELS, continued, kept, log_likelihoods
from vlbench.models.hf.folder import folder_of
from vlbench.models.hf.pretrained import Source
from vlbench.models.hf.processor import FAULTS, processing_of
from vlbench.models.hf.prompting import Prompter


class HFGenerative(nn.Module):
    """A network that AutoModelForImageTextToText knows, with its own processor; see `core.backbone.Generator`."""

    def __init__(self, source: Source, resources: Resources) -> None:
        super().__init__()
        self.source = source
        self.prompter = Prompter(source, resources.images)
        self.stops = _stops(source, self.prompter.stop)
        self.network = source.make_writer()
        self.width = int(source.config.get_text_config().hidden_size)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build the one size of the card, untrained.

        Raises:
            VlbenchError: exit 6, no processor in the folder, or one that does not load.
        """
        return cls(Source(folder_of(card), card.name, resources.loading), resources)

    def load_pretrained(self) -> PretrainedWeights:
        """Fill the network with the weights that belong to it; there is no head.

        Raises:
            VlbenchError: exit 6, the weights do not fit.
        """
        self.network, report = self.source.load_writer()
        return PretrainedWeights(report, {})

    def adaptable(self) -> nn.Module:
        """The network."""
        return self.network

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves nothing that the library has put on devices of its choice."""
        loading = self.source.loading
        return self if loading.device_map or loading.quantize else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        """What the model's processor makes of B prompts, with `answers` and their end after them where they are given.

        Raises:
            DataError: a picture cannot be read.
            VlbenchError: the processor cannot take so many pictures, or an answer has no tokens.
        """
        made = self.prompter(prompts)
        if answers is None:
            return made
        return self._continued(made, [self._ended(answer) for answer in answers])

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        """What it writes after each prompt: at most `longest` tokens, always the likeliest."""
        from transformers import GenerationConfig

        network, how = cast(Any, self.network), self.decoding(longest)
        network.generation_config = cast(Any, GenerationConfig)(  # nothing of the sampling that its folder may suggest
            do_sample=how.do_sample,
            num_beams=how.num_beams,
            max_new_tokens=how.max_new_tokens,
            eos_token_id=self.stops,
            pad_token_id=self.prompter.pad,
        )
        with self._asked():
            written = network.generate(**self._cast(prompts))
        return self.prompter.words(written[:, prompts["input_ids"].shape[1] :])

    @property
    def chat_template(self) -> str:
        """The template that renders prompts; empty of a model that was trained without one."""
        return self.prompter.style.template

    def rendered(self, prompt: Prompt) -> str:
        """The text that its processor gets; each image is still one placeholder in it."""
        return self.prompter.style.text(prompt)

    def decoding(self, longest: int) -> Decoding:
        """Greedy: at most `longest` tokens, up to one of those that end an answer."""
        words = self.prompter.tokenizer.convert_ids_to_tokens(self.stops)
        named = zip(self.stops, words, strict=True)  # a folder may name tokens that its tokenizer does not have
        return Decoding(
            max_new_tokens=longest, stop=tuple(f"token {stop}" if word is None else str(word) for stop, word in named)
        )

    def image_processing(self) -> dict[str, str]:
        """The image processor's class, and the library that it resizes with; nothing of a processor without one."""
        processor = getattr(self.prompter.processor, "image_processor", None)
        return {} if processor is None else processing_of(processor)

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate's tokens and its end after the prompt.

        Without the end, a candidate that another begins with ("1", "10") could never be the less likely one.
        """
        batch = len(prompts["input_ids"])
        columns = [
            self._log_likelihoods(self._continued(prompts, [self._ended(candidate)] * batch)).sum(dim=1)
            for candidate in candidates
        ]
        return torch.stack(columns, dim=1)

    def nll(self, answered: Tensors) -> Tensor:
        """The negative log-likelihood [B] per token of each answer and its end."""
        tokens = (answered[LABELS] != IGNORED).sum(dim=1)
        return -self._log_likelihoods(answered).sum(dim=1) / tokens

    def states(self, prompts: Tensors) -> Tensor:
        """The last hidden state of each prompt's last token, [B, D]."""
        filled = self._continued(prompts, [()] * len(prompts["input_ids"]))
        inputs = self._cast({name: value for name, value in filled.items() if name != LABELS})
        network = cast(Any, self.network)
        bare = network.base_model  # without the output layer; some have no such part
        with self._asked():
            found = bare(**inputs, use_cache=False, output_hidden_states=bare is network)
        states: Tensor = found.hidden_states[-1] if bare is network else found.last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        return states[torch.arange(len(last), device=last.device), last]

    def _ended(self, answer: str) -> tuple[int, ...]:
        return (*self.prompter.answer(answer), self.prompter.stop)

    def _log_likelihoods(self, answered: Tensors) -> Tensor:
        """Of the tokens after each prompt [B, ...]; 0 elsewhere."""
        labels = answered[LABELS]
        inputs = self._cast({name: value for name, value in answered.items() if name != LABELS})
        with self._asked():
            logits: Tensor = self.network(**inputs, use_cache=False, logits_to_keep=kept(labels)).logits
        return log_likelihoods(logits, labels)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Pictures of another size than the network's, or prompts with too few places for them, are its folder's."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
                raise
            raise self.source.fault("a processor that does not fit its network", error) from error

    def _continued(self, prompts: Tensors, continuations: Sequence[Sequence[int]]) -> Tensors:
        suffix = self.source.config.model_type == "paligemma"
        return continued(prompts, continuations, self.prompter.pad, suffix)

    def _cast(self, prompts: Tensors) -> Tensors:
        """With pictures in the precision of the network."""
        dtype = cast(torch.dtype, self.network.dtype)
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in prompts.items()}


def _stops(source: Source, stop: int) -> list[int]:
    """Tokens that end what is written: the tokenizer's and those that the folder names."""
    from transformers import GenerationConfig

    if not (source.folder / "generation_config.json").is_file():
        return [stop]
    try:
        named = GenerationConfig.from_pretrained(source.folder).eos_token_id
        return sorted({stop, *map(int, named if isinstance(named, list) else [] if named is None else [named])})
    except FAULTS as error:
        raise source.fault("a generation_config.json that does not load", error) from None
