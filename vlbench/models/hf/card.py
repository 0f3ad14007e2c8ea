"""Build a model card from a config.json, without loading weights."""

from __future__ import annotations

from collections.abc import Mapping

from vlbench.core.cards import HeadLayout, ModelCard, Recipe, SizeCard
from vlbench.models.hf.families import FAMILIES, GENERATIVE, Family, family_of
from vlbench.models.hf.folder import SIZE, SOURCE, read_config, short_name
from vlbench.models.hf.hub_code import code_in

_CLASSES: Mapping[str, str] = {
    "fusion": "vlbench.models.hf.fusion:HFFusion",
    "dual": "vlbench.models.hf.dual:HFDual",
    "generative": "vlbench.models.hf.generative:HFGenerative",
}
_RECIPE = Recipe(
    optimizer="adamw",
    lr=3e-5,
    head_lr=3e-4,
    betas=(0.9, 0.98),
    weight_decay=0.01,
    warmup=0.1,
    clip=1.0,
    epochs=5,
    batch_size=64,
    evaluations=5,
    batches="shuffled",
    augment="none",
)
"""Middle values of the papers' fine-tuning recipes; --set gives a model's own."""
_DUAL = Recipe(lr=1e-5, head_lr=1e-4)
"""Smaller steps, for towers trained on hundreds of millions of pairs."""
_GENERATIVE = Recipe(
    lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, warmup=0.03, epochs=1, batch_size=32, accumulation=8, evaluations=1
)
"""Liu et al. 2023 (LLaVA-1.5), with a quarter of its batch."""

_RECIPES: Mapping[str, Recipe] = {"fusion": Recipe(), "dual": _DUAL, "generative": _GENERATIVE}


def hf_card(name: str) -> ModelCard:
    """The card of `hf:FOLDER` or `hf:ID[@REVISION]`.

    Raises VlbenchError: there is no such model, or its family is unsupported.
    """
    card = card_of(short_name(name), read_config(name))
    size = card.sizes[SIZE]
    return card.model_copy(update={"sizes": {SIZE: size.model_copy(update={"config": {SOURCE: name}})}})


def card_of(name: str, config: Mapping[str, object]) -> ModelCard:
    """The card of a model with that config.json. Raises VlbenchError: its family is unsupported."""
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    own_code = config.get("auto_map")
    known_as = own_code if isinstance(own_code, Mapping) else ()
    family = family_of(str(config.get("model_type", "")), architecture, name, known_as)
    head = family.heads.get(architecture)
    return ModelCard(
        name=name,
        title=family.title,
        description=f"{architecture or family.title} from transformers, with its own preprocessing.",
        backbone=_CLASSES[family.kind],
        visual=family.visual,
        outputs=("generate",) if family.kind == "generative" else ("classify", "pair", "rank"),
        ranks_by="dual" if family.kind == "dual" else "cross",
        embeds=family.kind == "dual" or family.embeds,
        pretrained=True,
        own_code=f"{found} in its config.json" if (found := code_in(config)) else "",
        brings=("rank",) if family.kind == "dual" else (head.output,) if head else (),
        sizes={SIZE: SizeCard(config={}, vocabulary="its own", max_text=_longest_text(config, family))},
        head=head.layout if head else HeadLayout(),
        recipes={"default": _RECIPE.merged(_RECIPES[family.kind])},
        paper="",
        licence="",
    )


def known_cards() -> list[ModelCard]:
    """A card for each family without a head and with each of its trained heads, named by architecture."""
    cards = [
        card_of(architecture, {"model_type": model_type, "architectures": [architecture]})
        for model_type, family in FAMILIES.items()
        for architecture in dict.fromkeys((family.model, *family.heads))
    ]
    return [*cards, *(card_of(model_type, {"model_type": model_type}) for model_type in GENERATIVE)]


def _longest_text(config: Mapping[str, object], family: Family) -> int:
    """The number of tokens that the network has positions for."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        positions = part.get("max_position_embeddings")
        if isinstance(positions, int):
            return positions - family.unused
    return family.positions - family.unused
