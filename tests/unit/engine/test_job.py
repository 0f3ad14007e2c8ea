"""Planning: all defaults filled in, all contradictions rejected, and what a limit leaves."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.spec import RunSpec
from vlbench.data.text.answers import write_answers
from vlbench.engine.job import Job
from vlbench.engine.limit import limit_examples

MakeJob = Callable[..., Job]
EXAMPLES = [Example(f"e-{number}", Query((), ""), Label("True"), "g") for number in range(40)]


def spec(**fields: object) -> RunSpec:
    return RunSpec.model_validate({"task": "nlvr2", "model": "fake", **fields})


def ids(chosen: object) -> list[str]:
    return [example.id for example in chosen]  # type: ignore[attr-defined]


def test_defaults_are_filled_in(make_job: MakeJob) -> None:
    job = make_job(model="cvlp", train=Recipe(lr=0.5))
    assert (job.size, job.spec.size, job.spec.controls) == ("tiny", "tiny", ("blind",))
    assert (job.spec.train_split, job.spec.select_on, job.spec.split) == ("train", "dev", "test-p")
    assert (job.spec.train.lr, job.spec.train.steps) == (0.5, job.card.sizes["tiny"].recipes["default"].steps)
    assert (len(job.train), len(job.select), len(job.report), job.n_total) == (192, 96, 96, 96)
    assert (job.threads, make_job(model="cvlp", threads=2).threads) == (1, 2)


def test_real_data_gets_the_papers_size_and_no_control(make_job: MakeJob, tmp_path: Path) -> None:
    for split in ("train", "dev", "test1"):
        line = {"identifier": f"{split}-0-0-0", "sentence": "Two dogs.", "label": "True", "directory": 1}
        (tmp_path / f"{split}.json").write_text(json.dumps(line))
    job = make_job(data_root=tmp_path, allow_partial=True)
    assert (job.size, job.spec.controls, job.task.source) == ("base", (), "real")
    assert len(job.task.notes) == 3


def test_select_on_none_selects_nothing(make_job: MakeJob) -> None:
    assert make_job(select_on="none").select == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "fkae"}, r"unknown model 'fkae': did you mean 'fake'\?"),
        ({"size": "bse"}, r"unknown size of fake 'bse': did you mean 'base'\?"),
        ({"split": "tset-p"}, "unknown split of nlvr2 'tset-p'"),
        ({"split": "dev"}, "--split dev shares 96 examples with 'dev' .* give another --select-on, or none"),
        ({"split": "train", "select_on": "none"}, "--split train shares 192 examples .* give another --train-split"),
        ({"checkpoint": "absent.safetensors"}, "--checkpoint absent.safetensors holds no weights"),
    ],
)
def test_contradictions(fields: dict[str, object], message: str, make_job: MakeJob) -> None:
    with pytest.raises(VlbenchError, match=message):
        make_job(**fields)


def test_a_model_without_a_head_for_the_task(make_job: MakeJob, tmp_path: Path) -> None:
    """Rejected by the cards alone, before any data is read."""
    card = (catalog.model_folders()["fake"] / "model.yaml").read_text(encoding="utf8")
    (tmp_path / "model.yaml").write_text(
        card.replace("outputs: [classify, pair, rank, generate]", "outputs: [rank]"), encoding="utf8"
    )
    (tmp_path / "model.py").touch()
    with pytest.raises(VlbenchError, match=r"fake has no head for nlvr2 \(pair\): it does rank"):
        make_job(model=f"{tmp_path}/model.py:Model", data_root=tmp_path / "nowhere")


def test_the_fingerprint_is_of_what_is_done_not_where(make_job: MakeJob, tmp_path: Path) -> None:
    plain = make_job().fingerprint
    same = [{"output_path": tmp_path / "x"}, {"device": "cpu"}, {"workers": 1}, {"threads": 2}, {"size": "tiny"},
            {"controls": ("blind",)}, {"split": "test-p"}]  # fmt: skip
    other = [{"seed": 1}, {"controls": ()}, {"split": "test-u"}, {"train": Recipe(lr=0.1)}, {"limit": 5}]
    assert {make_job(**fields).fingerprint for fields in same} == {plain}
    assert len({make_job(**fields).fingerprint for fields in other} | {plain}) == len(other) + 1


def test_how_batch_norms_normalise_is_part_of_a_runs_name(make_job: MakeJob) -> None:
    plain, live = (make_job(model="soho", train=Recipe(batch_norm=kind, accumulation=1)) for kind in (None, "live"))
    assert plain.fingerprint != live.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", 1), "and --batch-size 1 leaves one image alone: give 2 or more"),
        (("--batch-size", 4, "--set", "train.batches=related"), "step 1 of training holds one image alone"),
        (("--batch-size", "auto", "--set", "train.batch_norm=live"), "which --batch-size auto may cut into several"),
        (("--set", "train.batch_norm=live", "--set", "train.accumulation=2"), "which train.accumulation 2 may cut"),
    ],
)
@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
def test_steps_that_cannot_be_trained_are_one_sentence(
    options: tuple[object, ...], extra: tuple[str, ...], message: str, vlbench: Any, tiny_world: Path, tmp_path: Path
) -> None:
    task = ("run", "--task", "coco_retrieval", "--model", "brivl", "--data-root", tiny_world, "--checkpoint", "none")
    done = vlbench(*task, *options, *extra, "--output-path", tmp_path, "--quiet")
    assert done.code == 2 and message in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("vlbench: ")]) == 1
    assert "Traceback" not in done.err


def test_limits() -> None:
    assert limit_examples(EXAMPLES, spec()) is EXAMPLES
    assert ids(limit_examples(EXAMPLES, spec(limit=3, limit_mode="head"))) == ["e-0", "e-1", "e-2"]
    assert len(limit_examples(EXAMPLES, spec(limit=0.25))) == 10
    assert len(limit_examples(EXAMPLES, spec(limit=0.001))) == 1
    assert len(limit_examples(EXAMPLES, spec(limit=500))) == 40
    assert len(limit_examples(EXAMPLES, spec(limit=1))) == 1


def test_a_random_limit_is_the_same_for_every_seed_and_keeps_the_order() -> None:
    some = ids(limit_examples(EXAMPLES, spec(limit=10)))
    assert some == sorted(some, key=lambda name: int(name[2:]))
    assert some == ids(limit_examples(EXAMPLES, spec(limit=10)))
    assert some == ids(limit_examples(EXAMPLES, spec(limit=10, seed=1)))
    assert some != ids(limit_examples(EXAMPLES, spec(limit=10, split="test-u")))
    assert some != ids(limit_examples(EXAMPLES, spec(limit=10, limit_mode="head")))


def test_a_limit_of_a_gallery_counts_images_and_keeps_their_texts() -> None:
    captions = [replace(example, group=f"p-{row // 4}") for row, example in enumerate(EXAMPLES)]
    assert ids(limit_examples(captions, spec(limit=2, limit_mode="head"), whole=True)) == [f"e-{n}" for n in range(8)]
    some = limit_examples(captions, spec(limit=0.3), whole=True)
    assert len(some) == 12 and len({example.group for example in some}) == 3


def test_open_answers_are_the_frequent_ones_of_the_train_split(make_job: MakeJob) -> None:
    job = make_job(task="vqa2")
    assert {"yes", "no", "red"} <= set(job.labels)
    counts = Counter(example.reference.consensus for example in job.task.load("train"))
    assert set(job.labels) == {answer for answer, times in counts.items() if times >= 9}
    assert all(set(example.reference.worths()) & set(job.labels) for example in job.train)


def test_examples_without_an_answer_of_the_list_are_left_out(make_job: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('["red", "blue"]')
    job = make_job(task="vqa2", answers=tmp_path / "answers.json")
    assert job.labels == ("red", "blue")
    left = 0
    for example in job.task.load("train"):
        left += not {"red", "blue"} & set(example.reference.worths())
    assert job.notes == (
        f"{left:,} of {left + len(job.train):,} training examples have none of the 2 answers and are left out",
    )
    (tmp_path / "answers.json").write_text('["crimson", "azure"]')
    with pytest.raises(VlbenchError, match=r"none of the .* training examples has one of the 2 answers"):
        make_job(task="vqa2", answers=tmp_path / "answers.json")


def test_a_list_is_for_open_answers_and_reranking_for_galleries(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match="nlvr2 has none"):
        make_job(answers=tmp_path / "answers.json")
    with pytest.raises(VlbenchError, match="--rerank-k 5 is for retrieval"):
        make_job(rerank_k=5)


def test_a_gallery_has_no_blind_control_by_default(make_job: MakeJob) -> None:
    assert make_job(task="coco_retrieval").spec.controls == ()
    assert make_job(task="vqa2").spec.controls == ("blind",)


def test_weights_bring_their_answers(make_job: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(VlbenchError, match=r"brings no answers.json") as caught:
        make_job(task="vqa2", mode="eval", checkpoint=str(tmp_path))
    assert caught.value.exit_code == 6
    write_answers(tmp_path / "answers.json", ("red", "7"))
    assert make_job(task="vqa2", mode="eval", checkpoint=str(tmp_path)).labels == ("red", "7")


def test_a_gallery_is_selected_on_in_part(make_job: MakeJob) -> None:
    whole = make_job(task="coco_retrieval", model="fake")
    assert whole.spec.select_limit == 1000
    images = sorted({example.group for example in whole.select})
    part = make_job(task="coco_retrieval", model="fake", select_limit=3, seed=5)
    chosen = sorted({example.group for example in part.select})
    assert len(chosen) == 3
    assert ids(part.select) == [name for name in ids(whole.select) if name in set(ids(part.select))]  # in their order
    assert len(part.select) == sum(example.group in chosen for example in whole.select)  # with all their texts
    assert ids(part.select) == ids(make_job(task="coco_retrieval", model="fake", select_limit=3).select)
    assert any(note.startswith(f"selected on 3 of {len(images)} images of val") for note in part.notes)
    assert part.fingerprint != whole.fingerprint
    assert not any("selected on" in note for note in whole.notes)


def test_a_select_limit_of_examples(make_job: MakeJob) -> None:
    assert make_job().spec.select_limit is None
    assert len(make_job(select_limit=5).select) == 5


def test_workers_suit_the_machine_by_default(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlbench.engine.defaults.spare_processes", lambda: 7)
    for split in ("train", "dev", "test1"):
        line = {"identifier": f"{split}-0-0-0", "sentence": "Two dogs.", "label": "True", "directory": 1}
        (tmp_path / f"{split}.json").write_text(json.dumps(line))
    real = {"data_root": tmp_path, "allow_partial": True}
    assert [make_job(**real).spec.workers, make_job(**real, workers=0).spec.workers, make_job().spec.workers] == [
        7,
        0,
        0,
    ]


def test_the_answers_of_the_weights_are_part_of_the_fingerprint(make_job: MakeJob, tmp_path: Path) -> None:
    """Of open answers and of closed ones, which rows are matched with by name."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for task, lists in (("vqa2", [("red", "7"), ("7", "red")]), ("snli_ve", [("yes", "no"), ("no", "yes")])):
        names = set()
        for answers in lists:
            write_answers(tmp_path / "answers.json", answers)
            names.add(make_job(task=task, mode="eval", checkpoint=str(tmp_path)).fingerprint)
        assert len(names) == 2


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """A folder with a model's code and card."""
    (tmp_path / "own").mkdir()
    for name in ("backbone.py", "layers.py"):
        (tmp_path / "own" / name).write_text("")
    shutil.copy(catalog.model_folders()["fake"] / "model.yaml", tmp_path / "own")
    return tmp_path / "own"


