"""How a generative model is spoken to: in the turns of its chat template, or as it was trained without one."""

from __future__ import annotations

from typing import Any, Protocol

from jinja2 import TemplateError

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Prompt, Query
from vlbench.models.hf.pretrained import Source


class Style(Protocol):
    """before: how every prompt ends. lead: what stands between that and an answer. template: empty where none is."""

    before: str
    lead: str
    template: str

    def text(self, prompt: Prompt) -> str:
        """The prompt in the model's words, up to where its answer begins."""
        ...


class Chat:
    """A chat template: each question is a turn of the user with its pictures first, each answer one of the model.

    Raises:
        VlbenchError: exit 6, the template is faulty, or has no place for pictures beside the text.
    """

    def __init__(self, processor: Any, template: Any, source: Source) -> None:
        self._processor, self._template, self._source = processor, template, source
        self.template = str(template)
        question = _asked(Query((), "?"))
        self.before = self._rendered([question], ask=True)
        if str(question["content"]) in self.before:
            raise self._fault(TypeError("it takes the text of a turn only, not its parts"))
        whole = self._rendered([question, _answered("yes")], ask=False)
        # Some templates put more than the prompt before an answer that is already there, such as empty thoughts.
        self.lead = whole.removeprefix(self.before).partition("yes")[0] if whole.startswith(self.before) else ""

    def text(self, prompt: Prompt) -> str:
        """All turns, then the beginning of the model's."""
        shots = [turn for shot in prompt.shots for turn in (_asked(shot.query), _answered(shot.answer))]
        return self._rendered([*shots, _asked(prompt.query)], ask=True)

    def _rendered(self, turns: list[dict[str, object]], ask: bool) -> str:
        try:
            made = self._processor.apply_chat_template(turns, chat_template=self._template, add_generation_prompt=ask)
        except (TemplateError, ValueError, TypeError, LookupError) as error:
            raise self._fault(error) from None
        return str(made)

    def _fault(self, error: Exception) -> VlbenchError:
        return self._source.fault("a chat template that cannot be filled in with pictures and texts", error)


class PaliGemma:
    """Pictures, then the task in one line, then the answer. Source: Beyer et al. 2024, section 3.2."""

    before, lead, template = "\n", "", ""  # its processor ends the line

    def __init__(self, name: str) -> None:
        self._name = name

    def text(self, prompt: Prompt) -> str:
        """As its processor takes it.

        Raises:
            VlbenchError: shots, which it has no turns for.
        """
        if prompt.shots:
            raise VlbenchError(
                f"{self._name} has no chat template to show {len(prompt.shots)} shots in: leave out --num-fewshot"
            )
        return "<image>" * len(prompt.query.images) + prompt.query.text


def style_of(processor: Any, source: Source) -> Style:
    """How to speak to the model.

    Raises:
        VlbenchError: exit 6, it has no chat template and is none that is known to do without, or a faulty one.
    """
    template = processor.chat_template or processor.tokenizer.chat_template
    if template is not None:
        return Chat(processor, template, source)
    if source.config.model_type == "paligemma":
        return PaliGemma(source.name)
    raise VlbenchError(
        f"{source.name} has no chat template (chat_template.jinja), which says how it is asked: put that of the model "
        f"it was made from into the folder",
        ExitCode.WEIGHTS,
    )


def _asked(query: Query) -> dict[str, object]:
    pictures: list[dict[str, str]] = [{"type": "image"} for _ in query.images]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": query.text}]}


def _answered(answer: str) -> dict[str, object]:
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}
