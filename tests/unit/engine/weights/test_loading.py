"""Loading weights into a learner: their format, what fits, and the error where they do not."""

from __future__ import annotations

import io
import json
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.weights.files import weights_file, weights_sha256
from vlbench.engine.weights.loading import Wanted, load_weights, summary
from vlbench.models.layers.convert import resized_grid, resized_line


class Net(nn.Module):
    """A module with the parts of a Learner."""

    def __init__(self, width: int = 4, answers: int = 2, layers: int = 1) -> None:
        super().__init__()
        inner = [nn.Linear(width, width) for _ in range(layers)]
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5), *inner)
        self.head = nn.ModuleDict({"classifier": nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())})
        self.head["classifier"].append(nn.Linear(width, answers))  # type: ignore[operator]


def same(one: nn.Module, other: nn.Module) -> bool:
    given = other.state_dict()
    return all(torch.equal(value, given[name]) for name, value in one.state_dict().items())


def rejection(path: Path, learner: nn.Module, wanted: Wanted | None = None) -> str:
    """The message that a file is rejected with; the learner is unchanged."""
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with pytest.raises(VlbenchError) as caught:
        load_weights(learner, path, wanted)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    return caught.value.message


def test_weights_may_hold_another_head_but_no_other_backbone(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    given, net = Net(answers=7), Net(answers=2)
    save_file({**given.state_dict(), "extra": torch.zeros(1)}, file)
    head = net.head.state_dict()["classifier.3.weight"].clone()
    report = load_weights(net, tmp_path)
    assert (report.matched, report.missing, report.unexpected, report.converted) == (4, 2, 1, 0)
    assert same(net.backbone, given.backbone)
    assert torch.equal(net.head.state_dict()["classifier.3.weight"], head)
    assert summary(report) == "weights: 4 tensors loaded, 0 of them converted; 2 missing; 1 unexpected"
    assert "has no head that answers this task" in rejection(file, Net(answers=2), Wanted(with_head=True))
    said = rejection(file, Net(width=5))
    assert "fits 0 of the backbone's 4 tensors" in said
    assert "(backbone.0.bias is [4] in the file and [5] here)" in said or "backbone.0.weight is [4, 3]" in said


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
def test_pytorch_files(tmp_path: Path, suffix: str) -> None:
    given, net = Net(), Net()
    file = tmp_path / f"weights{suffix}"
    torch.save(given.state_dict() | {"epoch": 3}, file)
    assert load_weights(net, file, Wanted(with_head=True)).matched == 6
    assert same(net, given)


def test_half_the_keys_more_layers_and_another_shape(tmp_path: Path) -> None:
    file, state = tmp_path / "half.pth", Net().state_dict()
    torch.save({name: value for name, value in state.items() if "weight" in name}, file)
    assert "fits 2 of the backbone's 4 tensors, expected at least 99 %: check --model and --size" in rejection(
        file, Net()
    )
    torch.save(Net(layers=4).state_dict(), file)
    assert "holds a backbone of 10 tensors, of which 6 have no place in this one's 4" in rejection(file, Net())
    torch.save(Net(layers=60).state_dict() | {"backbone.0.weight": torch.zeros(4, 7)}, file)
    assert "holds 1 tensors of another shape (backbone.0.weight is [4, 7] in the file and [4, 3] here)" in rejection(
        file, Net(layers=60)
    )


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, fault: float) -> None:
    broken = Net().state_dict()
    broken["backbone.0.weight"][0, 0] = fault
    save_file(broken, tmp_path / "model.safetensors")
    assert "weights that are no numbers or infinite (backbone.0.weight)" in rejection(tmp_path, Net())


def test_a_runs_folder_names_its_best_weights(tmp_path: Path) -> None:
    net, other = Net(), Net()
    Checkpoints(tmp_path / "checkpoints", names={"model": "net", "size": "tiny"}).save_best(net)
    assert load_weights(other, tmp_path).matched == 6
    assert same(other, net)
    other = Net(width=9)
    other.load_state_dict({name: torch.zeros_like(value) for name, value in other.state_dict().items()})
    torch.save({"strange": torch.zeros(1)}, tmp_path / "strange.pth")
    assert rejection(tmp_path / "strange.pth", other).endswith("check --model and --size")


