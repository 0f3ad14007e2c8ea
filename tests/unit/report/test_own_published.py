"""Published figures of the user's own, and the splits that published models were trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from vlbench import __version__, catalog
from vlbench.core.errors import VlbenchError
from vlbench.records.collect import collect
from vlbench.records.folder import RunFolder, read_run
from vlbench.report.published.reproduction import expectations
from vlbench.report.published.results import own_models, published, published_models

Call = Callable[..., Any]
MakeRun = Callable[..., Path]
CARDS = {name: catalog.task_card(name) for name in catalog.task_folders()}
SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "published.schema.json"
OWN = {
    "model": "Ours",
    "paper": "Somebody 2026",
    "url": "https://example.org/ours",
    "rows": [
        {
            "variant": "large", "source": "table 3", "confidence": "read", "scores": {"nlvr2": {"test-p": 81.25}},
            "trained_on": {"nlvr2": ["train"]}, "rerun": {"model": "cvlp", "size": "base"},
        }
    ],
}  # fmt: skip


def row(**changes: object) -> dict[str, Any]:
    return OWN | {"rows": [{**OWN["rows"][0], **changes}]}  # type: ignore[index,dict-item]


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Path]:
    """A file of figures of one's own."""

    def write(values: object = OWN, name: str = "own.yaml") -> Path:
        (tmp_path / "figures").mkdir(exist_ok=True)
        path = tmp_path / "figures" / name
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return path

    return write


def test_own_figures_stand_among_the_published_ones(
    make_run: MakeRun, own: Callable[..., Path], vlbench: Call, tmp_path: Path
) -> None:
    run, file = make_run("a", [1.0, 0.0, 1.0]), own()
    bare = vlbench("leaderboard", run, "--published")
    assert bare.code == 0 and "Ours" not in bare.out and "76.81" in bare.out
    ways = (
        (run, "--published", file), (run, f"--published={file}"), ("--published", file, run),
        (run, "--published", file.parent), (run, f"--published={file.parent}"),
        (run, "--published", "--published", file),
    )  # fmt: skip
    for arguments in ways:
        done = vlbench("leaderboard", *arguments)
        assert done.code == 0, done.err
        assert "| Ours (large)" in done.out and "81.25" in done.out and "76.81" in done.out
        assert "`https://example.org/ours`" in done.out  # shown, and no link
    assert (
        vlbench("leaderboard", run, "--published", "--format", "html").out
        == vlbench("leaderboard", "--published", run, "--format", "html").out
    )
    assert vlbench("leaderboard", "--published", run).out == bare.out
    assert "81.25" in vlbench("leaderboard", run, "--published", file, "--format", "latex").out
    assert vlbench("leaderboard", run, "--published", file, "--format", "csv").code == 2


def test_a_folder_of_runs_with_yaml_beside_them_is_one_of_runs(make_run: MakeRun, vlbench: Call) -> None:
    run = make_run("a", [1.0, 0.0])
    (run.parent / "notes.yaml").write_text("a: 1")
    assert vlbench("leaderboard", "--published", run.parent).code == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({key: value for key, value in OWN.items() if key != "url"}, "url is missing"),
        (OWN | {"url": "see the paper"}, "url is 'see the paper'"),
        (OWN | {"rows": []}, "rows is []"),
        (OWN | {"papre": "x"}, "unknown key 'papre', did you mean 'paper'?"),
        (row(scores={"nlvr2": {"test-p": "high"}}), "rows.0.scores.nlvr2.test-p.accuracy is 'high'"),
        (row(scores={"nlvr2": {"test-p": True}}), "rows.0.scores.nlvr2.test-p.accuracy is True"),
        (row(scores={"nlvr2": {"test-p": float("nan")}}), "rows.0.scores.nlvr2.test-p.accuracy is nan"),
        (row(scores={"nlvr2": {"test-p": {"acuracy": 80.0}}}), "unknown metric of nlvr2 'acuracy'"),
        (row(scores={"nlvr3": {"test": 80.0}}, trained_on={"nlvr3": []}), "rows.0.scores: unknown task 'nlvr3'"),
        (row(trained_on={}), "trained_on lacks nlvr2: name the splits"),
        (row(trained_on={"nlvr2": ["trian"]}), "rows.0.trained_on.nlvr2: unknown split of nlvr2 'trian'"),
        (row(trained_on={"nlvr2": "train"}), "rows.0.trained_on.nlvr2 is 'train'"),
        (row(trained_on={"nlvr2": ["train"], "gqa": ["train"]}), "gqa is named and has no scores"),
        ("model: [", "is not YAML"),
        ("- a", "holds list"),
        ("model: A\nmodel: B\n", "own.yaml"),
    ],
)  # fmt: skip
def test_faults_name_file_and_field(
    values: object, said: str, own: Callable[..., Path], make_run: MakeRun, vlbench: Call
) -> None:
    file = own(values)
    done = vlbench("leaderboard", make_run("a", [1.0, 0.0]), "--published", file)
    assert (done.code, done.out, done.err.count("\n")) == (5, "", 1), done.err
    assert str(file) in done.err and said in done.err


