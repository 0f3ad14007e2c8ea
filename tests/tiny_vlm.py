"""Models that write, as small as they get, with random weights, saved to folders as they lie on the hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL.Image import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

PIXELS = 32
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LOUD = {"initializer_range": 0.3}
"""So that different prompts get likelihoods that differ by far more than rounding."""
LLAVA_CHAT = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""As in llava-1.5: what is asked to go on ends without the space that stands before an answer."""
IDEFICS_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save(folder: Path, model_type: str) -> Path:
    """Save a random model of that type with its tokenizer, image processor and chat template; returns the folder."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    MAKERS[model_type](folder)
    return folder


def _tokenizer(folder: Path, special: tuple[str, ...], **names: str) -> Any:
    """A byte-level BPE tokenizer without merges but those of two words: a token per letter."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*special, *alphabet, "ĠT", "ĠTr", "re", "red"))}
    merges = [("Ġ", "T"), ("ĠT", "r"), ("r", "e"), ("re", "d")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=list(special), **names)
    made.save_pretrained(folder)
    return made


def _llava(folder: Path) -> None:
    tokenizer = _tokenizer(folder, ("<pad>", "<s>", "</s>", "<image>"), eos_token="</s>", pad_token="<pad>")
    vision = {**TEXT, "image_size": PIXELS, "patch_size": 8, "num_hidden_layers": 3}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, **LOUD),
        text_config=hf.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **TEXT, **LOUD),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        **LOUD,
    )
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": PIXELS, "width": PIXELS}
    images = hf.CLIPImageProcessor(size={"shortest_edge": PIXELS}, crop_size=side)
    hf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    ).save_pretrained(folder)


def _qwen2_vl(folder: Path) -> None:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    tokenizer = _tokenizer(folder, (*special, "<|video_pad|>"), eos_token="<|im_end|>", pad_token="<|endoftext|>")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    starts = {
        f"vision_{end}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = hf.Qwen2VLConfig(
        text_config={**TEXT, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "rope_parameters": rope, **LOUD},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4},
        tie_word_embeddings=True,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        **starts,
    )
    hf.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    # Its processor cannot be made without torchvision; these are the files that it is read from.
    size = {"shortest_edge": 16 * 16, "longest_edge": PIXELS * PIXELS}
    hf.Qwen2VLImageProcessor(patch_size=4, size=size).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(QWEN_CHAT, encoding="utf8")


def _paligemma(folder: Path) -> None:
    tokenizer = _tokenizer(
        folder, ("<pad>", "<eos>", "<bos>", "<image>"), eos_token="<eos>", bos_token="<bos>", pad_token="<pad>"
    )
    text = {**TEXT, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": len(tokenizer), "pad_token_id": 0}
    config = hf.PaliGemmaConfig(
        vision_config={**TEXT, "model_type": "siglip_vision_model", "image_size": PIXELS, "patch_size": 8, **LOUD},
        text_config={"model_type": "gemma", **text, **LOUD},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        **LOUD,
    )
    hf.PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    images = hf.SiglipImageProcessor(size={"height": PIXELS, "width": PIXELS})
    images.image_seq_length = (PIXELS // 8) ** 2
    hf.PaliGemmaProcessor(images, tokenizer).save_pretrained(folder)


def _idefics3(folder: Path) -> None:
    special = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>")
    rows = tuple(f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3))
    tokenizer = _tokenizer(folder, (*special, *rows), eos_token="<end_of_utterance>", pad_token="<|im_start|>")
    vision = {**TEXT, "image_size": PIXELS, "patch_size": 8}
    config = hf.Idefics3Config(
        vision_config={**vision, **LOUD},
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(tokenizer), **LOUD},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        **LOUD,
    )
    hf.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    images = hf.Idefics3ImageProcessor(
        size={"longest_edge": 2 * PIXELS}, max_image_size={"longest_edge": PIXELS}, do_image_splitting=False
    )
    hf.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=IDEFICS_CHAT).save_pretrained(folder)


