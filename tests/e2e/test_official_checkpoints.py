"""Files of weights from elsewhere, from the command line to a record: they answer as the model that they are of."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlbench import catalog
from vlbench.core.progress import Silent
from vlbench.core.record import LoadReport
from vlbench.core.spec import RunSpec
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.job import Job, plan
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.records.folder import read_run

transformers = pytest.importorskip("transformers")
ANSWERS = ("red", "2", "yes", "no", "circle", "sphinx")
FEW = ("--limit", 40, "--controls", "none", "--quiet")
UNIT = Path(__file__).resolve().parents[1] / "unit" / "models"


def renaming(module: str, function: str) -> Callable[..., Any]:
    """A function of a unit test's that writes weights in their official layout, independently of what reads it."""
    spec = importlib.util.spec_from_file_location(module, UNIT / f"{module}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, function)


@pytest.fixture
def run(vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path) -> Callable[..., Path]:
    """A run on the tiny world that must succeed; its folder."""

    def call(task: str, model: str, *more: object) -> Path:
        done = vlbench(
            "run", "--task", task, "--model", model, "--data-root", tiny_world, "--output-path", tmp_path / "runs",
            *FEW, *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return done.run

    return call


def report(folder: Path) -> LoadReport:
    found = read_run(folder).model.load_report
    assert found is not None
    return found


def agrees(folder: Path, expected: dict[str, Tensor]) -> bool:
    """Whether a run gave the answers the probabilities expected [A], which must differ between the questions."""
    rows = pd.read_parquet(folder / "samples.parquet")
    given = {
        name: dict(zip(labels, scores, strict=True))
        for name, labels, scores in zip(rows["example_id"], rows["labels"], rows["label_scores"], strict=True)
    }
    assert given.keys() == expected.keys()
    found = torch.tensor([[given[name][answer] for answer in ANSWERS] for name in expected], dtype=torch.float32)
    wanted = torch.stack(list(expected.values()))
    assert wanted.std(dim=0).max() > 0.01
    return torch.allclose(found, wanted, atol=1e-4, rtol=0)


def randomised(model: Any) -> Any:
    """With every weight drawn, so that none can be missed."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 if parameter.ndim > 1 else 0.1)
    return model.eval()


def vilt(tiny_world: Path, grid: int = 3, positions: int = 64) -> Any:
    """transformers' ViLT of size tiny."""
    config = transformers.ViltConfig(
        vocab_size=len((tiny_world / "vocab.txt").read_text().splitlines()), hidden_size=64, num_hidden_layers=5,
        num_attention_heads=4, intermediate_size=256, image_size=16 * grid, patch_size=16, layer_norm_eps=1e-6,
        max_position_embeddings=positions, id2label=dict(enumerate(ANSWERS)),
        label2id={answer: row for row, answer in enumerate(ANSWERS)},
    )  # fmt: skip
    return randomised(transformers.ViltForQuestionAnswering(config))


def vqa_job(model: str, tiny_world: Path, checkpoint: Path) -> Job:
    """The same questions as the command line's."""
    spec = RunSpec(task="vqa2", model=model, data_root=tiny_world, mode="eval", checkpoint=str(checkpoint), limit=40)
    return plan(spec, Silent())


def loop_over_vilt(model: Any, job: Job, tiny_world: Path) -> dict[str, Tensor]:
    """What transformers' model answers, one question after the other."""
    text = TextEncoder.from_path(tiny_world / "vocab.txt", 32)
    found = {}
    for example in job.report:
        ids, mask = text.encode([example.query.text])
        picture = Image.open(example.query.images[0].path).convert("RGB")
        pixels = torch.tensor(list(picture.tobytes())).view(1, picture.height, picture.width, 3).permute(0, 3, 1, 2)
        with torch.no_grad():
            logits = model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask).long(),
                pixel_values=pixels / 127.5 - 1, pixel_mask=torch.ones(1, picture.height, picture.width),
            ).logits  # fmt: skip
        found[example.id] = logits[0].sigmoid()
    return found


