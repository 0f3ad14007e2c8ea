"""Models of transformers from the command line: what they answer is what a loop written against the library answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor

from vlbench.core.errors import ExitCode
from vlbench.core.examples import Example
from vlbench.core.gallery import galleries
from vlbench.data.images.load import open_image
from vlbench.engine.source import load_task
from vlbench.metrics.ranks import from_matrix
from vlbench.records.rankings import read_rankings

MakeHF = Callable[..., Path]
ANSWERS = ("red", "yes", "2", "no", "blue", "circle")
Run = Callable[..., Any]
OURS = {
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 48,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-6,
    "modality_type_vocab_size": 3,
}
"""The tiny ViLT of this house as transformers would say it."""


@pytest.fixture
def run(vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path) -> Run:
    """`vlbench run` on the tiny world, which must succeed: its record, and its folder under `folder`."""

    def run(task: str, model: Path | str, *more: object) -> dict[str, Any]:
        model = f"hf:{model}" if isinstance(model, Path) else model
        place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", "--quiet")
        done = vlbench("run", "--task", task, "--model", model, *place, *more)
        assert done.code == 0, done.err
        return json.loads((done.run / "run.json").read_text()) | {"folder": done.run}

    return run


def examples(task: str, root: Path, split: str) -> Sequence[Example[Any]]:
    return load_task(task, root).load(split)


def answers(record: dict[str, Any]) -> list[str]:
    rows = pd.read_parquet(record["folder"] / "samples.parquet")
    return [str(answer) for answer in rows[rows["control"] == ""]["prediction"]]


def resized(folder: Path, shorter: int, divisor: int) -> None:
    """Let its image processor bring pictures to another size."""
    file = folder / "preprocessor_config.json"
    size = {"size": {"shortest_edge": shorter}, "size_divisor": divisor}
    file.write_text(json.dumps(json.loads(file.read_text()) | size))


class Loop:
    """A processor and a model of transformers, asked one example at a time."""

    def __init__(self, folder: Path) -> None:
        self.config = hf.AutoConfig.from_pretrained(folder)
        self.model = getattr(hf, self.config.architectures[0]).from_pretrained(folder).eval()
        self.eyes, self.words = (kind.from_pretrained(folder) for kind in (hf.AutoImageProcessor, hf.AutoTokenizer))

    def asked(self, example: Example[Any]) -> dict[str, Tensor]:
        pictures = [open_image(ref.path) for ref in example.query.images]
        words = self.words([example.query.text], truncation=True, max_length=40, return_tensors="pt")
        return {
            **self.eyes(images=pictures, return_tensors="pt"),
            "input_ids": words["input_ids"],
            "attention_mask": words["attention_mask"],
        }

    @torch.no_grad()
    def logits(self, example: Example[Any]) -> Tensor:
        return self.model(**self.asked(example)).logits[0]


def test_vilts_answers_are_the_librarys(make_hf: MakeHF, run: Run, tiny_world: Path) -> None:
    folder = make_hf("ViltForQuestionAnswering", ANSWERS)
    record = run("vqa2", folder, "--mode", "eval")
    split, loop = record["task"]["split"], Loop(folder)
    logits = [loop.logits(example) for example in examples("vqa2", tiny_world, split)]
    expected = [loop.config.id2label[int(row.argmax())] for row in logits]
    assert answers(record) == expected and len(set(expected)) > 1
    sure = [float(row.max().sigmoid()) for row in logits]
    rows = pd.read_parquet(record["folder"] / "samples.parquet")
    np.testing.assert_allclose(rows["confidence"], sure, atol=1e-5)
    model = record["model"]
    assert (model["name"], model["from_scratch"], model["answers"]) == (f"hf:{folder.name}", False, len(ANSWERS))
    assert model["load_report"]["missing"] == 0 and model["load_report"]["matched"] > 40
    assert len(model["weights_sha256"]) == len(model["tokenizer_sha256"]) == 64


def test_vilts_answers_are_those_of_the_model_in_this_house(
    make_hf: MakeHF, run: Run, tiny_world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "vilt"
    shutil.copytree(make_hf("ViltForQuestionAnswering", ANSWERS, **OURS), folder)
    resized(folder, 48, 16)
    ours = run("vqa2", "vilt", "--size", "tiny", "--checkpoint", folder, "--mode", "eval")
    theirs = run("vqa2", folder, "--mode", "eval")
    assert answers(ours) == answers(theirs) and len(set(answers(ours))) > 2


def test_vilt_ranks_photographs_as_the_model_in_this_house_does(
    make_hf: MakeHF, run: Run, shared_data: Path, tmp_path: Path
) -> None:
    """In size `small`, whose pictures are as large as the paper's: there both round their sides alike."""
    small = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}
    patches = {"image_size": 384, "patch_size": 32, "max_position_embeddings": 40, "initializer_range": 0.05}
    folder = tmp_path / "vilt"
    shutil.copytree(make_hf("ViltForImageAndTextRetrieval", **OURS | small | patches), folder)
    resized(folder, 384, 32)
    more = ("--mode", "eval", "--limit", 2, "--data-root", shared_data / "flickr8k", "--allow-partial")
    ours = run("flickr8k_retrieval", "vilt", "--size", "small", "--checkpoint", folder, *more)
    theirs = run("flickr8k_retrieval", folder, *more)
    found = [pd.read_parquet(one["folder"] / "ranks.parquet") for one in (ours, theirs)]
    assert found[0]["rank_low"].tolist() == found[1]["rank_low"].tolist() and found[0]["rank_low"].nunique() > 1
    scores = [np.concatenate([*one["top_scores"]]) for one in found]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_vilt_answers_questions_on_photographs_as_the_model_in_this_house_does(
    make_hf: MakeHF, run: Run, shared_data: Path, tmp_path: Path
) -> None:
    """In size `small`, for the same reason."""
    small = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}
    patches = {"image_size": 384, "patch_size": 32, "max_position_embeddings": 40, "initializer_range": 0.05}
    named, folder, listed = ("no", "left", "yes", "right", "girl", "man"), tmp_path / "vilt", tmp_path / "answers.json"
    shutil.copytree(make_hf("ViltForQuestionAnswering", named, **OURS | small | patches), folder)
    resized(folder, 384, 32)
    listed.write_text(json.dumps(named))
    place = ("--data-root", shared_data / "gqa_sample", "--split", "val", "--allow-partial")
    more = ("--mode", "eval", "--answers", listed, *place)
    ours = run("gqa", "vilt", "--size", "small", "--checkpoint", folder, *more)
    theirs = run("gqa", folder, *more)
    assert answers(ours) == answers(theirs) and len(set(answers(ours))) > 1
    sure = [pd.read_parquet(one["folder"] / "samples.parquet")["confidence"] for one in (ours, theirs)]
    np.testing.assert_allclose(*sure, atol=1e-4)