def test_what_is_no_run_is_an_error(make_run: MakeRun, own: Callable[..., Path], vlbench: Call, tmp_path: Path) -> None:
    run, file = make_run("a", [1.0, 0.0]), own()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for arguments, said in (
        ((run, file, "--published"), f"{file} is not a run: give your own published results as --published {file}"),
        ((run, file), "published results as --published"),
        ((run, tmp_path / "notes.txt"), "notes.txt is no run"),
        ((run, tmp_path / "empty"), "empty: no runs there"),
        ((run, "--published", tmp_path / "absent.yaml"), "absent.yaml does not exist"),
        ((run, f"--published={tmp_path / 'empty'}"), "holds no *.yaml"),
        ((run, tmp_path / "absent"), "is not there"),
    ):
        done = vlbench("leaderboard", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done.err


def test_the_committed_schema_takes_what_is_taken(own: Callable[..., Path]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.validate(OWN)
    for path in sorted((SCHEMA.parents[1] / "leaderboards" / "published").glob("*.yaml")):
        if path.name != "complexity.yaml":
            validator.validate(yaml.safe_load(path.read_text()))
    spelled = row(scores={"nlvr2": {"test-p": {"accuracy": 81.25}}}, trained_on={"nlvr2": {"splits": ["train"]}})
    validator.validate(spelled)
    assert own_models(own(spelled), CARDS)[0].rows[0].trained_on["nlvr2"].splits == ("train",)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(row(scores={"nlvr2": {"test-p": {"accuracy": "x"}}}))


def test_the_example_of_the_page_is_read(own: Callable[..., Path]) -> None:
    (example,) = re.findall(
        r"```yaml\n(.*?)```", (SCHEMA.parent / "reproduce.md").read_text(encoding="utf8"), re.DOTALL
    )
    (model,) = own_models(own(example), CARDS)
    assert model.rows[0].scores["coco_retrieval"]["test"]["ir_r10"] == 88.1
    assert model.rows[0].trained_on["vqa2"].confidence == "unverified"


def test_tasks_of_ones_own_are_taken_where_runs_are_of_them(own: Callable[..., Path]) -> None:
    file = own(row(scores={"mine": {"test": {"f1": 50.0}}}, trained_on={"mine": ["train"]}))
    assert own_models(file, CARDS, {"mine"})[0].rows[0].scores == {"mine": {"test": {"f1": 50.0}}}
    with pytest.raises(VlbenchError, match="unknown task 'mine'"):
        own_models(file, CARDS)


@pytest.fixture
def real(make_run: MakeRun) -> Callable[..., Path]:
    """A finished CVLP of size base on real data, with 4,000 of 5,000 right."""

    def make(train_split: object, task: str = "nlvr2", split: str = "test-p") -> Path:
        run = make_run(f"of {train_split}", [1.0] * 4000 + [0.0] * 1000)
        record = read_run(run)
        assert record.train
        recipe = catalog.model_card("cvlp").recipe(task, "base").model_copy(update={"train_splits": None})
        metric = CARDS[task].main_metric
        changed = {
            "model": record.model.model_copy(update={"size": "base"}),
            "task": record.task.model_copy(
                update={"source": "real", "name": task, "split": split, "main_metric": metric}
            ),
            "train": record.train.model_copy(update={"recipe": recipe, "train_split": train_split}),
            "results": tuple(result.model_copy(update={"metric": metric}) for result in record.results),
        }
        RunFolder(run).write_record(record.model_copy(update=changed))
        return run

    return make


@pytest.mark.parametrize(
    ("train_split", "said"),
    [
        (("train", "nominival"), ""),
        (("nominival", "train"), ""),
        ("train", "trained on train, published with train+nominival"),
        (("train", "val"), "trained on train+val, published with train+nominival"),
    ],
)
def test_other_training_splits_are_not_comparable(real: Callable[..., Path], train_split: object, said: str) -> None:
    """CVLP's 70.50 on minival is of a model that was trained on train and nominival."""
    (found,) = expectations(collect([real(train_split, "vqa2", "minival")]).runs, __version__, {})
    assert (found.published, found.reason, found.judgement == "not comparable") == (70.5, said, bool(said))


def test_own_figures_are_judged_too(real: Callable[..., Path], own: Callable[..., Path], vlbench: Call) -> None:
    run = real("train")
    done = vlbench("leaderboard", run, "--expect", "--published", own())
    (line,) = [line for line in done.out.splitlines() if "81.25" in line and "below" in line]
    assert "80.00" in line and "table 3" in line
    other = own(row(trained_on={"nlvr2": ["train", "dev"]}), "other.yaml")
    assert (
        "trained on train, published with train+dev"
        in vlbench("leaderboard", run, "--expect", "--published", other).out
    )


def test_every_row_names_the_splits_it_was_trained_on() -> None:
    """As the official code of LXMERT, CVLP and ViLT has it."""
    for model in published_models():
        for one in model.rows:
            for task, trained in one.trained_on.items():
                assert set(trained.splits) <= CARDS[task].splits.keys(), (model.model, task)
                assert bool(trained.splits) != one.protocol.startswith("zero-shot"), (model.model, one.variant)
                assert not set(trained.splits) & {CARDS[task].report_split, "test", "test-dev", "test-p"}
    known = {
        (one.model.model, one.row.variant, one.task): one.trained_on.splits
        for task in CARDS
        for one in published(task)
        if one.row.rerun
    }
    assert known["CVLP", "averaged weights", "vqa2"] == known["LXMERT", "", "vqa2"] == ("train", "nominival")
    assert known["CVLP", "averaged weights", "gqa"] == known["LXMERT", "", "gqa"] == ("train", "val")
    assert (
        known["ViLT-B/32", "200K steps, RandAugment", "vqa2"] == known["SOHO", "ResNet-101", "vqa2"] == ("train", "val")
    )
    assert known["ViLT-B/32", "200K steps, RandAugment", "flickr30k_retrieval"] == ("train", "val")
    assert known["ViLT-B/32", "200K steps, RandAugment", "coco_retrieval"] == ("train",)


def test_rows_without_released_weights_say_so() -> None:
    """SOHO's paper is of a ResNet-101; only a network over a ResNet-18 was released."""
    lines = [
        line for line in (SCHEMA.parent / "reproduce.md").read_text(encoding="utf8").splitlines() if "`vlbench" in line
    ]
    unreleased = [line for line in lines if "weights of this network were not released" in line]
    assert unreleased == [line for line in lines if "--model soho" in line] and len(unreleased) == 3


def test_recipes_train_on_what_the_published_rows_of_the_model_were_trained_on() -> None:
    for task, card in CARDS.items():
        for one in published(task):
            again = one.row.rerun
            if again and again.mode == "finetune" and not again.model.startswith("hf:"):
                recipe = catalog.model_card(again.model).recipe(task, again.size)
                assert (recipe.train_splits or (card.train_split,)) == one.trained_on.splits, (one.name, task)


def test_subtractions_are_no_figures_that_were_read() -> None:
    """CVLP's README gives 72.87 and 61.78 of the averaged weights, and 0.1 and 0.23 as what the plain ones lack."""
    found = {
        (one.row.confidence, value): one
        for task in ("vqa2", "gqa")
        for one in published(task)
        for value in one.metrics.values()
        if one.name == "CVLP (plain weights)"
    }
    for value, note, task in ((72.77, "72.87", "vqa2"), (61.55, "61.78", "gqa")):
        assert note in found["derived", value].row.notes[task]
        page = (SCHEMA.parent / "published" / f"{task}.md").read_text()
        assert f"{value} †" in page and "†: computed from values of the source" in page
    assert ("read", 70.3) in found


def test_vlmos_flickr30k_figures_are_of_another_protocol() -> None:
    protocols = {one.task: one.row.protocol for task in CARDS for one in published(task) if one.name == "VLMo (base)"}
    assert protocols["coco_retrieval"] == "finetune"
    assert protocols["flickr30k_retrieval"] == "finetune, from weights finetuned on COCO"