@pytest.mark.parametrize(("grid", "positions"), [(3, 64), (5, 64), (3, 40)])
def test_a_transformers_folder_of_vilt_answers_as_transformers_does(
    run: Callable[..., Path], tiny_world: Path, tmp_path: Path, grid: int, positions: int
) -> None:
    """Also with another table of places: transformers' own model stretches it at every look."""
    model, folder = vilt(tiny_world, grid, positions), tmp_path / "vilt"
    model.save_pretrained(folder)
    done = run("vqa2", "vilt", "--mode", "eval", "--checkpoint", folder)
    expected = loop_over_vilt(model, vqa_job("vilt", tiny_world, folder), tiny_world)
    assert agrees(done, expected)
    loaded = report(done)
    assert (loaded.missing, loaded.unexpected, loaded.absent) == (0, 0, ()) and loaded.converted == loaded.matched


def test_an_official_file_of_vilt(run: Callable[..., Path], tiny_world: Path, tmp_path: Path) -> None:
    """Query, key and value in one product, wrapped, behind `module.`; the answers lie beside it or are given."""
    model, file, listed = vilt(tiny_world), tmp_path / "vilt_vqa.ckpt", tmp_path / "listed.json"
    official = renaming("test_vilt_checkpoint", "official")
    state = {key.removeprefix("vilt."): value for key, value in model.state_dict().items()}
    state = {key.replace("classifier.", "vqa_classifier."): value for key, value in official(state).items()}
    state |= {"itm_score.fc.weight": torch.ones(2, 64), "itm_score.fc.bias": torch.zeros(2)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 9}, file)
    listed.write_text(json.dumps(ANSWERS))
    expected = loop_over_vilt(model, vqa_job("vilt", tiny_world, with_answers(file)), tiny_world)
    assert agrees(run("vqa2", "vilt", "--mode", "eval", "--checkpoint", file), expected)
    (tmp_path / "answers.json").unlink()
    done = run("vqa2", "vilt", "--mode", "eval", "--checkpoint", file, "--answers", listed)
    assert agrees(done, expected)
    assert (report(done).missing, report(done).unexpected) == (0, 2)  # the matching head, of which nothing is used


def with_answers(file: Path) -> Path:
    file.with_name("answers.json").write_text(json.dumps(ANSWERS))
    return file


def test_answer_rows_go_by_their_strings(run: Callable[..., Path], tiny_world: Path, tmp_path: Path) -> None:
    """Finetuned over a list of its own, a run begins with the rows of the answers that the file knows."""
    model, folder, listed = vilt(tiny_world), tmp_path / "vilt", tmp_path / "listed.json"
    model.save_pretrained(folder)
    wanted = ["no", "3", "Red", "yes"]
    listed.write_text(json.dumps(wanted))
    still = ("lr=1e-12", "head_lr=1e-12", "weight_decay=0", "evaluations=1")
    more = ("--steps", 1, *(word for value in still for word in ("--set", f"train.{value}")))
    done = run("vqa2", "vilt", "--checkpoint", folder, "--answers", listed, *more)
    given = model.state_dict()["classifier.3.weight"]
    got = load_file(done / "checkpoints" / "best" / "model.safetensors")["head.classifier.3.weight"]
    rows = [given[ANSWERS.index(name)] if name in ANSWERS else torch.zeros(128) for name in ("no", "3", "red", "yes")]
    torch.testing.assert_close(got, torch.stack(rows), atol=1e-6, rtol=0)
    assert report(done).unmatched_answers == 1


def built(task: str, model: str, tiny_world: Path) -> tuple[Job, Any]:
    """A task's questions and an untrained backbone of size tiny."""
    job = plan(RunSpec(task=task, model=model, data_root=tiny_world, limit=40, checkpoint="none"), Silent())
    return job, catalog.load_model(job.card, "tiny", make_resources(resource_spec(job), Silent()))