def test_lxmerts_answers_are_named_by_the_list_that_is_given(
    make_hf: MakeHF, run: Run, vlbench: Run, tiny_world: Path, tmp_path: Path
) -> None:
    """Its folders name no rows, whose number is that of the list."""
    folder, listed = make_hf("LxmertForQuestionAnswering"), tmp_path / "answers.json"
    listed.write_text(json.dumps(["yes", "red", "2"]))
    record = run("vqa2", folder, "--mode", "eval", "--answers", listed, "--limit", 8)
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps(["red", "2", "yes"]))
    other = run("vqa2", folder, "--mode", "eval", "--answers", turned, "--limit", 8)
    moved = {"yes": "red", "red": "2", "2": "yes"}
    assert answers(other) == [moved[answer] for answer in answers(record)]
    asked = ("--task", "vqa2", "--model", f"hf:{folder}", "--mode", "eval", "--data-root", tiny_world)
    done = vlbench("run", *asked)
    assert done.code == ExitCode.WEIGHTS and "give the list with --answers" in done.err
    assert "--checkpoint" not in done.err
    listed.write_text(json.dumps(["yes", "red"]))
    done = vlbench("run", *asked, "--answers", listed, "--output-path", tmp_path / "runs")
    assert done.code == ExitCode.WEIGHTS and "a head of 3 answers where a list of 2 was given" in done.err


