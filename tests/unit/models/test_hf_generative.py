"""Models that write: what they write and how likely they find answers, against loops that feed one token at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlbench import catalog
from vlbench.core.backbone import Generator, Pretrained
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import ImageRef, Prompt, Query, Shot
from vlbench.data.resources import Loading, Resources
from vlbench.models.hf.pretrained import quantization

MakeVLM = Callable[[str], Any]
BY_HAND, OTHERS = ("llava", "qwen2_vl"), ("paligemma", "idefics3", "internvl")
ANSWERS = ("True", "false", "red", "2")
SIDES = {"wide": (56, 24), "high": (24, 60), "square": (40, 40)}


class Painted:
    """Noise, another for each key, of the size that the key names."""

    def open(self, ref: ImageRef) -> Image.Image:
        wide, high = SIDES[ref.key]
        noise = torch.randint(0, 256, (high, wide, 3), generator=torch.Generator().manual_seed(wide))
        return Image.fromarray(noise.to(torch.uint8).numpy())


def query(text: str, *keys: str) -> Query:
    return Query(tuple(ImageRef(Path(key), key) for key in keys), text)


PROMPTS = (
    Prompt(query("Is it red?", "wide")),
    Prompt(query("One is larger. True or false? Answer:", "high", "square")),
    Prompt(query("How many?", "square"), (Shot(query("What is there?", "high"), "red"), Shot(query("?", "wide"), "2"))),
)


def images_of(prompt: Prompt) -> list[Image.Image]:
    return [Painted().open(ref) for ref in prompt.images]


def spoken(loop: Any, prompt: Prompt) -> str:
    turns = [(len(shot.query.images), shot.query.text, shot.answer) for shot in prompt.shots]
    return str(loop.text([*turns, (len(prompt.query.images), prompt.query.text, "")]))


def load(folder: Path, loading: Loading | None = None, weights: bool = True) -> Any:
    resources = Resources(None, Painted(), loading=loading or Loading())
    model = catalog.load_model(catalog.model_card(f"hf:{folder}"), "hf", resources)
    assert isinstance(model, Generator) and isinstance(model, Pretrained)
    if weights:
        model.load_pretrained()
    return model.eval()


@pytest.fixture(params=BY_HAND)
def pair(request: pytest.FixtureRequest, make_vlm: MakeVLM) -> tuple[Any, Any]:
    """The model and the loop over it."""
    loop = make_vlm(request.param)
    return load(loop.folder), loop


def test_it_writes_what_a_loop_writes(pair: tuple[Any, Any]) -> None:
    model, loop = pair
    with torch.inference_mode():
        written = model.generate(model.prepare_prompts(PROMPTS), 6)
    expected = [loop.written(images_of(prompt), spoken(loop, prompt), 6) for prompt in PROMPTS]
    assert written == expected and len(set(written)) == len(PROMPTS)


def test_likelihoods_are_those_of_a_loop(pair: tuple[Any, Any]) -> None:
    model, loop = pair
    with torch.inference_mode():
        found = model.likelihood(model.prepare_prompts(PROMPTS), ANSWERS)
    for row, prompt in zip(found.tolist(), PROMPTS, strict=True):
        asked = images_of(prompt), spoken(loop, prompt)
        by_hand = [loop.likelihoods(*asked, answer, loop.words.eos_token).sum() for answer in ANSWERS]
        assert row == pytest.approx([float(one) for one in by_hand], abs=1e-4)


def test_what_training_lowers_is_that_of_the_answer_and_its_end(pair: tuple[Any, Any]) -> None:
    model, loop = pair
    with torch.inference_mode():
        found = model.nll(model.prepare_prompts(PROMPTS, ANSWERS[:3]))
    end = loop.words.eos_token
    for value, prompt, answer in zip(found.tolist(), PROMPTS, ANSWERS, strict=False):
        by_hand = loop.likelihoods(images_of(prompt), spoken(loop, prompt), answer, end)
        assert value == pytest.approx(-float(by_hand.mean()), abs=1e-4)


def test_states_are_those_a_prompt_ends_in(pair: tuple[Any, Any]) -> None:
    model, loop = pair
    with torch.inference_mode():
        found = model.states(model.prepare_prompts(PROMPTS))
    assert found.shape == (len(PROMPTS), model.width)
    for row, prompt in zip(found, PROMPTS, strict=True):
        torch.testing.assert_close(row, loop.states(images_of(prompt), spoken(loop, prompt))[-1], atol=1e-4, rtol=1e-4)


def test_states_of_a_network_in_one_part(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = pair
    with torch.inference_mode():
        prompts = model.prepare_prompts(PROMPTS)
        expected = model.states(prompts)
        monkeypatch.setattr(model.network, "base_model_prefix", "nothing")
        torch.testing.assert_close(model.states(prompts), expected)


@pytest.mark.parametrize("model_type", BY_HAND)
def test_half_the_precision_is_the_librarys(make_vlm: MakeVLM, model_type: str) -> None:
    """In memory and in arithmetic: the library's own network in bfloat16, asked alone, finds the same likelihoods."""
    loop = make_vlm(model_type)
    model = load(loop.folder, Loading(dtype="bfloat16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    half = type(loop)(loop.folder)
    half.model = type(half.model).from_pretrained(loop.folder, dtype=torch.bfloat16).eval()
    prompt = PROMPTS[0]
    with torch.inference_mode():
        [found] = model.likelihood(model.prepare_prompts([prompt]), ANSWERS).tolist()
    asked, end = (images_of(prompt), spoken(loop, prompt)), loop.words.eos_token
    exact = [float(loop.likelihoods(*asked, answer, end).sum()) for answer in ANSWERS]
    rounded = [float(half.likelihoods(*asked, answer, end).sum()) for answer in ANSWERS]
    assert found == pytest.approx(rounded, abs=1e-3) and found != pytest.approx(exact, abs=1e-3)


def test_weights_that_come_at_once_are_not_drawn_first(make_vlm: MakeVLM) -> None:
    model = load(make_vlm("llava").folder, Loading(at_once=True), weights=False)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.load_pretrained()
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_what_is_rounded_is_told_to_the_library(bits: str) -> None:
    config: Any = quantization(bits, torch.bfloat16)
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "8bit", bits == "4bit")
    assert bits == "8bit" or config.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization(None, torch.bfloat16) is None


@pytest.mark.parametrize("model_type", (*BY_HAND, *OTHERS))
def test_neighbours_in_a_batch_do_not_count(make_vlm: MakeVLM, model_type: str) -> None:
    model = load(make_vlm(model_type).folder)
    prompts = PROMPTS if model_type != "paligemma" else PROMPTS[:2]  # which takes no shots
    with torch.inference_mode():
        together = model.likelihood(model.prepare_prompts(prompts), ANSWERS)
        written = model.generate(model.prepare_prompts(prompts), 5)
        states = model.states(model.prepare_prompts(prompts))
        for row, prompt in enumerate(prompts):
            alone = model.prepare_prompts([prompt])
            torch.testing.assert_close(model.likelihood(alone, ANSWERS)[0], together[row], atol=2e-5, rtol=0)
            assert model.generate(alone, 5) == [written[row]]
            torch.testing.assert_close(model.states(alone)[0], states[row], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", OTHERS)
def test_likelihoods_are_those_the_library_writes_by(make_vlm: MakeVLM, model_type: str) -> None:
    """Token by token: the logits of the library's own `generate`, with the tokens before as part of the prompt."""
    model = load(make_vlm(model_type).folder)
    for prompt in PROMPTS[:2]:
        inputs = model.prepare_prompts([prompt])
        with torch.inference_mode():
            found = model.likelihood(inputs, ANSWERS)[0]
            answers = [(*model.prompter.answer(answer), model.prompter.stop) for answer in ANSWERS]
            expected = [generated(model.network, inputs, tokens) for tokens in answers]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)


def generated(network: Any, inputs: dict[str, torch.Tensor], tokens: Sequence[int]) -> float:
    """The log-likelihood of tokens, by forbidding `generate` everything else."""
    start = inputs["input_ids"].shape[1]
    made = network.generate(
        **inputs,
        max_new_tokens=len(tokens),
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        prefix_allowed_tokens_fn=lambda _, ids: [tokens[len(ids) - start]],
    )
    rows = torch.stack(made.logits)[:, 0].double().log_softmax(-1)
    return float(rows[range(len(tokens)), list(tokens)].sum())


def test_the_order_of_images_counts(pair: tuple[Any, Any]) -> None:
    model, _ = pair
    asked = [Prompt(query("True?", *keys)) for keys in (("high", "square"), ("square", "high"))]
    with torch.inference_mode():
        one, other = model.likelihood(model.prepare_prompts(asked), ANSWERS)
    assert (one - other).abs().max() > 1e-2


def test_tokens_of_an_answer_are_those_it_has_after_a_prompt(make_vlm: MakeVLM) -> None:
    """` Tr` is one token after a prompt without a space at its end, and the template puts that space there."""
    model, loop = load(make_vlm("llava").folder, weights=False), make_vlm("llava")
    whole, prompt = (loop.words(text)["input_ids"] for text in ("x ASSISTANT: True", "x ASSISTANT:"))
    assert list(model.prompter.answer("True")) == whole[len(prompt) :]
    assert loop.words.convert_ids_to_tokens(whole[len(prompt)]) == "ĠTr"


def test_weights_load_whole_and_only_when_asked(make_vlm: MakeVLM) -> None:
    folder = make_vlm("qwen2_vl").folder
    fresh, loaded = load(folder, weights=False), load(folder, weights=False)
    report = loaded.load_pretrained().report
    assert report.missing == report.unexpected == 0 and report.matched > 50
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    expected = make_vlm("qwen2_vl").model.state_dict()[name]
    assert torch.equal(loaded.network.state_dict()[name], expected)
    assert not torch.equal(fresh.network.state_dict()[name], expected)


@pytest.fixture
def broken(make_vlm: MakeVLM, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(make_vlm("qwen2_vl").folder, tmp_path / "broken"))


def test_without_a_chat_template_it_cannot_be_asked(broken: Path) -> None:
    (broken / "chat_template.jinja").unlink()
    with pytest.raises(VlbenchError, match=r"has no chat template .* copy that of the model") as caught:
        load(broken)
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_without_an_image_processor_it_cannot_see(broken: Path) -> None:
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(VlbenchError, match="processor") as caught:
        load(broken)
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_a_damaged_processor_is_named(broken: Path) -> None:
    (broken / "preprocessor_config.json").write_text("{")
    with pytest.raises(VlbenchError, match="hf:broken has a processor that does not load") as caught:
        load(broken)
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_an_answer_needs_an_end(broken: Path) -> None:
    file = broken / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": None}))
    with pytest.raises(VlbenchError, match="without an eos_token"):
        load(broken)


def test_half_of_the_weights_is_not_enough(broken: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    kept = dict(list(weights.items())[: len(weights) // 2])
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VlbenchError, match="expected at least 99 %") as caught:
        load(broken)
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_an_answer_without_tokens_is_named(pair: tuple[Any, Any]) -> None:
    model, loop = pair
    if loop.llava:
        assert model.prompter.answer("")  # the space that stands before every answer
    else:
        with pytest.raises(VlbenchError, match="no tokens for the answer ''"):
            model.prompter.answer("")


def test_paligemma_takes_no_shots(make_vlm: MakeVLM) -> None:
    model = load(make_vlm("paligemma").folder, weights=False)
    with pytest.raises(VlbenchError, match="no chat template to show 2 shots in: leave out --num-fewshot"):
        model.prepare_prompts(PROMPTS[2:])


def test_what_ends_an_answer_is_what_the_folder_says(pair: tuple[Any, Any], tmp_path: Path) -> None:
    """The first generated token is made an end token; what the folder says of sampling does not count."""
    model, loop = pair
    prompt = PROMPTS[0]
    first = int(loop.logits(images_of(prompt), spoken(loop, prompt))[-1].argmax())
    folder = shutil.copytree(loop.folder, tmp_path / "ending")
    settings = {"eos_token_id": [first, 7], "repetition_penalty": 9.0, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    ending = load(folder)
    with torch.inference_mode():
        prompts = model.prepare_prompts([prompt])
        assert model.generate(prompts, 6) != ending.generate(prompts, 6) == [loop.words.decode([first])]
    assert not ending.network.generation_config.do_sample