def test_code_and_card_of_a_users_model_count(make_job: MakeJob, own_model: Path) -> None:
    model = f"{own_model}/backbone.py:Mine"
    names = [make_job(model=model).fingerprint]
    for name in ("backbone.py", "layers.py", "model.yaml"):
        (own_model / name).write_text((own_model / name).read_text() + "\n# changed\n")
        names.append(make_job(model=model).fingerprint)
    names.append(make_job(model=f"{own_model}/backbone.py:Other").fingerprint)
    names.append(make_job(model=f"{own_model}/layers.py:Mine").fingerprint)
    assert len(set(names)) == 6
    (own_model / "README.md").write_text("")
    assert make_job(model=model).fingerprint == names[3]


@pytest.mark.parametrize("kind", ["hf", "own"])
def test_one_model_by_any_of_its_paths(
    make_job: MakeJob, own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip", "architectures": ["CLIPModel"]}')
    ways = ["hf:clip", "hf:./clip", "hf:clip/", f"hf:{tmp_path}/clip"]
    if kind == "own":
        ways = ["own/backbone.py:Mine", "./own/backbone.py:Mine", f"{tmp_path}/own/backbone.py:Mine"]
    jobs = [make_job(model=way, checkpoint="none") for way in ways]
    assert len({(job.fingerprint, job.card.name) for job in jobs}) == 1