def test_two_pictures_and_labels_in_another_order(make_hf: MakeHF, run: Run, tiny_world: Path) -> None:
    folder = make_hf("ViltForImagesAndTextClassification", ("true", "FALSE"), num_labels=2, modality_type_vocab_size=3)
    record, loop = run("nlvr2", folder, "--mode", "eval"), Loop(folder)

    @torch.no_grad()
    def label(example: Example[Any]) -> str:
        given = loop.asked(example)
        pixels = {name: given[name][None] for name in ("pixel_values", "pixel_mask")}
        words = {name: given[name] for name in ("input_ids", "attention_mask")}
        row = int(loop.model(**words, **pixels).logits[0].argmax())
        return loop.config.id2label[row].capitalize()  # the task says True and False

    expected = [label(example) for example in examples("nlvr2", tiny_world, record["task"]["split"])]
    assert answers(record) == expected and set(expected) == {"True", "False"}


@pytest.mark.parametrize("architecture", ["ViltForImageAndTextRetrieval", "BlipForImageTextRetrieval"])
def test_pairs_are_ranked_by_the_matching_head(make_hf: MakeHF, run: Run, tiny_world: Path, architecture: str) -> None:
    folder = make_hf(architecture)
    record = run("coco_retrieval", folder, "--mode", "eval", "--limit", 6)
    loop, every = Loop(folder), examples("coco_retrieval", tiny_world, record["task"]["split"])
    kept = set(pd.read_parquet(record["folder"] / "samples.parquet")["example_id"])
    chosen = [example for example in every if example.id in kept]
    [gallery] = galleries(chosen)

    @torch.no_grad()
    def score(picture: int, text: int) -> float:
        given = loop.asked(chosen[0])  # for the shape alone
        given |= dict(loop.eyes(images=[open_image(gallery.images[picture].path)], return_tensors="pt"))
        words = loop.words([gallery.texts[text]], truncation=True, max_length=40, return_tensors="pt")
        given |= {name: words[name] for name in ("input_ids", "attention_mask")}
        found = loop.model(**given)
        return float(found.itm_score[0].softmax(dim=0)[1] if "Blip" in architecture else found.logits[0])

    shape = len(gallery.images), len(gallery.texts)
    scores = np.array([[score(picture, text) for text in range(shape[1])] for picture in range(shape[0])])
    expected = from_matrix(scores, gallery)
    found = read_rankings(record["folder"] / "ranks.parquet", chosen)
    assert [(one.query_id, one.rank_low) for one in found] == [(one.query_id, one.rank_low) for one in expected]
    assert len({one.rank_low for one in expected}) > 3


def dual_matrix(folder: Path, refs: Sequence[Any], texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Cosines [N, M], the library's towers run over everything at once."""
    loop = Loop(folder)
    with torch.no_grad():
        pixels = loop.eyes(images=[open_image(ref.path) for ref in refs], return_tensors="pt")
        images = loop.model.get_image_features(**pixels).pooler_output
        words = loop.words(list(texts), padding=True, truncation=True, max_length=40, return_tensors="pt")
        given = {name: words[name] for name in ("input_ids", "attention_mask")}
        found = loop.model.get_text_features(**given).pooler_output
    unit = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in (images, found)]
    return (unit[0] @ unit[1].T).numpy()


def ranks_equal_the_matrix(record: dict[str, Any], folder: Path, chosen: Sequence[Example[Any]]) -> None:
    [gallery] = galleries(chosen)
    matrix = dual_matrix(folder, gallery.images, gallery.texts)
    found = read_rankings(record["folder"] / "ranks.parquet", chosen)
    expected = from_matrix(matrix, gallery)
    moved = [one for one, other in zip(found, expected, strict=True) if abs(one.rank_low - other.rank_low) > 1]
    same = sum(one.rank_low == other.rank_low for one, other in zip(found, expected, strict=True))
    assert not moved and same > 0.99 * len(found)  # neighbours may change places by rounding
    assert record["spec"]["train_split"] == "none" and record["train"] is None


def test_clip_ranks_untrained_by_the_dot_product(make_hf: MakeHF, run: Run, tiny_world: Path) -> None:
    folder = make_hf("CLIPModel")
    record = run("coco_retrieval", folder, "--mode", "zero-shot")
    ranks_equal_the_matrix(record, folder, examples("coco_retrieval", tiny_world, record["task"]["split"]))


