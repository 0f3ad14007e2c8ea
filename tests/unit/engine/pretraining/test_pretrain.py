"""Pretraining: weights that runs load, a card that describes them, and the same bits whether interrupted or not."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Silent
from vlbench.core.spec import PretrainSpec
from vlbench.engine.pretraining.folder import command_of
from vlbench.engine.pretraining.pairs import load_pairs
from vlbench.engine.pretraining.pretrain import pretrain, used
from vlbench.engine.runtime.interrupt import Interrupted
from vlbench.engine.source import load_task
from vlbench.engine.training.metrics_log import Line, MetricsLog
from vlbench.models.fake.pretraining import FakePretraining
from vlbench.models.layers.momentum import Queue
from vlbench.records.folder import read_run

Call = Callable[..., Any]


@pytest.fixture
def spec(tiny_world: Path, tmp_path: Path) -> Callable[..., PretrainSpec]:
    def made(**fields: object) -> PretrainSpec:
        values = {"model": "fake", "data_root": tiny_world, "output_path": tmp_path / "pretrained",
                  "train": {"steps": 12, "batch_size": 16}}  # fmt: skip
        return PretrainSpec.model_validate({**values, **fields})

    return made


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_weights_tokenizer_card_and_log(spec: Callable[..., PretrainSpec]) -> None:
    folder = pretrain(spec(), Silent())
    assert folder.name == "fake-tiny"
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == {"backbone.gain", "backbone.bias", "head.score.weight", "head.score.bias"}
    assert not torch.equal(weights["backbone.gain"], torch.ones(32))
    assert (folder / "tokenizer.json").is_file() and not (folder / "last").exists()
    card = json.loads((folder / "card.json").read_text())
    assert (card["model"], card["size"], card["data"], card["steps"], card["pairs"]) == (
        "fake", "tiny", "world", 12, 480,
    )  # fmt: skip
    lines = logged(folder)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[0]["loss"] == pytest.approx(lines[0]["itm"] + lines[0]["size"])
    assert card["losses"]["itm"] == pytest.approx(sum(line["itm"] for line in lines) / 12, abs=1e-4)


def test_a_run_starts_from_pretrained_weights(spec: Callable[..., PretrainSpec], vlbench: Call, tmp_path: Path) -> None:
    folder = pretrain(spec(), Silent())
    done = vlbench(
        "run", "--task", "nlvr2", "--model", "fake", "--data-root", spec().data_root, "--checkpoint", folder,
        "--steps", 1, "--controls", "none", "--output-path", tmp_path / "runs", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    report = read_run(done.run).model.load_report
    assert report is not None and report.matched == 2


def test_an_interrupted_and_resumed_pretraining_is_the_same(
    spec: Callable[..., PretrainSpec], tmp_path: Path, monkeypatch
) -> None:
    whole = load_file(pretrain(spec(output_path=tmp_path / "whole"), Silent()) / "model.safetensors")
    log = MetricsLog.__call__

    def signalled(self: MetricsLog, line: Line) -> None:
        log(self, line)
        if line["step"] == 7:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "__call__", signalled)
        with pytest.raises(Interrupted):
            pretrain(spec(), Silent())
    assert not (tmp_path / "pretrained" / "fake-tiny" / "model.safetensors").exists()
    folder = pretrain(spec(), Silent())
    resumed = load_file(folder / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert [line["step"] for line in logged(folder)] == list(range(1, 13))


def test_a_finished_pretraining_is_not_repeated_and_another_is_rejected(spec: Callable[..., PretrainSpec]) -> None:
    folder = pretrain(spec(), Silent())
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert pretrain(spec(), Silent()) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(VlbenchError, match="holds another pretraining of fake"):
        pretrain(spec(seed=1), Silent())
    before = load_file(folder / "model.safetensors")
    after = load_file(pretrain(spec(seed=1, resume=False), Silent()) / "model.safetensors")
    assert not torch.equal(before["backbone.gain"], after["backbone.gain"])


def test_objectives_are_chosen_by_name(spec: Callable[..., PretrainSpec]) -> None:
    assert logged(pretrain(spec(objectives=["itm"]), Silent()))[0].keys() >= {"itm"}
    assert "size" not in logged(pretrain(spec(objectives=["itm"]), Silent()))[0]
    with pytest.raises(VlbenchError, match="fake has no objective mlm: it has itm, size"):
        pretrain(spec(objectives=["mlm"], resume=False), Silent())


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"options": {"key_drop": "paper"}}, "no option key_drop"),
        ({"model": "fkae"}, "did you mean 'fake'"),
        ({"split": "tarin"}, "did you mean 'train'"),
        ({"size": "tny"}, "did you mean 'tiny'"),
    ],
)
def test_faults_are_named(spec: Callable[..., PretrainSpec], fields: dict[str, object], fault: str) -> None:
    with pytest.raises(VlbenchError, match=fault):
        pretrain(spec(**fields), Silent())


def test_from_the_command_line(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    command = ["pretrain", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path, "--quiet"]
    done = vlbench(*command, "--steps", 2, "--set", "train.batch_size=8", "--objectives", "itm")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "fake-tiny"))
    spec = json.loads((tmp_path / "fake-tiny" / "spec.json").read_text())
    assert (spec["train"]["steps"], spec["train"]["batch_size"], spec["objectives"]) == (2, 8, ["itm"])
    card = json.loads((tmp_path / "fake-tiny" / "card.json").read_text())
    assert card["command"] == (
        "vlbench pretrain --model fake --objectives itm --set train.steps=2 --set train.batch_size=8"
    )
    assert vlbench("pretrain", "--model", "fake", "--sead", 1).code == 2
    assert "--model is missing" in vlbench("pretrain").err


@pytest.mark.parametrize("what", ["version", "adapter"])
def test_other_code_is_another_pretraining(
    vlbench: Call, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Another version of vlbench, or another adapter, would give other weights than those in the folder."""
    tasks = tmp_path / "tasks"
    shutil.copytree(catalog.task_folders()["coco_retrieval"], tasks / "coco_retrieval")
    command = ["pretrain", "--model", "fake", "--data-root", tiny_world, "--tasks-dir", tasks, "--steps", 1]
    asked = [*command, "--output-path", tmp_path / "out"]
    assert vlbench(*asked).code == 0
    assert "already done" in vlbench(*asked).err
    if what == "version":
        monkeypatch.setattr("vlbench.engine.pretraining.folder.__version__", "9.9.9")
    else:
        with (tasks / "coco_retrieval" / "adapter.py").open("a", encoding="utf8") as file:
            file.write("# changed\n")
    done = vlbench(*asked)
    assert done.code == 2 and "holds another pretraining of fake" in done.err
    assert vlbench(*asked, "--no-resume").code == 0


