"""Architectures of transformers whose weights are not at hand: a folder with what a profile needs of them.

`hf:CLIPModel` is an architecture as the library configures it by default, which is the base size of its paper;
`hf:FOLDER` may hold a config.json alone. Preprocessing that is missing is made up: the library's default for pictures,
and a tokenizer of one token for every word.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from vlbench.core.errors import ExitCode, VlbenchError, unknown
from vlbench.models.detector.config import Layout
from vlbench.models.hf.families import FAMILIES
from vlbench.models.hf.folder import PREFIX, read_config

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = 1000
"""Those that `inputs.sentences` draws from."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_REGIONS = "visual_embedding_dim"
"""Numbers of a region, as a configuration of VisualBERT has them."""
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


_WITHOUT_DEFAULT = ("vision-text-dual-encoder",)
"""Put together of two other models, which its configuration does not choose."""


def architectures() -> tuple[str, ...]:
    """Those that can be opened by their name."""
    families = (family for model_type, family in FAMILIES.items() if model_type not in _WITHOUT_DEFAULT)
    named = (name for family in families for name in (family.model, *family.heads))
    return tuple(dict.fromkeys(named))


def completed(name: str, folder: Path) -> str:
    """The name of a folder below `folder` that has all a profile needs; any other model's name as it is.

    Args:
        name: as for `--model`.
        folder: where folders may be made, each within one of its own: what is measured together may have one name.

    Raises:
        VlbenchError: a name that is neither a folder nor an architecture nor, with its owner, one of the hub. Exit 6:
            transformers has no default of that architecture, or no preprocessing that goes with it; a config.json that
            cannot be read.
    """
    source = name.removeprefix(PREFIX)
    given = Path(source).expanduser()
    if not name.startswith(PREFIX) or not source:
        return name
    if not given.is_dir():
        if "/" in source:
            return name
        if source not in architectures():
            raise unknown("architecture", source, architectures(), f"or give {PREFIX}FOLDER or {PREFIX}OWNER/NAME")
        made = _default(source, Path(mkdtemp(dir=folder)))
    elif _has(given, _TOKENIZERS) or read_config(name).get("model_type") not in FAMILIES:
        return name  # whole, or refused in better words when it is opened
    else:
        made = Path(mkdtemp(dir=folder)) / given.resolve().name
        made.mkdir()
        for file in given.glob("*.json"):
            shutil.copy(file, made)
    _fill(name, made, fitted=given.is_dir())
    return f"{PREFIX}{made}"


def _default(architecture: str, folder: Path) -> Path:
    """A folder with the config.json of an architecture's defaults."""
    import transformers

    made = folder / architecture
    try:
        config = getattr(transformers, architecture).config_class()
    except (ValueError, TypeError) as error:
        raise _unfit(f"{PREFIX}{architecture}", "configuration", error) from None
    config.architectures = [architecture]
    if hasattr(config, _REGIONS):  # of features of the paper's own, where those of the detector here are wider
        setattr(config, _REGIONS, Layout().dim)
    config.save_pretrained(made)
    return made


def _fill(name: str, folder: Path, fitted: bool) -> None:
    """Put the preprocessing there that the folder lacks; fitted: pictures to the size that its config.json says."""
    config = read_config(f"{PREFIX}{folder}")
    family = FAMILIES[str(config.get("model_type"))]
    _save_tokenizer(folder, min(_number(config, "text_config", "vocab_size", _WORDS) - len(_SPECIAL), _WORDS))
    if family.visual != "regions" and not _has(folder, _PROCESSORS):
        _save_processor(name, folder, _number(config, "vision_config", "image_size", 0) if fitted else 0)


def _number(config: Mapping[str, object], part: str, name: str, default: int) -> int:
    """A number of the config's part, or of the config where it has none."""
    inner = config.get(part)
    found = (inner if isinstance(inner, Mapping) else config).get(name)
    return found if isinstance(found, int) else default


def _save_tokenizer(folder: Path, words: int) -> None:
    """Whatever the model's own is: as many tokens cost as much."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {word: row for row, word in enumerate((*_SPECIAL, *(f"w{number}" for number in range(words))))}
    padding, unknown, first, last = _SPECIAL
    tokenizer: Any = Tokenizer(models.WordLevel(known, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, known[token]) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    library: Any = PreTrainedTokenizerFast
    names = {"pad_token": padding, "unk_token": unknown, "cls_token": first, "sep_token": last}
    library(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def _save_processor(name: str, folder: Path, side: int) -> None:
    """The library's image processor for that kind of model, as it is by default; side: of its pictures, 0 for any."""
    from transformers import AutoConfig
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    known: Any = IMAGE_PROCESSOR_MAPPING
    try:
        kinds = known[type(AutoConfig.from_pretrained(folder))]
    except (KeyError, ValueError) as error:
        raise _unfit(name, "image processor", error) from None
    kind = kinds["pil"] if isinstance(kinds, Mapping) else next(one for one in kinds if one is not None)
    processor = kind()
    square = {"height": side, "width": side}
    if side and "height" in processor.size:
        processor = kind(size=square)
    elif side and getattr(processor, "do_center_crop", None) and processor.crop_size:
        processor = kind(size={"shortest_edge": side}, crop_size=square)
    processor.save_pretrained(folder)


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


def _unfit(name: str, what: str, error: Exception) -> VlbenchError:
    return VlbenchError(
        f"{name} has no default {what} in transformers ({type(error).__name__}): give a folder that save_pretrained "
        f"wrote",
        ExitCode.WEIGHTS,
    )