def test_clip_ranks_photographs(make_hf: MakeHF, run: Run, shared_data: Path) -> None:
    task = load_task("flickr8k_retrieval", shared_data / "flickr8k", allow_partial=True)
    chosen = task.load("test")
    folder = make_hf(
        "CLIPModel", words=tuple(sorted({word for one in chosen for word in one.query.text.lower().split()}))
    )
    place = ("--data-root", shared_data / "flickr8k", "--allow-partial")
    record = run("flickr8k_retrieval", folder, "--mode", "zero-shot", *place)
    assert record["task"]["n_scored"] == 1000
    ranks_equal_the_matrix(record, folder, chosen)


def test_clip_compares_with_sentences(make_hf: MakeHF, run: Run, tiny_world: Path) -> None:
    folder = make_hf("CLIPModel")
    record = run("snli_ve", folder, "--mode", "zero-shot")
    labels = {
        "contradiction": "It is not true that {}",
        "neutral": "It may or may not be true that {}",
        "entailment": "{}",
    }
    loop = Loop(folder)
    expected = []
    for example in examples("snli_ve", tiny_world, record["task"]["split"]):
        sentences = [sentence.format(example.query.text) for sentence in labels.values()]
        with torch.no_grad():
            words = loop.words(sentences, padding=True, truncation=True, max_length=40, return_tensors="pt")
            pixels = loop.eyes(images=[open_image(example.query.images[0].path)], return_tensors="pt")["pixel_values"]
            ids, mask = words["input_ids"], words["attention_mask"]
            logits = loop.model(pixel_values=pixels, input_ids=ids, attention_mask=mask).logits_per_image[0]
        expected.append(list(labels)[int(logits.argmax())])
    assert answers(record) == expected and len(set(expected)) > 1
    first = examples("snli_ve", tiny_world, record["task"]["split"])[0]
    told = record["model"]["prompting"]
    assert told["prompt"] == "\n".join(sentence.format(first.query.text) for sentence in labels.values())
    assert (told["example"], told["decoding"], told["chat_template_sha256"]) == (first.id, None, "")
    assert record["model"]["preprocessing"]["image_processor"] == type(loop.eyes).__name__
    assert record["model"]["preprocessing"]["image_backend"] == loop.eyes.backend


def test_clip_compares_with_answers(make_hf: MakeHF, run: Run, vlbench: Run, tiny_world: Path, tmp_path: Path) -> None:
    folder, listed = make_hf("CLIPModel"), tmp_path / "answers.json"
    listed.write_text(json.dumps(ANSWERS))
    record = run("vqa2", folder, "--mode", "zero-shot", "--answers", listed, "--limit", 20)
    assert set(answers(record)) <= set(ANSWERS) and record["model"]["answers"] == len(ANSWERS)
    done = vlbench("run", "--task", "vqa2", "--model", f"hf:{folder}", "--mode", "zero-shot", "--data-root", tiny_world)
    assert done.code == ExitCode.USAGE and "give one with --answers" in done.err


@pytest.mark.parametrize("architecture", ["CLIPModel", "LxmertModel", "FlavaModel"])
def test_a_linear_head_on_a_frozen_backbone(make_hf: MakeHF, run: Run, architecture: str) -> None:
    folder = make_hf(architecture)
    more = ("--mode", "probe", "--steps", 8, "--controls", "none", "--limit", 24)
    record = run("snli_ve", folder, *more)
    best = load_file(record["folder"] / "checkpoints" / "best" / "model.safetensors")
    assert {name for name in best if name.startswith("head.")} == {"head.classifier.0.weight", "head.classifier.0.bias"}
    assert record["train"]["steps"] == 8 and record["train"]["selected_on"] == "dev"
    again = run("snli_ve", folder, "--mode", "eval", "--checkpoint", record["folder"], "--limit", 24)
    assert answers(again) == answers(record)


