"""Architectures of transformers without weights: a folder with the files that a profile needs.

`hf:CLIPModel` is an architecture with the library's default configuration, which is the base size of its paper;
`hf:FOLDER` may hold a config.json alone. Missing preprocessing is generated: the library's default image processor, and
a tokenizer with one token per word.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from vlbench.core.errors import ExitCode, VlbenchError, unknown
from vlbench.core.paths import expand_home, visible
from vlbench.models.detector.config import Layout
from vlbench.models.hf.families import FAMILIES
from vlbench.models.hf.folder import PREFIX, read_config

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = 1000
"""The words that `inputs.make_texts` draws from."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_REGION_WIDTH = "visual_embedding_dim"
"""The name that VisualBERT's configuration has for the width of a region's features."""
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WITHOUT_DEFAULT = ("vision-text-dual-encoder",)
"""Model types composed of two other models, which their default configuration does not choose."""


def architecture_names() -> tuple[str, ...]:
    """The architectures that can be built by name."""
    families = (family for model_type, family in FAMILIES.items() if model_type not in _WITHOUT_DEFAULT)
    return tuple(dict.fromkeys(name for family in families for name in (family.model, *family.heads)))


def complete_model(name: str, folder: Path) -> str:
    """Complete a model of transformers that lacks files: the name of a new folder with all a profile needs.

    The name of any other model is returned as it is. folder: where new folders are made, each inside one of its own, so
    that models with one name do not collide.

    Raises:
        VlbenchError: the name is neither a folder nor an architecture nor OWNER/NAME of the hub. Exit 6: transformers
            has no default for that architecture or its preprocessing, or a config.json cannot be read.
    """
    source = name.removeprefix(PREFIX)
    given = expand_home(Path(source))
    if not name.startswith(PREFIX) or not source:
        return name
    if not given.is_dir():
        if "/" in source:
            return name
        known = architecture_names()
        if source not in known:
            raise unknown("architecture", source, known, f"or give {PREFIX}FOLDER or {PREFIX}OWNER/NAME")
        completed = _write_default_config(source, Path(mkdtemp(dir=folder)))
    elif _has_any(given, _TOKENIZERS) or read_config(name).get("model_type") not in FAMILIES:
        return name  # complete, or rejected with a better message when it is built
    else:
        completed = Path(mkdtemp(dir=folder)) / given.resolve().name
        completed.mkdir()
        for file in visible(given, "*.json"):
            shutil.copy(file, completed)
    _add_preprocessing(name, completed, use_image_size=given.is_dir())
    return f"{PREFIX}{completed}"


def _write_default_config(architecture: str, folder: Path) -> Path:
    """A folder with the config.json of an architecture's defaults."""
    import transformers

    path = folder / architecture
    try:
        config = getattr(transformers, architecture).config_class()
    except (ValueError, TypeError) as error:
        raise _no_default(f"{PREFIX}{architecture}", "configuration", error) from None
    config.architectures = [architecture]
    if hasattr(config, _REGION_WIDTH):  # the default is the width of the paper's features; the detector's are wider
        setattr(config, _REGION_WIDTH, Layout().dim)
    config.save_pretrained(path)
    return path


def _add_preprocessing(name: str, folder: Path, use_image_size: bool) -> None:
    """Add the missing preprocessing files; use_image_size: resize images to the size in config.json."""
    config = read_config(f"{PREFIX}{folder}")
    family = FAMILIES[str(config.get("model_type"))]
    _save_tokenizer(folder, min(_config_number(config, "text_config", "vocab_size", _WORDS) - len(_SPECIAL), _WORDS))
    if family.visual != "regions" and not _has_any(folder, _PROCESSORS):
        side = _config_number(config, "vision_config", "image_size", 0) if use_image_size else 0
        _save_image_processor(name, folder, side)


def _config_number(config: Mapping[str, object], part: str, name: str, default: int) -> int:
    """A number in that part of the config, or in the config itself if it has no such part."""
    inner = config.get(part)
    number = (inner if isinstance(inner, Mapping) else config).get(name)
    return number if isinstance(number, int) else default


def _save_tokenizer(folder: Path, words: int) -> None:
    """Save a tokenizer of one token per word, whichever kind the model has: the cost depends on the length only."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: row for row, word in enumerate((*_SPECIAL, *(f"w{number}" for number in range(words))))}
    padding, unknown, first, last = _SPECIAL
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, ids[token]) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    names = {"pad_token": padding, "unk_token": unknown, "cls_token": first, "sep_token": last}
    library = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]
    library.save_pretrained(folder)


def _save_image_processor(name: str, folder: Path, side: int) -> None:
    """Save the library's default image processor for that kind of model; side: of its images, 0 for the default."""
    from transformers import AutoConfig
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    try:
        kinds = IMAGE_PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder))]
    except (KeyError, ValueError) as error:
        raise _no_default(name, "image processor", error) from None
    kind = kinds["pil"] if isinstance(kinds, Mapping) else next(kind for kind in kinds if kind is not None)
    processor = kind()
    square = {"height": side, "width": side}
    if side and "height" in processor.size:
        processor = kind(size=square)
    elif side and getattr(processor, "do_center_crop", None) and processor.crop_size:
        processor = kind(size={"shortest_edge": side}, crop_size=square)
    processor.save_pretrained(folder)


def _has_any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


def _no_default(name: str, what: str, error: Exception) -> VlbenchError:
    fault = f"{name} has no default {what} in transformers ({type(error).__name__})"
    return VlbenchError(f"{fault}: give a folder that save_pretrained wrote", ExitCode.WEIGHTS)
