"""What a model was asked, shown by one example: for the record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from vlbench.core.backbone import Rendering
from vlbench.core.examples import Example, Prompt
from vlbench.core.record import Decoding, Prompting
from vlbench.engine.capabilities import claim
from vlbench.engine.evaluators.learner import Learner
from vlbench.engine.job import Job
from vlbench.heads.generate import LONGEST, GenerateHead

_SENTENCES = 10


def prompting(job: Job, learner: Learner, examples: Sequence[Example[Any]]) -> Prompting | None:
    """The prompt of the first example and how answers are generated; None for texts as they are, and for rankings."""
    if not len(examples):
        return None
    first = examples[0]
    if job.compares:
        sentences = (claim(job.task.card.claims, first.query.text, label) for label in job.labels[:_SENTENCES])
        return Prompting(example=first.id, prompt="\n".join(sentences))
    asking = learner.head if isinstance(learner.head, GenerateHead) else learner.asking
    if asking is None:
        return None
    decoding = Decoding(max_new_tokens=LONGEST) if job.spec.answer_by == "text" else None
    prompt, model = asking.prompt(first.query), learner.backbone
    if not isinstance(model, Rendering):
        return Prompting(example=first.id, prompt=_plain(prompt), decoding=decoding)
    template = model.chat_template
    return Prompting(
        example=first.id,
        prompt=model.rendered(prompt),
        chat_template_sha256=hashlib.sha256(template.encode()).hexdigest() if template else "",
        decoding=model.decoding(LONGEST) if decoding else None,
    )


def _plain(prompt: Prompt) -> str:
    """The text of a prompt, for a model that does not say how it renders one."""
    return "\n".join([*(f"{shot.query.text} {shot.answer}" for shot in prompt.shots), prompt.query.text])
