"""Every task of the world from the command line to the record, several in one command, and scored again from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from vlbench import catalog
from vlbench.engine.source import load_task
from vlbench.records.folder import find_runs, read_run
from vlbench.world.generate import world_info

Call = Callable[..., Any]


@pytest.fixture
def run(vlbench: Call, tiny_world: Path, tmp_path: Path) -> Call:
    def started(task: str, *more: object) -> Any:
        return vlbench(
            "run", "--task", task, "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path / "runs",
            "--controls", "none", "--steps", 2, "--quiet", *more,
        )  # fmt: skip

    return started


def test_all_tasks_of_the_world_in_one_command(run: Call, tiny_world: Path, tmp_path: Path) -> None:
    spoken = sorted(world_info(tiny_world).counts)
    done = run(",".join(spoken))
    assert done.code == 0, done.err
    folders = find_runs(tmp_path / "runs")
    assert sorted(read_run(folder).task.name for folder in folders) == spoken
    for folder in folders:
        record = read_run(folder)
        card = catalog.task_card(record.task.name)
        assert f"\n{folder}\n" in f"\n{done.out}"
        assert record.result(card.main_metric) is not None
        assert (folder / "ranks.parquet").is_file() == (card.output == "rank")
        assert len(pd.read_parquet(folder / "samples.parquet")) == record.task.n_scored


def test_one_that_fails_does_not_hold_up_the_others(run: Call, tmp_path: Path) -> None:
    done = run("nlvr,vqa2")
    assert done.code == 8
    assert "vlbench: nlvr with fake: the built-in world has no data for 'nlvr'" in done.err
    assert done.err.splitlines()[-1].startswith("vlbench: 1 of 2 runs failed (nlvr with fake), the others are saved")
    assert [read_run(folder).task.name for folder in find_runs(tmp_path / "runs")] == ["vqa2"]


def test_a_name_nobody_knows_stops_all_before_any_work(run: Call, tmp_path: Path) -> None:
    done = run("vqa2,gqqa")
    assert (done.code, done.out) == (2, "") and "did you mean 'gqa'" in done.err
    assert not (tmp_path / "runs").exists()
    assert "names vqa2 more than once" in run("vqa2,gqa,vqa2").err


@pytest.mark.parametrize("task", ["vqa2", "gqa", "snli_ve"])
def test_a_runs_samples_score_as_the_run(run: Call, vlbench: Call, tiny_world: Path, task: str) -> None:
    folder = run(task).run
    done = vlbench(
        "score", "--task", task, "--data-root", tiny_world, "--predictions", folder / "samples.parquet", "--json"
    )
    scores = json.loads(done.out)["scores"]
    assert {result.metric: result.value for result in read_run(folder).results} == {
        name: score["value"] for name, score in scores.items()
    }


def test_a_runs_ranks_score_as_the_run(run: Call, vlbench: Call, tiny_world: Path) -> None:
    folder = run("coco_retrieval").run
    command = ["score", "--task", "coco_retrieval", "--data-root", tiny_world, "--json", "--predictions"]
    scores = json.loads(vlbench(*command, folder / "ranks.parquet").out)["scores"]
    record = read_run(folder)
    assert {result.metric: result.value for result in record.results} == {
        name: score["value"] for name, score in scores.items()
    }
    assert record.chance.keys() == {f"{way}_r{k}" for way in ("tr", "ir") for k in (1, 5, 10)}
    assert record.majority is None


def test_every_file_of_the_same_scores_scores_alike(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    """The scores are exact in bfloat16 and differ, so that no rank is due to a tie or to rounding."""
    examples = load_task("flickr30k_retrieval", tiny_world).load("test")
    shape = len({example.group for example in examples}), len(examples)
    steps = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)
    scores = ((1 + steps % 128 / 128) * 2.0 ** (steps // 128)).astype(np.float32)
    tensor = torch.from_numpy(scores)
    assert (tensor.bfloat16().float() == tensor).all() and len(np.unique(scores)) == scores.size
    np.save(tmp_path / "float32.npy", scores)
    np.savez_compressed(tmp_path / "float32.npz", scores)
    for dtype in (torch.float32, torch.bfloat16):
        torch.save({"scores": tensor.to(dtype)}, tmp_path / f"{dtype}.pt")
        save_file({"scores": tensor.to(dtype)}, tmp_path / f"{dtype}.safetensors")
    command = ["score", "--task", "flickr30k_retrieval", "--data-root", tiny_world, "--json", "--predictions"]
    printed = {file.name: vlbench(*command, file).out for file in sorted(tmp_path.iterdir())}
    assert len(printed) == 6 and len(set(printed.values())) == 1
    assert json.loads(printed["float32.npy"])["scores"]["rsum"]["value"] < 600


def test_every_file_of_the_same_answers_scores_alike(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    examples = load_task("nlvr2", tiny_world).load("dev")
    answers = {example.id: ("True", "False")[number % 2] for number, example in enumerate(examples)}
    pairs = [{"id": name, "answer": answer} for name, answer in answers.items()]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (tmp_path / "list.json").write_text(json.dumps(pairs))
    (tmp_path / "printed.json").write_text(json.dumps(answers, indent=2))
    (tmp_path / "official.csv").write_text("\n".join(map(",".join, answers.items())))
    command = ["score", "--task", "nlvr2", "--split", "dev", "--data-root", tiny_world, "--json", "--predictions"]
    printed = {file.name: vlbench(*command, file).out for file in sorted(tmp_path.iterdir())}
    assert len(printed) == 4 and len(set(printed.values())) == 1
    assert 0 < json.loads(printed["list.json"])["scores"]["accuracy"]["value"] < 100


def test_a_matrix_is_scored(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    examples = load_task("flickr30k_retrieval", tiny_world).load("test")
    pictures = list(dict.fromkeys(example.group for example in examples))
    right = np.array([[example.group == picture for example in examples] for picture in pictures], np.float32)
    np.save(tmp_path / "scores.npy", right)
    command = ["score", "--task", "flickr30k_retrieval", "--data-root", tiny_world, "--predictions"]
    done = vlbench(*command, tmp_path / "scores.npy", "--json")
    assert json.loads(done.out)["scores"]["rsum"]["value"] == 600
    np.save(tmp_path / "scores.npy", right * 0)
    table = vlbench(*command, tmp_path / "scores.npy").out
    assert "| rsum " in table and "| ir_r1_optimistic " in table  # the rules for ties differ, so all are shown
    (tmp_path / "lists.json").write_text(json.dumps({"t2i": {example.id: [example.group] for example in examples}}))
    done = vlbench(*command, tmp_path / "lists.json", "--json")
    assert json.loads(done.out)["scores"]["ir_r1"]["value"] == 100
    assert "tr_r1" not in json.loads(done.out)["scores"]


def test_a_limit_keeps_pictures_with_their_texts(run: Call) -> None:
    done = run("coco_retrieval", "--limit", 4)
    ranks = pd.read_parquet(done.run / "ranks.parquet")
    assert (ranks["direction"] == "i2t").sum() == 4 and (ranks["direction"] == "t2i").sum() == 20
    assert "limit 4: 20 of 60 examples" in done.out


@pytest.mark.parametrize("task", ["vqa2", "coco_retrieval"])
def test_finetuned_weights_are_scored_again(
    run: Call, vlbench: Call, tiny_world: Path, tmp_path: Path, task: str
) -> None:
    folder = run(task).run
    again = vlbench(
        "run", "--task", task, "--model", "fake", "--data-root", tiny_world, "--mode", "eval", "--checkpoint", folder,
        "--output-path", tmp_path / "again", "--quiet",
    )  # fmt: skip
    assert again.code == 0, again.err
    before, after = read_run(folder), read_run(again.run)
    assert [result.value for result in before.results] == [result.value for result in after.results]
    assert before.model.answers_sha256 == after.model.answers_sha256
    assert bool(before.model.answers) == (task == "vqa2")


def test_a_given_list_of_answers(run: Call, tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('["red", "blue", "green", "yellow"]')
    done = run("vqa2", "--answers", tmp_path / "answers.json")
    record = read_run(done.run)
    assert record.model.answers == 4
    assert any("have none of the 4 answers and are left out" in note for note in record.task.notes)
    assert set(pd.read_parquet(done.run / "samples.parquet")["prediction"]) <= {"red", "blue", "green", "yellow"}


def test_reranking_from_the_command_line(run: Call) -> None:
    whole, short = run("coco_retrieval"), run("coco_retrieval", "--rerank-k", 2)
    assert short.code == 0, short.err
    assert read_run(short.run).spec.rerank_k == 2 and short.run != whole.run


def test_the_same_run_of_a_gallery_twice_and_with_other_batches(run: Call) -> None:
    first = pd.read_parquet(run("coco_retrieval").run / "ranks.parquet")
    again = pd.read_parquet(run("coco_retrieval", "--no-resume").run / "ranks.parquet")
    pd.testing.assert_frame_equal(first, again, check_exact=True)


@pytest.mark.parametrize("task", ["vqa2", "nlvr2"])
def test_a_model_that_writes_answers_untrained(vlbench: Call, tiny_world: Path, tmp_path: Path, task: str) -> None:
    command = [
        "run", "--task", task, "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path / "runs",
        "--mode", "zero-shot", "--quiet",
    ]  # fmt: skip
    done = vlbench(*command, "--answer-by", "text")
    assert done.code == 0, done.err
    record, samples = read_run(done.run), pd.read_parquet(done.run / "samples.parquet")
    assert (record.train, record.controls) == (None, {})
    assert record.model.extraction == {"vqa2": "short_answer", "nlvr2": "named_label"}[task]
    assert samples["written"].str.startswith("Answer: ").all()
    assert set(samples["status"]) == ({"ok"} if task == "vqa2" else {"ok", "unparsed"})
    if task == "vqa2":
        assert set(samples["prediction"]) <= {"yes", "no", "2", "red", "true", "false", "neutral"}
    assert record.coverage is not None and record.coverage.errors == 0
    assert record.coverage.unparsed == (samples["status"] == "unparsed").sum()


def test_candidates_zero_shot(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    def run(task: str, *more: object) -> Any:
        return vlbench(
            "run", "--task", task, "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path / "runs",
            "--mode", "zero-shot", "--quiet", *more,
        )  # fmt: skip

    samples = pd.read_parquet(run("snli_ve").run / "samples.parquet")
    assert set(samples["prediction"]) <= {"contradiction", "neutral", "entailment"} and not samples["written"].any()
    assert "needs a list of them for vqa2" in run("vqa2", "--answer-by", "candidates").err
    assert "zero-shot needs --checkpoint with trained weights" in run("coco_retrieval").err
    refused = vlbench("run", "--task", "vqa2", "--model", "cvlp", "--mode", "zero-shot", "--data-root", tiny_world)
    assert (refused.code, "cvlp has no way to answer vqa2 zero-shot" in refused.err) == (2, True)
    refused = vlbench("run", "--task", "vqa2", "--model", "fake", "--answer-by", "text", "--data-root", tiny_world)
    assert "--answer-by text is for a generative model" in refused.err


def test_a_split_without_public_answers_is_predicted(run: Call) -> None:
    done = run("vqa2", "--split", "test")
    assert done.code == 0, done.err
    record, samples = read_run(done.run), pd.read_parquet(done.run / "samples.parquet")
    assert (record.results, record.majority) == ((), None)
    assert any("answers of test are not public" in note for note in record.task.notes)
    assert len(samples) == record.task.n_scored and samples["score"].isna().all() and samples["prediction"].all()


def test_a_ranking_takes_no_blind_control(vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    done = vlbench(
        "run", "--task", "coco_retrieval", "--model", "fake", "--data-root", tiny_world, "--controls", "blind",
        "--output-path", tmp_path / "runs",
    )  # fmt: skip
    assert (done.code, (tmp_path / "runs").exists()) == (2, False)
    assert "an image-blind ranking is a random one" in done.err


def test_a_shortlist_needs_a_model_that_embeds(run: Call) -> None:
    done = run("coco_retrieval", "--rerank-k", 3, "--model", "cvlp")
    assert done.code == 2 and "(fake), not for cvlp on coco_retrieval" in done.err
    assert "re-ranked: of each query only the 3 best" in run("coco_retrieval", "--rerank-k", 3).out


def test_weights_keep_their_answers(run: Call, vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    folder = run("vqa2").run
    answers = json.loads((folder / "checkpoints" / "best" / "answers.json").read_text())
    (tmp_path / "answers.json").write_text(json.dumps(answers[::-1]))
    done = vlbench(
        "run", "--task", "vqa2", "--model", "fake", "--data-root", tiny_world, "--mode", "eval", "--checkpoint", folder,
        "--answers", tmp_path / "answers.json", "--output-path", tmp_path / "runs",
    )  # fmt: skip
    assert (done.code, "is not the list that the weights were trained with" in done.err) == (6, True)


def test_a_lost_ranks_file_is_made_again_or_named(run: Call) -> None:
    folder = run("coco_retrieval").run
    (folder / "ranks.parquet").unlink()
    done = run("coco_retrieval")
    assert done.code == 5 and "ranks.parquet" in done.err


def test_a_last_block_smaller_than_the_accumulation(run: Call, tmp_path: Path) -> None:
    done = run("nlvr2", "--set", "train.steps=3", "--set", "train.batch_size=1", "--set", "train.accumulation=4")
    assert done.code == 0, done.err