class Code:
    """An object that runs a command when a pickle with it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    trace, file = tmp_path / "ran", tmp_path / "weights.pth"
    for zipped in (True, False):
        content = Net().state_dict() | {"extra": Code(trace)}
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        assert "holds more than weights (Python's posix.mkdir), of which nothing was run" in rejection(file, Net())
    for protocol in (2, 5):
        file.write_bytes(pickle.dumps(Code(trace), protocol))
        assert "nothing " in rejection(file, Net()) and "was run" in rejection(file, Net())
    assert not trace.exists()
    torch.save(Net(), file)
    assert "holds more than weights" in rejection(file, Net())


def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    """OpenAI distributes CLIP in this format."""
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "program.pt")  # type: ignore[no-untyped-call]
    said = rejection(tmp_path / "program.pt", Net())
    assert "is a TorchScript archive" in said and "state_dict()" in said


def test_arguments_and_numbers_in_checkpoints_are_no_code(tmp_path: Path) -> None:
    """Arguments and numpy scalars, under the names of both generations of numpy."""
    trace, file, given, net = tmp_path / "ran", tmp_path / "weights.pth", Net(), Net()
    kept = {"args": Namespace(lr=np.float64(1e-4), seed=np.int64(3)), "best": np.float32(0.5), "done": np.bool_(True)}
    torch.save(given.state_dict() | kept, file, _use_new_zipfile_serialization=False)
    for content in (file.read_bytes(), file.read_bytes().replace(b"numpy._core.", b"numpy.core.")):
        file.write_bytes(content)
        assert load_weights(net, file).matched == 6 and same(net, given)
    torch.save(given.state_dict() | {"args": Namespace(hook=Code(trace))}, file)
    assert "holds more than weights (Python's posix.mkdir), of which nothing was run" in rejection(file, Net())
    assert not trace.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    save_file(Net(width=99).state_dict(), file) if "safe" in name else torch.save(Net(width=99).state_dict(), file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:40], b"", b"hello", b"<html>404</html>"):
        file.write_bytes(damaged)
        assert "does not load as" in rejection(file, Net(width=99))
    assert "a list where tensors by name" in rejection(_saved(tmp_path / "list.pth", [torch.zeros(2)]), Net())


def _saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_shards(tmp_path: Path) -> None:
    given, net = Net(), Net()
    state = given.state_dict()
    parts = {"a.safetensors": [*state][:3], "b.safetensors": [*state][3:]}
    for name, keys in parts.items():
        save_file({key: state[key] for key in keys}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, keys in parts.items() for key in keys}}))
    assert load_weights(net, tmp_path).matched == 6 and same(net, given)
    before = weights_sha256(weights_file(tmp_path))
    save_file({key: state[key] + 1 for key in parts["b.safetensors"]}, tmp_path / "b.safetensors")
    assert weights_sha256(weights_file(tmp_path)) != before
    (tmp_path / "b.safetensors").unlink()
    assert "names b.safetensors, which is not beside it" in rejection(tmp_path, Net())
    index.write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    assert "names ../secret.safetensors, which is not beside it" in rejection(tmp_path, Net())
    index.write_text("[]")
    assert "names no files in its weight_map" in rejection(tmp_path, Net())


def row(number: int) -> list[float]:
    return [float(number)] * 4


def test_answer_rows_by_name(tmp_path: Path) -> None:
    given, net = Net(answers=3), Net(answers=3)
    state = given.state_dict()
    state["head.classifier.3.weight"] = torch.tensor([row(1), row(2), row(3)])
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "answers.json").write_text('["a", "b", "c"]')
    report = load_weights(net, tmp_path / "w.pth", Wanted(answers=("c", "x", "A")))
    assert net.head.state_dict()["classifier.3.weight"].tolist() == [row(3), row(0), row(1)]
    assert (report.converted, report.unmatched_answers) == (2, 1)
    assert "1 answers begin with rows of zeros" in summary(report)
    assert "has a head without an answer x" in rejection(
        tmp_path / "w.pth", Net(answers=3), Wanted(answers=("c", "x", "a"), with_head=True)
    )
    before = net.head.state_dict()["classifier.3.weight"].clone()
    assert load_weights(net, tmp_path / "w.pth", Wanted(answers=("x", "y", "z"))).matched == 4
    assert torch.equal(net.head.state_dict()["classifier.3.weight"], before)
    (tmp_path / "answers.json").write_text('["a", "b"]')
    assert "has a head of 3 answers where a list of 2 was given" in rejection(
        tmp_path / "w.pth", Net(answers=2), Wanted(answers=("b", "a"))
    )


def test_the_answers_of_a_transformers_folder(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["head.classifier.3.weight"] = torch.tensor([row(1), row(2)])
    torch.save(state, tmp_path / "pytorch_model.bin")
    for labels, expected in (
        ({"0": "False", "1": "True"}, [row(2), row(1)]),
        ({"0": "LABEL_0", "1": "LABEL_1"}, [row(1), row(2)]),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
        net = Net()
        load_weights(net, tmp_path, Wanted(answers=("true", "false")))
        assert net.head.state_dict()["classifier.3.weight"].tolist() == expected
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "no", "2": "yes"}}))
    with pytest.raises(VlbenchError, match="id2label has no 1"):
        load_weights(Net(), tmp_path, Wanted(answers=("true", "false")))


BLOCK = ("attention.self.query", "attention.self.key", "intermediate.dense")
FOREIGN = {
    "CLIP": ["visual.class_embedding", "visual.transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight"],
    "UNITER": [
        *(f"uniter.encoder.layer.0.{name}.weight" for name in BLOCK),
        "uniter.img_embeddings.img_linear.weight", "uniter.embeddings.word_embeddings.weight",
    ],
    "ALBEF": [
        "visual_encoder.blocks.0.attn.qkv.weight", "text_encoder.bert.encoder.layer.6.crossattention.self.key.weight",
        "text_encoder.bert.encoder.layer.0.attention.self.key.weight",
    ],
    "BLIP": [
        "visual_encoder.blocks.0.attn.qkv.weight", "text_encoder.encoder.layer.0.crossattention.self.key.weight",
        "text_decoder.bert.encoder.layer.0.crossattention.self.key.weight",
    ],
    "METER": [
        "vit_model.visual.transformer.resblocks.0.ln_1.weight", "vit_model.token_embedding.weight",
        "text_transformer.encoder.layer.0.attention.self.key.weight",
        "cross_modal_image_layers.0.attention.self.key.weight",
        "cross_modal_text_layers.0.crossattention.self.key.bias",
    ],
    "BERT": ["bert.embeddings.word_embeddings.weight", *(f"bert.encoder.layer.0.{name}.weight" for name in BLOCK)],
}  # fmt: skip


@pytest.mark.parametrize("title", FOREIGN)
@pytest.mark.parametrize("wrapped", [False, True])
def test_another_architecture_is_named(title: str, wrapped: bool, tmp_path: Path) -> None:
    state: dict[str, Tensor] = {name: torch.zeros(2, 2) for name in FOREIGN[title]}
    torch.save({"model": state, "args": None} if wrapped else state, tmp_path / "their.pth")
    said = rejection(tmp_path / "their.pth", Net(), Wanted(catalog.model_card("vilt")))
    assert f"fits 0 of the backbone's 4 tensors, expected at least 99 %: this looks like a {title} checkpoint" in said
    assert ("hf:" in said) == (title in ("CLIP", "BLIP")) and ("vlbench has no" in said) != ("hf:" in said)


def test_a_file_of_another_model_of_vlbench_is_named(tmp_path: Path) -> None:
    names = ("bert.encoder.x_layers.0.lang_inter.dense", "bert.encoder.visn_fc.visn_fc", "bert.pooler.dense")
    torch.save({f"module.{name}.weight": torch.zeros(2, 2) for name in names}, tmp_path / "model_LXRT.pth")
    said = rejection(tmp_path / "model_LXRT.pth", Net(), Wanted(catalog.model_card("vilt")))
    assert said.endswith("this looks like a checkpoint for --model cvlp or lxmert")
    save_file({"backbone.other": torch.zeros(2)}, tmp_path / "own.safetensors", {"model": "soho", "size": "tiny"})
    said = rejection(tmp_path / "own.safetensors", Net(), Wanted(catalog.model_card("vilt")))
    assert said.endswith("they are vlbench's of soho-tiny")


def test_familiar_names_of_other_dimensions(tmp_path: Path) -> None:
    torch.save({"transformer.cls_token": torch.zeros(3)}, tmp_path / "odd.pth")
    said = rejection(tmp_path / "odd.pth", Net(), Wanted(catalog.model_card("vilt")))
    assert "has tensors of vilt's names and of other dimensions" in said


def test_position_tables() -> None:
    """A resampled plane is still a plane, and its corners keep their values."""
    plane: Callable[[int], Tensor] = lambda side: torch.stack(  # noqa: E731
        [torch.tensor([2 * y / (side - 1), 1 - x / (side - 1)]) for y in range(side) for x in range(side)]
    )
    for given, wanted in ((3, 6), (6, 3), (4, 4)):
        torch.testing.assert_close(resized_grid(plane(given), wanted**2), plane(wanted))
    assert len(resized_grid(torch.zeros(5, 2), 9)) == 5 and len(resized_grid(torch.zeros(9, 2), 5)) == 9
    line = torch.arange(6.0).view(3, 2)
    assert resized_line(line, 2).tolist() == line[:2].tolist()
    assert resized_line(line, 5).tolist() == [*line.tolist(), [4, 5], [4, 5]]


class Reading(nn.Module):
    """A backbone with word embeddings among two hundred other tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Embedding(30, 2), nn.Embedding(4, 2), *(nn.Linear(2, 2) for _ in range(100)))
        self.head = nn.ModuleDict()


