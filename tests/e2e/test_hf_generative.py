"""Models that write, from the command line: what they answer is what a loop over one prompt at a time answers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from vlbench.core.examples import Example
from vlbench.data.images.load import open_image
from vlbench.engine.source import load_task

Run = Callable[..., dict[str, Any]]
ASKED = {
    "vqa2": "Question: {} Answer with one word or a short phrase. Short answer:",
    "gqa": "Question: {} Answer with one word or a short phrase. Short answer:",
    "nlvr2": "The first picture is the left one, the second the right one. {} True or False? Answer:",
    "snli_ve": (
        "Does the picture entail this sentence, contradict it, or neither (neutral)? {} Answer with entailment, "
        "neutral or contradiction:"
    ),
}
LISTS = {
    "vqa2": ("yes", "no", "2", "red"),
    "gqa": ("yes", "no", "left", "blue"),
    "nlvr2": ("False", "True"),
    "snli_ve": ("contradiction", "neutral", "entailment"),
}
OPEN = {"vqa2", "gqa"}
LONGEST = 20


@pytest.fixture
def run(vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path) -> Run:
    """`vlbench run` on the tiny world, which must succeed: its record, its folder and the rows of its samples."""

    def run(task: str, model: Path, *more: object) -> dict[str, Any]:
        place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", "--quiet", "--controls", "none")
        done = vlbench("run", "--task", task, "--model", f"hf:{model}", *place, *more)
        assert done.code == 0, done.err
        rows = pd.read_parquet(done.run / "samples.parquet")
        return json.loads((done.run / "run.json").read_text()) | {"folder": done.run, "rows": rows}

    return run


def examples(task: str, root: Path, record: dict[str, Any]) -> list[Example[Any]]:
    """Those that were reported, in the order of the samples."""
    every = {example.id: example for example in load_task(task, root).load(record["task"]["split"])}
    return [every[id_] for id_ in record["rows"]["example_id"]]


def asked(loop: Any, task: str, example: Example[Any], shots: Sequence[tuple[Example[Any], str]] = ()) -> Any:
    """Its pictures, after those of the shots, and what is said to the model."""
    told = [(shot.query, answer) for shot, answer in shots] + [(example.query, "")]
    pictures = [open_image(ref.path) for query, _ in told for ref in query.images]
    turns = [(len(query.images), ASKED[task].format(query.text), answer) for query, answer in told]
    return pictures, loop.text(turns)


@pytest.mark.parametrize("task", list(ASKED))
@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_it_writes_what_a_loop_writes(
    make_vlm: Callable[[str], Any], run: Run, tiny_world: Path, model_type: str, task: str
) -> None:
    loop = make_vlm(model_type)
    record = run(task, loop.folder, "--mode", "zero-shot", "--answer-by", "text", "--limit", 6)
    written = [loop.written(*asked(loop, task, one), LONGEST) for one in examples(task, tiny_world, record)]
    assert list(record["rows"]["written"]) == written and len(set(written)) > 1
    unparsed = record["rows"]["status"] == "unparsed"
    if task in OPEN:
        found = [line.strip() for text in written for line in text.splitlines() if line.strip()]
        assert all(any(answer in line.lower() for line in found) for answer in record["rows"]["prediction"])
    else:
        named = [[label for label in LISTS[task] if label.lower() in text.lower().split()] for text in written]
        assert list(unparsed) == [len(labels) != 1 for labels in named] and unparsed.any()
        assert record["results"][0]["value"] <= 100 * (1 - unparsed.mean())
    assert (record["coverage"]["unparsed"], record["coverage"]["scored"]) == (unparsed.sum(), 6)
    assert record["model"]["extraction"] and record["spec"]["answer_by"] == "text"
    first = examples(task, tiny_world, record)[0]
    template = (loop.folder / "chat_template.jinja").read_bytes()
    named = json.loads((loop.folder / "generation_config.json").read_text()).get("eos_token_id", [])
    ends = {loop.words.eos_token_id, *(named if isinstance(named, list) else [named])}
    stops = [loop.words.eos_token if end == loop.words.eos_token_id else f"token {end}" for end in sorted(ends)]
    assert record["model"]["prompting"] == {
        "example": first.id,
        "prompt": loop.text([(len(first.query.images), ASKED[task].format(first.query.text), "")]),
        "chat_template_sha256": hashlib.sha256(template).hexdigest(),
        "decoding": {
            "max_new_tokens": LONGEST,
            "do_sample": False,
            "temperature": None,
            "num_beams": 1,
            "stop": stops,
        },
    }
    made = {name: record["model"]["preprocessing"][name] for name in ("image_processor", "image_backend")}
    assert made == {"image_processor": type(loop.eyes).__name__, "image_backend": loop.eyes.backend}


@pytest.mark.parametrize("task", list(ASKED))
@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_the_likeliest_candidate_is_a_loops(
    make_vlm: Callable[[str], Any], run: Run, tiny_world: Path, tmp_path: Path, model_type: str, task: str
) -> None:
    loop, candidates = make_vlm(model_type), LISTS[task]
    (tmp_path / "answers.json").write_text(json.dumps(candidates))
    listed = ("--answers", tmp_path / "answers.json", "--answer-by", "candidates") if task in OPEN else ()
    record = run(task, loop.folder, "--mode", "zero-shot", *listed, "--limit", 10)
    rows = record["rows"]
    for example, labels, scores in zip(
        examples(task, tiny_world, record), rows["labels"], rows["label_scores"], strict=True
    ):
        prompt = asked(loop, task, example)
        likelihoods = torch.stack([loop.likelihoods(*prompt, one, loop.words.eos_token).sum() for one in candidates])
        expected = dict(zip(candidates, likelihoods.log_softmax(dim=0).tolist(), strict=True))
        assert list(labels) == sorted(candidates, key=lambda one: -expected[one])
        assert np.log(scores).tolist() == pytest.approx([expected[label] for label in labels], abs=1e-3)
    assert record["coverage"]["unparsed"] == 0 and record["spec"]["answer_by"] == "candidates"
    told, first = record["model"]["prompting"], examples(task, tiny_world, record)[0]
    assert told["prompt"] == asked(loop, task, first)[1] and told["decoding"] is None


@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_shots_come_before_the_question(
    make_vlm: Callable[[str], Any], run: Run, tiny_world: Path, model_type: str
) -> None:
    loop = make_vlm(model_type)
    record = run("nlvr2", loop.folder, "--mode", "zero-shot", "--num-fewshot", 2, "--answer-by", "text", "--limit", 3)
    assert record["spec"]["num_fewshot"] == 2 and record["spec"]["train_split"] == "train"
    train = {example.id: example for example in load_task("nlvr2", tiny_world).load("train")}
    shots = [(train[id_], train[id_].reference.value) for id_ in record["task"]["shots"]]
    assert len(shots) == 2
    written = [
        loop.written(*asked(loop, "nlvr2", one, shots), LONGEST) for one in examples("nlvr2", tiny_world, record)
    ]
    assert list(record["rows"]["written"]) == written
    first = examples("nlvr2", tiny_world, record)[0]
    assert record["model"]["prompting"]["prompt"] == asked(loop, "nlvr2", first, shots)[1]


@pytest.fixture
def sixteen(tiny_world: Path, tmp_path: Path) -> Path:
    """Sixteen of the world's questions with ten equal answers each; as `val` the same ones under other ids."""
    root, rows = tmp_path / "sixteen" / "vqa2", slice(0, 80, 5)
    for kind, style in (("questions", "OpenEnded_"), ("annotations", "")):
        file = f"v2_{style}mscoco_train2014_{kind}.json"
        whole = json.loads((tiny_world / "vqa2" / file).read_text())
        for split, shift in (("train", 0), ("val", 10**9)):
            chosen = sorted(whole[kind], key=lambda one: one["question_id"])[rows]
            for one in chosen:
                picture = f"2014_{one['image_id']:012d}.jpg"
                (root / f"{split}2014").mkdir(parents=True, exist_ok=True)
                there = tiny_world / "coco" / "train2014" / f"COCO_train{picture}"
                shutil.copy(there, root / f"{split}2014" / f"COCO_{split}{picture}")
            equal = [told(one, shift) for one in chosen]
            content = whole | {kind: equal, "data_subtype": f"{split}2014"}
            (root / file.replace("train", split)).write_text(json.dumps(content))
    return root.parent