def _internvl(folder: Path) -> None:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    tokenizer = _tokenizer(folder, special, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    vision = {**TEXT, "image_size": [PIXELS, PIXELS], "patch_size": [8, 8]}
    config = hf.InternVLConfig(
        vision_config={**vision, **LOUD},
        text_config={"model_type": "qwen2", **TEXT, "num_key_value_heads": 2, "vocab_size": len(tokenizer), **LOUD},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        **LOUD,
    )
    hf.InternVLForConditionalGeneration(config).save_pretrained(folder)
    tokens = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf8"))
    settings["extra_special_tokens"] = {**tokens, "video_token": "<video>"}
    file.write_text(json.dumps(settings), encoding="utf8")
    hf.GotOcr2ImageProcessor(size={"height": PIXELS, "width": PIXELS}, crop_to_patches=False).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(QWEN_CHAT.replace("<|image_pad|>", "<IMG_CONTEXT>"), encoding="utf8")
    (folder / "processor_config.json").write_text('{"image_seq_length": 4, "processor_class": "InternVLProcessor"}')


MAKERS: dict[str, Callable[[Path], None]] = {
    "llava": _llava,
    "qwen2_vl": _qwen2_vl,
    "paligemma": _paligemma,
    "idefics3": _idefics3,
    "internvl": _internvl,
}


class Loop:
    """A LLaVA or Qwen2-VL, asked one prompt at a time by hand: no padding, no cache, no generate of the library's."""

    def __init__(self, folder: Path) -> None:
        self.folder, config = folder, hf.AutoConfig.from_pretrained(folder)
        self.model = getattr(hf, config.architectures[0]).from_pretrained(folder).eval()
        self.eyes, self.words = (kind.from_pretrained(folder) for kind in (hf.AutoImageProcessor, hf.AutoTokenizer))
        self.llava = config.model_type == "llava"
        self.lead = " " if self.llava else ""

    def text(self, turns: Sequence[tuple[int, str, str]]) -> str:
        """Turns of a number of pictures, a question and its answer, which the last one lacks."""
        said = []
        for images, question, answer in turns:
            if self.llava:
                said.append(f"USER: {'<image>' * images}{question} ASSISTANT:".replace("<image>", "<image>\n"))
                said.append(f" {answer} " if answer else "")
            else:
                pictures = "<|vision_start|><|image_pad|><|vision_end|>" * images
                said.append(f"<|im_start|>user\n{pictures}{question}<|im_end|>\n<|im_start|>assistant\n")
                said.append(f"{answer}<|im_end|>\n" if answer else "")
        return "".join(said)

    def logits(self, pictures: Sequence[Image], text: str, after: Sequence[int] = ()) -> Tensor:
        """A row per token of the text and of those after it."""
        return self._run(pictures, text, after).logits[0]

    def states(self, pictures: Sequence[Image], text: str) -> Tensor:
        """The last hidden state of each token of the text, a row each."""
        return self._run(pictures, text, ()).hidden_states[-1][0]

    @torch.no_grad()
    def _run(self, pictures: Sequence[Image], text: str, after: Sequence[int]) -> Any:
        seen = self.eyes(images=list(pictures), return_tensors="pt")
        sizes = [16] * len(pictures) if self.llava else [int(grid.prod()) // 4 for grid in seen["image_grid_thw"]]
        mark = "<image>" if self.llava else "<|image_pad|>"
        for size in sizes:
            text = text.replace(mark, "\0" * size, 1)
        ids = torch.tensor([[*self._tokens(text.replace("\0", mark)), *after]])
        more = {} if self.llava else {"mm_token_type_ids": (ids == self.words.convert_tokens_to_ids(mark)).long()}
        return self.model(input_ids=ids, **seen, **more, output_hidden_states=True)

    def likelihoods(self, pictures: Sequence[Image], text: str, answer: str, end: str = "") -> Tensor:
        """The log-likelihood of each of the answer's tokens, and of its end's."""
        tokens = [*self._tokens(self.lead + answer), *self._tokens(end)]
        rows = self.logits(pictures, text, tokens).double().log_softmax(-1)[-len(tokens) - 1 : -1]
        return rows[range(len(tokens)), tokens]

    def written(self, pictures: Sequence[Image], text: str, longest: int) -> str:
        """Always the likeliest token, until the end of the answer or `longest` of them."""
        ids: list[int] = []
        while len(ids) < longest and self.words.eos_token_id not in ids:
            ids.append(int(self.logits(pictures, text, ids)[-1].argmax()))
        return str(self.words.decode([token for token in ids if token not in self.words.all_special_ids]))

    def _tokens(self, text: str) -> list[int]:
        return list(self.words(text, add_special_tokens=False)["input_ids"])