def test_lxmert_learns_to_answer_questions(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    done = vlbench(
        "pretrain", "--model", "lxmert", "--data-root", tiny_world, "--task", "coco_retrieval,vqa2", "--steps", 2,
        "--batch-size", 24, "--output-path", tmp_path, "--quiet",
    )  # fmt: skip
    folder = Path(done.out.strip())
    assert any(line["qa"] > 0 for line in logged(folder))
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["manifests"].keys() == {"coco_retrieval", "vqa2"}
    card = json.loads((folder / "card.json").read_text())
    assert "--task coco_retrieval,vqa2" in card["command"] and card["pairs"] > 480
    assert card["settings"] == {"objects": 3, "attributes": 8}
    handed = load_file(folder / "model.safetensors")
    answers = json.loads((folder / "answers.json").read_text())
    run = vlbench(
        "run", "--task", "vqa2", "--model", "lxmert", "--data-root", tiny_world, "--checkpoint", folder,
        "--mode", "eval", "--output-path", tmp_path / "runs", "--limit", 8, "--quiet",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert read_run(run.run).model.answers == len(answers) == len(handed["head.classifier.3.weight"])
    run = vlbench(
        "run", "--task", "vqa2", "--model", "lxmert", "--data-root", tiny_world, "--checkpoint", folder, "--steps", 1,
        "--controls", "none", "--lr", 1e-9, "--output-path", tmp_path / "runs", "--limit", 8, "--quiet",
    )  # fmt: skip
    kept = run.run / "checkpoints" / "best"
    learned = dict(zip(json.loads((kept / "answers.json").read_text()),
                       load_file(kept / "model.safetensors")["head.classifier.3.weight"], strict=True))  # fmt: skip
    known = dict(zip(answers, handed["head.classifier.3.weight"], strict=True))
    shared = learned.keys() & known.keys()
    assert len(shared) > 5 and all(torch.allclose(learned[name], known[name], atol=1e-6) for name in shared)


def test_texts_that_need_not_be_true_are_rejected(spec: Callable[..., PretrainSpec]) -> None:
    with pytest.raises(VlbenchError, match="--task snli_ve: its texts need not be true"):
        pretrain(spec(task=["coco_retrieval", "snli_ve"]), Silent())


def test_several_splits(spec: Callable[..., PretrainSpec]) -> None:
    both = load_pairs(spec(task=["gqa"], split="train,test"), Silent())
    parts = [both.tasks[0].load(split) for split in ("train", "test")]
    assert [example.id for example in both] == [example.id for part in parts for example in part]
    one = load_pairs(spec(task=["gqa"], split="train"), Silent())
    assert len(one) == len(parts[0]) and one.manifests() != both.manifests()
    asked = spec(split=["train", "train2014"])
    assert "--split train,train2014" in command_of(asked)


@pytest.mark.parametrize(
    ("task", "split", "said"),
    [
        ("coco_retrieval", "train,val", "--split val: coco_retrieval is evaluated on it"),
        ("vqa2", "train,val", "--split val: vqa2 is evaluated on nominival, which overlaps it"),
        ("coco_retrieval", "train2017", "--split train2017: coco_retrieval is evaluated on val, which overlaps it"),
        ("coco_retrieval", "none", "unknown split of coco_retrieval 'none'"),
    ],
)
def test_splits_that_are_evaluated_on_are_not_learned_from(
    spec: Callable[..., PretrainSpec], task: str, split: str, said: str
) -> None:
    with pytest.raises(VlbenchError, match=said):
        load_pairs(spec(task=[task], split=split), Silent())


def test_a_ranking_run_starts_from_the_matching_head(
    spec: Callable[..., PretrainSpec], vlbench: Call, tmp_path: Path
) -> None:
    folder = pretrain(spec(), Silent())
    done = vlbench(
        "run", "--task", "coco_retrieval", "--model", "fake", "--data-root", spec().data_root, "--checkpoint", folder,
        "--steps", 1, "--controls", "none", "--output-path", tmp_path / "runs", "--quiet",
    )  # fmt: skip
    report = read_run(done.run).model.load_report
    assert report is not None and (report.matched, report.missing, report.unexpected) == (4, 0, 0)


def test_lxmerts_texts_with_tables_of_features(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "features").symlink_to(tiny_world / "coco" / "features")
    captions = load_task("coco_retrieval", tiny_world).load("train")
    entries = [
        {
            "img_id": example.query.images[0].key,
            "sentf": {f"vg{row}": [example.query.text], f"vqa{row}": ["is it so ?"]},
            "labelf": {f"vqa{row}": [{["yes", "no"][row % 2]: 1}]},
        }
        for row, example in enumerate(captions[:40])
    ]
    (tmp_path / "texts.json").write_text(json.dumps(entries))
    command = ["pretrain", "--model", "lxmert", "--texts", tmp_path / "texts.json", "--size", "tiny", "--steps", 2,
               "--batch-size", 24, "--output-path", tmp_path / "out", "--quiet"]  # fmt: skip
    done = vlbench(*command, "--data-root", tmp_path / "data")
    assert done.code == 0, done.err
    folder = Path(done.out.strip())
    assert any(line["qa"] > 0 for line in logged(folder))
    card = json.loads((folder / "card.json").read_text())
    assert card["pairs"] == 80 and "--texts texts.json" in card["command"] and str(tmp_path) not in card["command"]
    assert "--texts needs --data-root" in vlbench(*command).err


@pytest.mark.parametrize("option", ["queue=64", "momentum=0.5", "key_drop=paper"])
def test_options_of_every_kind_from_the_command_line(
    option: str, vlbench: Call, tiny_world: Path, tmp_path: Path
) -> None:
    done = vlbench(
        "pretrain", "--model", "cvlp", "--data-root", tiny_world, "--steps", 2, "--batch-size", 12,
        "--set", f"options.{option}", "--output-path", tmp_path, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    card = json.loads((Path(done.out.strip()) / "card.json").read_text())
    name, value = option.split("=")
    assert str(card["settings"][name]) == value and f"--set options.{option}" in card["command"]


def test_a_mistyped_option_keeps_finished_weights(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    command = ["pretrain", "--model", "cvlp", "--data-root", tiny_world, "--steps", 1, "--batch-size", 12,
               "--output-path", tmp_path, "--quiet"]  # fmt: skip
    folder = Path(vlbench(*command).out.strip())
    before = (folder / "model.safetensors").read_bytes()
    for slip in ("--set", "options.key_drop=papr"), ("--objectives", "mlm,imt"), ("--set", "train.ema=0.9"):
        assert vlbench(*command, "--no-resume", *slip).code == 2
    assert (folder / "model.safetensors").read_bytes() == before
    assert vlbench(*command, "--save-every", 7).code == 0


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (["--task", "coco_retrieval,coco_retrieval"], "names coco_retrieval more than once"),
        (["--objectives", ""], "holds an empty name"),
        (["--split", "test"], "coco_retrieval is evaluated on it"),
        (["--model", "cvlp,vilt"], "one model is pretrained at a time"),
        (["--set", "train.head_lr=0.1"], "train.head_lr is for finetuning"),
    ],
)
def test_senseless_options_are_rejected(
    slip: list[str], said: str, vlbench: Call, tiny_world: Path, tmp_path: Path
) -> None:
    done = vlbench("pretrain", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path / "out", *slip)
    assert done.code == 2 and said in done.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "slip", [("--objectives", "mlm"), ("--set", "options.key_drop=1"), ("--checkpoint", "missing"), ("--init", "x=y")]
)
def test_a_rejected_pretraining_leaves_no_folder(
    slip: tuple[str, str], vlbench: Call, tiny_world: Path, tmp_path: Path
) -> None:
    """What is rejected only once the model is built as well: no folder, no lock file in it."""
    out = tmp_path / "out"
    command = ["pretrain", "--model", "fake", "--data-root", tiny_world, "--output-path", out, "--steps", 1, "--quiet"]
    assert vlbench(*command, *slip).code in (ExitCode.USAGE, ExitCode.WEIGHTS)
    assert not out.exists()
    assert vlbench(*command).code == 0 and (out / "fake-tiny" / "model.safetensors").is_file()


def test_a_file_in_the_way_is_named(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = vlbench("pretrain", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path / "file")
    assert done.code == 5 and "cannot make" in done.err


@pytest.mark.parametrize("model", ["brivl", "cvlp", "fake", "lxmert", "soho", "vilt"])
def test_every_objective_has_a_loss(model: str, vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    """Through the engine: the log holds the model's objectives, and `after_step` has been called."""
    queue = ["--set", "options.queue=24"] if model in ("brivl", "cvlp") else []
    done = vlbench(
        "pretrain", "--model", model, "--data-root", tiny_world, "--steps", 3, "--batch-size", 12, "--save-every", 2,
        "--set", "train.warmup=0.0", *queue, "--output-path", tmp_path, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = Path(done.out.strip())
    lines = logged(folder)
    card = json.loads((folder / "card.json").read_text())
    named = {name for line in lines for name in line} - {"step", "loss", "lr", "grad_norm", "seconds"}
    assert named == set(card["losses"]) and all(line["grad_norm"] > 0 for line in lines)
    if model == "cvlp":
        assert lines[-1]["contrast"] > 0  # the queue has taken keys in


def test_a_step_in_parts_queues_all_keys(
    spec: Callable[..., PretrainSpec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed: list[int] = []
    push = Queue.push

    def counted(self: Queue, rows: torch.Tensor) -> None:
        pushed.append(len(rows))
        push(self, rows)

    monkeypatch.setattr(Queue, "push", counted)
    for parts in (1, 3):
        recipe = {"steps": 2, "batch_size": 12, "accumulation": parts}
        pretrain(spec(model="cvlp", train=recipe, output_path=tmp_path / str(parts)), Silent())
    assert len(pushed) == 4 and min(pushed) >= 12  # the regions of two steps, whole and in thirds
    assert pushed[:2] == pushed[2:]


@pytest.mark.parametrize(
    ("model", "recipe", "said"),
    [
        ("brivl", {"accumulation": 2}, "brivl's batch norms normalise by the batch of one forward pass"),
        (
            "lxmert",
            {"accumulation": 8},
            r"lxmert learns itm .* and 8 pairs in 8 parts leave one alone: .* of 16 or more",
        ),
        ("lxmert", {"accumulation": 5}, "8 pairs in 5 parts leave one alone"),
        ("lxmert", {"batch_norm": "live"}, r"train\.batch_norm is for finetuning"),
    ],
)
def test_splits_that_would_change_a_loss_are_rejected(
    model: str, recipe: dict[str, object], said: str, spec: Callable[..., PretrainSpec]
) -> None:
    with pytest.raises(VlbenchError, match=said) as caught:
        pretrain(spec(model=model, train={"steps": 1, "batch_size": 8, **recipe}), Silent())
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_dictionary_that_moves_is_not_trained_in_parts(spec: Callable[..., PretrainSpec]) -> None:
    with pytest.raises(VlbenchError, match="soho's dictionary moves in every forward pass"):
        pretrain(spec(model="soho", train={"steps": 1, "batch_size": 8, "accumulation": 2}), Silent())


def test_random_sizes_are_for_finetuning_and_no_part_of_a_pretraining(spec: Callable[..., PretrainSpec]) -> None:
    """The official size's finetuning recipe has them; its pretraining resizes all images alike."""
    with pytest.raises(VlbenchError, match=r"train\.short_side is for finetuning"):
        pretrain(spec(train={"steps": 1, "short_side": [400, 800]}), Silent())
    recipe = used(catalog.model_card("soho").recipe("pretrain", "official"))
    assert (recipe.short_side, recipe.long_side) == (None, None)
    assert (recipe.warmup_steps, recipe.decay_biases, recipe.milestones) == (1000, True, (25 / 40, 35 / 40))


@pytest.mark.parametrize(("dtype", "remedy"), [("float32", "not finite"), ("bfloat16", "or use --dtype float32")])
def test_a_loss_of_nan_is_an_error_with_a_remedy(
    dtype: str, remedy: str, spec: Callable[..., PretrainSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, batch: object) -> dict[str, torch.Tensor]:
        return {"itm": torch.tensor(float("nan"), requires_grad=True)}

    monkeypatch.setattr(FakePretraining, "losses", broken)
    with pytest.raises(VlbenchError, match=r"the loss is not a number \(itm\): lower --lr") as caught:
        pretrain(spec(dtype=dtype), Silent())
    assert remedy in caught.value.message and ("float32" in caught.value.message) is (dtype != "float32")
