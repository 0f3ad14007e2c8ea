"""Models of transformers as small as they get, with random weights, saved to folders as the library saves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.utils import logging

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST = 40
REGION_NUMBERS = 64
"""Of FlatExtractor."""
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
LOUD = {"initializer_range": 0.2}
"""So that different inputs get scores that differ by far more than rounding."""


def save(folder: Path, architecture: str, words: Sequence[str], answers: Sequence[str] = (), **changes: Any) -> Path:
    """Save a random model of that architecture with its tokenizer and its image processor; returns the folder.

    answers: what the rows of its head stand for. changes: of its config.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    make, processor = MODELS[architecture]
    config = make(save_tokenizer(folder, words))
    if answers:
        config.id2label = dict(enumerate(answers))
        config.label2id = {answer: row for row, answer in enumerate(answers)}
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = getattr(hf, architecture)(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "position_embeddings", "cls_token")) and parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.2)  # the library begins with zeros, which would hide mistakes
    model.save_pretrained(folder)
    if processor is not None:
        processor().save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, words: Sequence[str]) -> int:
    """A BERT tokenizer over those words; returns how many tokens it has."""
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys((*SPECIAL, *words)))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, mask_token="[MASK]", **names
    ).save_pretrained(folder)
    return len(vocabulary)


def _vilt(vocab: int) -> Any:
    return hf.ViltConfig(vocab_size=vocab, image_size=64, patch_size=16, num_images=2, **TOWER, **LOUD)


def _lxmert(vocab: int) -> Any:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "visual_feat_dim": REGION_NUMBERS}
    return hf.LxmertConfig(vocab_size=vocab, l_layers=2, r_layers=1, x_layers=2, num_qa_labels=3, **sizes, **LOUD)


def _visual_bert(vocab: int) -> Any:
    return hf.VisualBertConfig(vocab_size=vocab, visual_embedding_dim=REGION_NUMBERS, **TOWER, **LOUD)


def _flava(vocab: int) -> Any:
    return hf.FlavaConfig(
        text_config={"vocab_size": vocab, **TOWER, **LOUD},
        image_config={"image_size": 32, "patch_size": 8, **TOWER, **LOUD},
        multimodal_config={**TOWER, **LOUD},
        image_codebook_config={"hidden_size": 16, "num_groups": 1},
        hidden_size=32,
        projection_dim=16,
    )


def _bridgetower(vocab: int) -> Any:
    return hf.BridgeTowerConfig(
        hidden_size=64,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=64,
        initializer_factor=4,
        text_config={
            "vocab_size": vocab,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "pad_token_id": 0,
            "initializer_factor": 4,
        },
        vision_config={"hidden_size": 64, "num_hidden_layers": 3, "patch_size": 16, "image_size": 64},
    )


def _blip(vocab: int) -> Any:
    ids = {"bos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0, "eos_token_id": 3}
    return hf.BlipConfig(
        text_config={"vocab_size": vocab, "encoder_hidden_size": 32, "projection_dim": 16, **TOWER, **LOUD, **ids},
        vision_config={"image_size": 32, "patch_size": 8, "projection_dim": 16, **TOWER, **LOUD},
        image_text_hidden_size=16,
        projection_dim=16,
    )


def _towers(config: Any, vocab: int, text: dict[str, Any] | None = None, **more: Any) -> Any:
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    return config(
        text_config={"vocab_size": vocab, "max_position_embeddings": LONGEST, **TOWER, **LOUD, **ids, **(text or {})},
        vision_config={"image_size": 32, "patch_size": 8, **TOWER, **LOUD},
        **more,
    )


def _siglip2(vocab: int) -> Any:
    config = _towers(hf.Siglip2Config, vocab, {"projection_size": 32})
    config.vision_config.num_patches = 16
    return config


def _align(vocab: int) -> Any:
    return hf.AlignConfig(
        text_config={"vocab_size": vocab, **TOWER, **LOUD},
        vision_config={
            "image_size": 32,
            "initializer_range": 1.0,
            "hidden_dim": 16,
            "depth_coefficient": 0.1,
            "width_coefficient": 1.0,
            "in_channels": [32, 16],
            "out_channels": [16, 16],
            "kernel_sizes": [3, 3],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 2],
            "depthwise_padding": [],
        },
        projection_dim=16,
    )


def _vision_text(vocab: int) -> Any:
    return hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf.ViTConfig(image_size=32, patch_size=8, **TOWER, **LOUD),
        hf.BertConfig(vocab_size=vocab, **TOWER, **LOUD),
        projection_dim=16,
    )


def _patches() -> Any:
    return hf.ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16)


def _square(name: str) -> Callable[[], Any]:
    return lambda: getattr(hf, name)(size={"height": 32, "width": 32})


def _cropped(name: str) -> Callable[[], Any]:
    return lambda: getattr(hf, name)(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


MODELS: dict[str, tuple[Callable[[int], Any], Callable[[], Any] | None]] = {
    **dict.fromkeys(
        (
            "ViltModel",
            "ViltForQuestionAnswering",
            "ViltForImagesAndTextClassification",
            "ViltForImageAndTextRetrieval",
        ),
        (_vilt, _patches),
    ),
    **dict.fromkeys(("LxmertModel", "LxmertForQuestionAnswering"), (_lxmert, None)),
    "VisualBertModel": (_visual_bert, None),
    "FlavaModel": (_flava, lambda: hf.FlavaImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)),
    "BridgeTowerForImageAndTextRetrieval": (
        _bridgetower,
        lambda: hf.BridgeTowerImageProcessor(size={"shortest_edge": 64}, crop_size={"shortest_edge": 64}),
    ),
    "BlipForImageTextRetrieval": (_blip, _square("BlipImageProcessor")),
    "CLIPModel": (lambda vocab: _towers(hf.CLIPConfig, vocab, projection_dim=16), _cropped("CLIPImageProcessor")),
    "SiglipModel": (
        lambda vocab: _towers(hf.SiglipConfig, vocab, {"projection_size": 32}),
        _square("SiglipImageProcessor"),
    ),
    "Siglip2Model": (_siglip2, lambda: hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)),
    "AlignModel": (_align, _square("EfficientNetImageProcessor")),
    "AltCLIPModel": (
        lambda vocab: _towers(hf.AltCLIPConfig, vocab, {"project_dim": 24}, projection_dim=16),
        _cropped("CLIPImageProcessor"),
    ),
    "ChineseCLIPModel": (
        lambda vocab: _towers(hf.ChineseCLIPConfig, vocab, projection_dim=16),
        _cropped("ChineseCLIPImageProcessor"),
    ),
    "VisionTextDualEncoderModel": (_vision_text, _square("ViTImageProcessor")),
}
"""Architecture -> what makes its config from the number of tokens, and its image processor."""