def lxmert(backbone: Any) -> Any:
    """transformers' LXMERT of size tiny."""
    config = transformers.LxmertConfig(
        vocab_size=backbone.config.vocab_size, hidden_size=64, num_attention_heads=4, intermediate_size=256, l_layers=3,
        r_layers=2, x_layers=2, visual_feat_dim=backbone.config.region_dim, max_position_embeddings=64,
        num_qa_labels=len(ANSWERS), id2label=dict(enumerate(ANSWERS)),
        label2id={answer: row for row, answer in enumerate(ANSWERS)},
    )  # fmt: skip
    return randomised(transformers.LxmertForQuestionAnswering(config))


def loop_over_lxmert(model: Any, job: Job, backbone: Any) -> dict[str, Tensor]:
    found = {}
    for example in job.report:
        images = backbone.prepare_images(example.query.images)
        texts = backbone.prepare_texts([example.query.text])
        with torch.no_grad():
            logits = model(
                input_ids=texts["ids"], attention_mask=texts["mask"].long(), visual_feats=images["features"],
                visual_pos=images["boxes"], visual_attention_mask=images["mask"].long(),
            ).question_answering_score  # fmt: skip
        found[example.id] = logits[0].sigmoid()
    return found


def test_lxmert_from_shards_and_cvlp_from_its_official_file(
    run: Callable[..., Path], tiny_world: Path, tmp_path: Path
) -> None:
    job, backbone = built("vqa2", "lxmert", tiny_world)
    model = lxmert(backbone)
    expected = loop_over_lxmert(model, job, backbone)
    folder = tmp_path / "lxmert"
    model.save_pretrained(folder, max_shard_size="400KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    done = run("vqa2", "lxmert", "--mode", "eval", "--checkpoint", folder)
    assert agrees(done, expected)
    assert (report(done).missing, report(done).unexpected) == (0, 0)
    named = {
        key.replace("lxmert.", "lxrt_encoder.model.bert.").replace("answer_head.", ""): value
        for key, value in model.state_dict().items()
    }
    file = with_answers(tmp_path / "BEST.pth")
    torch.save({f"module.{key}": value for key, value in named.items()}, file)
    assert agrees(run("vqa2", "cvlp", "--mode", "eval", "--checkpoint", file), expected)
    begun = run("nlvr2", "cvlp", "--checkpoint", file, "--steps", 1)
    scale = load_file(begun / "checkpoints" / "best" / "model.safetensors")["backbone.standardise.deviation"]
    assert bool((scale == 1).all()), "the file's network takes features as they are"
    assert report(begun).absent == () and read_run(begun).train is not None


@pytest.mark.parametrize("model", ["lxmert", "cvlp"])
def test_a_file_finetuned_on_several_gpus(
    run: Callable[..., Path], tiny_world: Path, tmp_path: Path, model: str
) -> None:
    """LXMERT's and CVLP's `--multiGPU` wraps the encoder alone, so that `module.` stands within the names."""
    job, backbone = built("vqa2", model, tiny_world)
    theirs = lxmert(backbone)
    named = {
        key.replace("lxmert.", "lxrt_encoder.model.module.bert.").replace("answer_head.", ""): value
        for key, value in theirs.state_dict().items()
    }
    assert any(key.startswith("lxrt_encoder.model.module.bert.encoder.x_layers.") for key in named)
    file = with_answers(tmp_path / "BEST.pth")
    torch.save(named, file)
    done = run("vqa2", model, "--mode", "eval", "--checkpoint", file)
    assert agrees(done, loop_over_lxmert(theirs, job, backbone))
    assert (report(done).missing, report(done).unexpected, report(done).absent) == (0, 0, ())


def ranks(folder: Path) -> list[tuple[object, ...]]:
    columns = ["direction", "query_id", "rank_low", "rank_high"]
    rows = pd.read_parquet(folder / "ranks.parquet")
    return sorted(rows[columns].itertuples(index=False, name=None))


def soho_file(weights: dict[str, Tensor], head: dict[str, Tensor]) -> dict[str, object]:
    """Pretrained: row 1 of the matching head is what ranks; it has no bias."""
    official_name = renaming("test_soho_checkpoint", "official_name")
    head |= {"head.score.weight": torch.randn(1, 64), "head.score.bias": torch.zeros(1)}
    matching = torch.cat([torch.zeros(1, 64), head["head.score.weight"]])
    state = {official_name(name): value for name, value in weights.items()} | {"head.match_class.weight": matching}
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}, "meta": {"epoch": 40}}