def test_word_embeddings_are_required(tmp_path: Path) -> None:
    state = Reading().state_dict()
    for lacking in ("backbone.1.weight", "backbone.0.weight"):
        save_file(
            {name: value for name, value in state.items() if name != lacking}, tmp_path / f"{lacking}.safetensors"
        )
    assert load_weights(Reading(), tmp_path / "backbone.1.weight.safetensors").missing == 1
    said = rejection(tmp_path / "backbone.0.weight.safetensors", Reading())
    assert "has no table of words (backbone.0.weight)" in said


def test_weights_of_another_vocabulary(tmp_path: Path) -> None:
    """Detected by the file's metadata, and without metadata by the tokenizer next to it."""

    def words(*more: str) -> TextEncoder:
        path = tmp_path / "vocab.txt"
        path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *more]))
        return TextEncoder.from_vocab(path, 8)

    own, longer, other = words("a", "b"), words("a", "b"), words("b", "a")
    assert own.vocabulary_sha256 == longer.vocabulary_sha256 != other.vocabulary_sha256
    Checkpoints(tmp_path, own, {"model": "net", "size": "tiny"}).save_best(Net())
    file, alone, beside = (tmp_path / name / "model.safetensors" for name in ("best", "alone", "beside"))
    for place in (alone, beside):
        place.parent.mkdir()
    alone.write_bytes(file.read_bytes())
    save_file(Net().state_dict(), beside)
    own.save(beside.with_name("tokenizer.json"))
    for place in (file, alone, beside):
        assert load_weights(Net(), place, Wanted(vocabulary=own.vocabulary_sha256)).matched == 6
        assert "was trained with another vocabulary" in rejection(
            place, Net(), Wanted(vocabulary=other.vocabulary_sha256)
        )
    beside.with_name("tokenizer.json").unlink()
    assert load_weights(Net(), beside, Wanted(vocabulary=other.vocabulary_sha256)).matched == 6


def test_every_error_of_the_unpickler(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(Net().state_dict(), whole, _use_new_zipfile_serialization=False)
    for size in range(0, len(whole.getvalue()), 7):
        (tmp_path / "cut.pth").write_bytes(whole.getvalue()[:size])
        assert "nothing" in rejection(tmp_path / "cut.pth", Net())