def told(one: dict[str, Any], shift: int) -> dict[str, Any]:
    """A question or its annotation under another id, its annotators of one mind."""
    made = one | {"question_id": one["question_id"] + shift}
    if "answers" in one:
        made["answers"] = [answer | {"answer": one["multiple_choice_answer"]} for answer in one["answers"]]
    return made


LEARN = ("--select-on", "none", "--steps", 80, "--batch-size", 16, "--lr", 3e-3, "--set", "train.accumulation=1")


@pytest.mark.parametrize(
    ("model_type", "more"),
    [pytest.param("llava", (), marks=pytest.mark.slow), ("qwen2_vl", ()), ("llava", ("lora",))],
)
def test_sixteen_examples_are_learned_by_heart(
    make_vlm: Callable[[str], Any], run: Run, sixteen: Path, model_type: str, more: tuple[str, ...]
) -> None:
    folder = make_vlm(model_type).folder
    place = ("--data-root", sixteen, "--split", "val", "--allow-partial")
    adapters = ("--set", "train.lora_rank=8", "--lr", 2e-2) if more else ()
    record = run("vqa2", folder, *place, *LEARN, *adapters)
    every = json.loads((sixteen / "vqa2" / "v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    right = {str(one["question_id"]): one["multiple_choice_answer"] for one in every}
    found = dict(zip(record["rows"]["example_id"], record["rows"]["written"].str.strip(), strict=True))
    assert found == right and len(set(right.values())) > 4
    assert record["results"][0]["value"] == 100.0 and record["coverage"]["unparsed"] == 0
    again = run("vqa2", folder, *place, "--mode", "eval", "--checkpoint", record["folder"])
    assert list(again["rows"]["written"]) == list(record["rows"]["written"])
    assert again["results"] == record["results"] and again["model"]["load_report"]["missing"] == 0


@pytest.mark.parametrize("task", ["nlvr2", "vqa2"])
def test_a_linear_head_on_what_a_prompt_ends_in(
    make_vlm: Callable[[str], Any], run: Run, tiny_world: Path, task: str
) -> None:
    """One vector per example, also where it has two pictures; the head is redone by hand over the loop's states."""
    loop = make_vlm("qwen2_vl")
    record = run(task, loop.folder, "--mode", "probe", "--steps", 6, "--limit", 6, "--select-on", "none")
    assert record["spec"]["answer_by"] is None and record["train"]["steps"] == 6
    best = record["folder"] / "checkpoints" / "best"
    weights = load_file(best / "model.safetensors")
    weight, bias = (weights[f"head.classifier.0.{name}"] for name in ("weight", "bias"))
    answers = json.loads((best / "answers.json").read_text()) if task in OPEN else LISTS[task]
    assert weight.shape == (len(answers), 32)
    logits = [
        weight @ loop.states(*asked(loop, task, example))[-1] + bias for example in examples(task, tiny_world, record)
    ]
    assert list(record["rows"]["prediction"]) == [answers[int(row.argmax())] for row in logits]
    sure = [float((row.sigmoid() if task in OPEN else row.softmax(dim=0)).max()) for row in logits]
    assert list(record["rows"]["confidence"]) == pytest.approx(sure, abs=1e-4)
    again = run(task, loop.folder, "--mode", "eval", "--checkpoint", record["folder"], "--limit", 6)
    assert again["results"] == record["results"] and again["spec"]["answer_by"] is None
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(weights[f"backbone.network.{name}"], loop.model.state_dict()[name])


def test_weights_in_half_the_precision(make_vlm: Callable[[str], Any], run: Run) -> None:
    folder = make_vlm("llava").folder
    more = ("--mode", "zero-shot", "--limit", 4)
    half, full = run("nlvr2", folder, *more, "--dtype", "bfloat16"), run("nlvr2", folder, *more)
    assert (half["spec"]["dtype"], half["model"]["dtype"], full["model"]["dtype"]) == (
        "bfloat16",
        "bfloat16",
        "float32",
    )
    assert half["fingerprint"] != full["fingerprint"] and half["model"]["parameters"] == full["model"]["parameters"]
    assert list(half["rows"]["confidence"]) == pytest.approx(list(full["rows"]["confidence"]), abs=0.1)
    assert list(half["rows"]["confidence"]) != list(full["rows"]["confidence"])


def test_spread_over_the_devices_there_are(make_vlm: Callable[[str], Any], run: Run) -> None:
    folder = make_vlm("llava").folder
    more = ("--mode", "zero-shot", "--limit", 4, "--no-resume")
    spread, whole = run("nlvr2", folder, *more, "--device-map", "auto"), run("nlvr2", folder, *more)
    assert spread["spec"]["device_map"] == "auto" and spread["fingerprint"] == whole["fingerprint"]
    assert spread["rows"].equals(whole["rows"])