def brivl_file(weights: dict[str, Tensor], head: dict[str, Tensor]) -> dict[str, object]:
    head["head.log_scale"] = torch.tensor(1 / 0.07).log()
    return {"learnable": renaming("test_brivl_checkpoint", "official_state")(weights)}


@pytest.mark.parametrize(("model", "layout"), [("soho", soho_file), ("brivl", brivl_file)])
def test_official_files_of_soho_and_brivl_rank_as_the_same_weights_do_here(
    run: Callable[..., Path],
    tiny_world: Path,
    tmp_path: Path,
    model: str,
    layout: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, object]],
) -> None:
    _, backbone = built("coco_retrieval", model, tiny_world)
    torch.manual_seed(5)
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    weights |= {name: value + torch.randn_like(value) * 0.05 for name, value in weights.items() if value.ndim > 1}
    head: dict[str, Tensor] = {}
    own, official = tmp_path / "own.safetensors", tmp_path / f"{model}.pth"
    torch.save(layout(weights, head), official)
    save_file({name: value.contiguous() for name, value in (weights | head).items()}, own)
    few = ("coco_retrieval", model, "--limit", 4)
    expected = ranks(run(*few, "--mode", "eval", "--checkpoint", own))
    assert len({row[2] for row in expected}) > 3
    done = run(*few, "--mode", "eval", "--checkpoint", official)
    assert ranks(done) == expected
    assert (report(done).missing, report(done).unexpected, report(done).absent) == (0, 0, ())
    assert report(done).converted == report(done).matched
    begun = run(*few, "--checkpoint", official, "--steps", 1, "--batch-size", 4, "--select-on", "none")
    assert (report(begun).missing, report(begun).absent) == (0, ()) and not read_run(begun).model.from_scratch


def half(state: dict[str, Tensor], file: Path) -> None:
    torch.save({key: value for key, value in state.items() if "layer.1." not in key and "bias" not in key}, file)


def of_clip(state: dict[str, Tensor], file: Path) -> None:
    names = ("visual.transformer.resblocks.0.ln_1.weight", "token_embedding.weight", "logit_scale")
    torch.save({name: torch.zeros(4) for name in names}, file)


def of_lxmert(state: dict[str, Tensor], file: Path) -> None:
    names = ("bert.encoder.x_layers.0.lang_inter.dense.weight", "bert.encoder.visn_fc.visn_fc.weight")
    torch.save({f"module.{name}": torch.zeros(4, 4) for name in names}, file)


def with_code(state: dict[str, Tensor], file: Path) -> None:
    torch.save(state | {"hyper_parameters": Path(file.parent / "ran")}, file)


def cut_short(state: dict[str, Tensor], file: Path) -> None:
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (half, "of the backbone's 95 tensors, expected at least 99 %: check --model and --size"),
        (of_clip, "this looks like a CLIP checkpoint; give it together with the folder of a CLIP"),
        (of_lxmert, "this looks like a checkpoint for --model cvlp or lxmert"),
        (with_code, "of which nothing was run"),
        (cut_short, "does not load as PyTorch weights"),
    ],
)
def test_faulty_files_end_in_one_sentence(
    write: Callable[[dict[str, Tensor], Path], None],
    said: str,
    vlbench: Callable[..., Any],
    tiny_world: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "their.ckpt"
    write(vilt(tiny_world).state_dict(), file)
    for mode in (("finetune", "--steps", 1), ("eval", "--answers", with_answers(file).with_name("answers.json"))):
        done = vlbench(
            "run", "--task", "vqa2", "--model", "vilt", "--data-root", tiny_world, "--checkpoint", file, *FEW,
            "--output-path", tmp_path / "runs", "--mode", *mode,
        )  # fmt: skip
        assert (done.code, done.out, done.err.count("\n")) == (6, "", 1) and said in done.err, done.err