def test_a_probe_leaves_the_backbone_as_it_was(make_hf: MakeHF, run: Run) -> None:
    folder = make_hf("ViltModel", modality_type_vocab_size=3)
    more = ("--steps", 4, "--controls", "none", "--limit", 10, "--select-on", "none")
    probed, tuned = (run("nlvr2", folder, "--mode", mode, *more) for mode in ("probe", "finetune"))
    original = load_file(folder / "model.safetensors")
    key = "encoder.layer.0.output.dense.weight"
    best = [load_file(one["folder"] / "checkpoints" / "best" / "model.safetensors") for one in (probed, tuned)]
    found = [weights[f"backbone.network.model.{key}"] for weights in best]
    assert torch.equal(found[0], original[key]) and not torch.equal(found[1], original[key])


def test_finetuning_goes_on_from_the_head_that_came_along(make_hf: MakeHF, run: Run) -> None:
    folder = make_hf("ViltForQuestionAnswering", ANSWERS)
    more = ("--steps", 2, "--controls", "none", "--limit", 8, "--select-on", "none", "--lr", 1e-9, "--set")
    record = run("vqa2", folder, *more, "train.head_lr=1e-9")
    best = record["folder"] / "checkpoints" / "best"
    listed = json.loads((best / "answers.json").read_text())
    rows, original = load_file(best / "model.safetensors"), load_file(folder / "model.safetensors")
    weight = rows["head.classifier.3.weight"]
    for answer in set(listed) & set(ANSWERS):
        expected = original["classifier.3.weight"][ANSWERS.index(answer)]
        torch.testing.assert_close(weight[listed.index(answer)], expected, atol=1e-6, rtol=0)
    lacking = set(listed) - set(ANSWERS)
    assert lacking and record["model"]["load_report"]["unmatched_answers"] == len(lacking)


def test_from_scratch_only_the_preprocessing_is_taken(make_hf: MakeHF, run: Run, vlbench: Run) -> None:
    folder = make_hf("CLIPModel")
    record = run("coco_retrieval", folder, "--mode", "zero-shot", "--checkpoint", "none", "--limit", 5)
    assert (record["model"]["from_scratch"], record["model"]["weights_sha256"]) == (True, "")
    shown = vlbench("show", record["folder"])
    assert "RANDOM WEIGHTS: NEITHER PRETRAINED NOR TRAINED" in shown.out and "trained from scratch" not in shown.out


def test_answers_that_the_head_lacks_are_noted(make_hf: MakeHF, run: Run, tmp_path: Path) -> None:
    folder, listed = make_hf("ViltForQuestionAnswering", ANSWERS), tmp_path / "answers.json"
    listed.write_text(json.dumps(["yes", "no", "elephant"]))
    record = run("vqa2", folder, "--mode", "eval", "--answers", listed, "--limit", 10)
    assert set(answers(record)) <= {"yes", "no"}
    notes = " ".join(record["task"]["notes"])
    assert "1 of 3 answers have no row in the head: elephant" in notes
    assert "4 of the head's 6 rows stand for no answer here: 2, blue, circle, red" in notes


@pytest.mark.parametrize(
    ("architecture", "task", "kept"),
    [
        ("ViltModel", "snli_ve", "embeddings.text_embeddings.word_embeddings.weight"),
        ("CLIPModel", "coco_retrieval", "text_model.embeddings.token_embedding.weight"),
    ],
)
def test_adapters_are_in_the_weights_that_a_run_leaves(
    make_hf: MakeHF, run: Run, architecture: str, task: str, kept: str
) -> None:
    folder = make_hf(architecture)
    more = ("--steps", 3, "--controls", "none", "--limit", 10, "--select-on", "none", "--lr", 0.1)
    record = run(task, folder, *more, "--set", "train.lora_rank=4")
    assert record["train"]["recipe"]["lora_rank"] == 4
    best, original = (
        load_file(record["folder"] / "checkpoints" / "best" / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    names = {name.split("backbone.network.")[-1].removeprefix("model."): name for name in best}
    assert not any("lora" in name for name in best) and torch.equal(best[names[kept]], original[kept])
    moved = [name for name in original if name in names and not torch.equal(best[names[name]], original[name])]
    assert moved and all(name.endswith("weight") and original[name].ndim == 2 for name in moved)
    again = run(task, folder, "--mode", "eval", "--checkpoint", record["folder"], "--limit", 10)
    assert answers(again) == answers(record) and again["results"] == record["results"]
    assert again["model"]["parameters"] == record["model"]["parameters"]
