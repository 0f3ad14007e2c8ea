"""The prompt formats of generative models: a chat template, or the format of a model trained without one."""

from __future__ import annotations

from typing import Protocol

from jinja2 import TemplateError

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Prompt, Query
from vlbench.models.hf.library import Processor
from vlbench.models.hf.pretrained import PretrainedFolder


class Style(Protocol):
    """A prompt format.

    before: the end of every prompt. lead: the text between that and an answer. template: the chat template, or empty.
    """

    before: str
    lead: str
    template: str

    def text(self, prompt: Prompt) -> str:
        """Render the prompt up to the beginning of the model's answer."""
        ...


class Chat:
    """A chat template: each question is a user turn with its images first, each answer a model turn.

    Raises VlbenchError: exit 6, the template is faulty, or has no place for images.
    """

    def __init__(self, processor: Processor, template: object, source: PretrainedFolder) -> None:
        self._processor, self._template, self._source = processor, template, source
        self.template = str(template)
        question = _asked(Query((), "?"))
        self.before = self._render([question], ask=True)
        if str(question["content"]) in self.before:
            raise self._fault(TypeError("it takes the text of a turn only, not its parts"))
        whole = self._render([question, _answered("yes")], ask=False)
        # Some templates put more before a given answer than after a prompt, such as an empty reasoning block.
        self.lead = whole.removeprefix(self.before).partition("yes")[0] if whole.startswith(self.before) else ""

    def text(self, prompt: Prompt) -> str:
        """Render all turns, then the beginning of the model's turn."""
        shots = [turn for shot in prompt.shots for turn in (_asked(shot.query), _answered(shot.answer))]
        return self._render([*shots, _asked(prompt.query)], ask=True)

    def _render(self, turns: list[dict[str, object]], ask: bool) -> str:
        try:
            rendered = self._processor.apply_chat_template(
                turns, chat_template=self._template, add_generation_prompt=ask
            )
        except (TemplateError, ValueError, TypeError, LookupError) as error:
            raise self._fault(error) from None
        return str(rendered)

    def _fault(self, error: Exception) -> VlbenchError:
        return self._source.fault("a chat template that cannot be filled in with images and texts", error)


class PaliGemma:
    """Images, then the task in one line, then the answer. Source: Beyer et al. 2024, section 3.2."""

    before, lead, template = "\n", "", ""  # its processor adds the line break

    def __init__(self, name: str) -> None:
        self._name = name

    def text(self, prompt: Prompt) -> str:
        """Render the prompt for the processor.

        Raises VlbenchError: the prompt has shots, which need a chat template.
        """
        if prompt.shots:
            raise VlbenchError(
                f"{self._name} has no chat template to show {len(prompt.shots)} shots in: leave out --num-fewshot"
            )
        return "<image>" * len(prompt.query.images) + prompt.query.text


def style_of(processor: Processor, source: PretrainedFolder) -> Style:
    """Return the model's prompt format.

    Raises VlbenchError: exit 6, it has no chat template and is not known to work without, or a faulty one.
    """
    template = processor.chat_template or processor.tokenizer.chat_template
    if template is not None:
        return Chat(processor, template, source)
    if source.config.model_type == "paligemma":
        return PaliGemma(source.name)
    raise VlbenchError(
        f"{source.name} has no chat template (chat_template.jinja), which formats its prompts: copy that of the "
        f"model it is based on into the folder",
        ExitCode.WEIGHTS,
    )


def _asked(query: Query) -> dict[str, object]:
    images: list[dict[str, str]] = [{"type": "image"} for _ in query.images]
    return {"role": "user", "content": [*images, {"type": "text", "text": query.text}]}


def _answered(answer: str) -> dict[str, object]:
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}
