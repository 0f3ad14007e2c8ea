"""Profiles of tiny models: the record, and what happens to a model that fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.profile import PIPELINE, ProfileRecord, ProfileSpec
from vlbench.profiling import build
from vlbench.profiling.inputs import DetectedRegions, make_texts, write_images, write_vocabulary
from vlbench.profiling.latency import latency_ratios
from vlbench.profiling.load import stage_names
from vlbench.profiling.profile import profile
from vlbench.profiling.stages import ModelInputs
from vlbench.profiling.timing import Durations
from vlbench.records.profiles import RawDuration, read_profile, write_profile
from vlbench.report.speed.table import speed_table

QUICK = {"size": "tiny", "iterations": 2, "seconds": 0.0, "max_seconds": 0.5, "picture": (96, 64), "detector": False}
FLAGS = (
    *("--size", "tiny", "--iterations", "2", "--seconds", "0", "--max-seconds", "0.5"),
    *("--picture", "96x64", "--no-detector", "--quiet"),
)


def measured(**changed: Any) -> ProfileRecord:
    return profile(ProfileSpec(**{**QUICK, **changed}))[0]


@pytest.fixture(scope="module")
def profiled() -> tuple[ProfileRecord, list[RawDuration]]:
    changed = {"batches": (1, 4), "precision": 10.0, "max_seconds": 20.0}
    scenarios, models = ("latency", "throughput", "retrieval"), ("vilt", "cvlp", "brivl")
    return profile(ProfileSpec(**{**QUICK, **changed}, models=models, scenario=scenarios))


@pytest.fixture
def record(profiled: tuple[ProfileRecord, list[RawDuration]]) -> ProfileRecord:
    return profiled[0]


def test_every_model_is_measured(record: ProfileRecord) -> None:
    assert [(one.name, one.error) for one in record.models] == [
        ("vilt-tiny", ""),
        ("cvlp-tiny", ""),
        ("brivl-tiny", ""),
    ]
    vilt, cvlp, brivl = record.models
    assert [*vilt.latency.stages] == ["decode", "preprocess", "see", "read", "fuse", "head"]  # type: ignore[union-attr]
    assert [*brivl.latency.stages] == ["decode", "preprocess", "see", "read", "head"]  # type: ignore[union-attr]
    assert cvlp.tokens == (36, 14)  # 12 words between [CLS] and [SEP]
    assert [rate.batch for rate in vilt.throughput] == [1, 4]
    assert {(query.how, query.measured) for query in vilt.retrieval if query.gallery <= 100} == {
        ("cross-encoder", True)
    }
    assert {query.how for query in brivl.retrieval} == {"dual"}


def test_stages_add_up_to_the_whole(record: ProfileRecord) -> None:
    for one in record.models:
        assert one.latency is not None
        assert 0 <= one.latency.rest < 0.05  # shares of a clock that all read, not durations
        assert one.latency.model.p50 <= one.latency.whole.p50


def test_operations_and_parameters_are_the_networks(record: ProfileRecord) -> None:
    for one in record.models:
        assert one.operations is not None and one.parameters is not None
        assert not set(one.operations.stages) & set(PIPELINE)
        assert sum(one.parameters.stages.values()) == one.parameters.total
        assert one.operations.stages["see"] > 0


def test_a_model_named_twice_is_rejected() -> None:
    with pytest.raises(VlbenchError, match="--model names vilt-tiny more than once: name each model once"):
        measured(models=("vilt", "vilt"), scenario=())


@pytest.mark.parametrize("task", ["nlvr2", "nothing of the kind"])
def test_threads_and_random_generators_are_restored(task: str) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    with nullcontext() if task == "nlvr2" else pytest.raises(VlbenchError, match="unknown task"):
        found = measured(models=("vilt",), scenario=(), task=task, threads=threads + 1)
        assert found.machine.threads == found.environment.threads == threads + 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("name", ["load_seconds", "first_batch_seconds"])
def test_a_value_that_is_not_finite_is_rejected(name: str, number: str, record: ProfileRecord, tmp_path: Path) -> None:
    values = record.model_dump(mode="json")
    values["models"][1][name] = float(number)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(values))
    assert number in path.read_text()
    with pytest.raises(VlbenchError, match=rf"profile.json is corrupt .*models\.1\.{name} is .*finite number"):
        read_profile(path)


def test_vilts_operations_counted_by_hand() -> None:
    (vilt,) = measured(models=("vilt",), scenario=()).models
    numbers = catalog.model_card("vilt").sizes["tiny"].config
    width, layers, inner = int(numbers["width"]), int(numbers["layers"]), int(numbers["inner"])
    patch = int(numbers["patch"])
    assert vilt.tokens is not None and vilt.operations is not None
    seen, read = vilt.tokens
    tokens = seen + read
    each = tokens * (4 * width * width + 2 * width * inner) + 2 * tokens * tokens * width
    # Keys and values of all tokens; the rest of [CLS], which alone is read.
    last = 2 * tokens * width * width + 2 * width * width + 2 * tokens * width + 2 * width * inner
    projection = (seen - 1) * 3 * patch * patch * width
    by_hand = 2 * ((layers - 1) * each + last + projection + width * width)  # the last: the pooler
    assert vilt.operations.total == pytest.approx(by_hand, rel=0.001)


def test_the_record_is_kept_and_read_back(
    vlbench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = vlbench("profile", "--model", "vilt,brivl", *FLAGS, "--output-path", tmp_path)
    assert done.code == 0, done.err
    folder = Path(done.out.splitlines()[-1])
    record = read_profile(folder)
    assert done.out.startswith(speed_table(record))
    rows = pd.read_parquet(folder / "times.parquet")
    vilt = record.models[0].latency
    assert vilt is not None
    whole = rows[(rows["model"] == "vilt-tiny") & (rows["stage"] == "whole")]["seconds"]
    assert np.median(whole) * 1000 == pytest.approx(vilt.whole.p50)
    (folder / "profile.json").write_text(json.dumps({"profile_version": 0}))
    with pytest.raises(VlbenchError, match="is no profile of version 1"):
        read_profile(folder)


def test_ratios_can_be_computed_again_from_the_raw_values(
    profiled: tuple[ProfileRecord, list[RawDuration]], tmp_path: Path
) -> None:
    write_profile(tmp_path, *profiled)
    rows = pd.read_parquet(tmp_path / "times.parquet")
    assert [*rows] == ["scenario", "model", "stage", "batch", "round", "iteration", "seconds"]
    own = rows[(rows["scenario"] == "latency") & ~rows["stage"].isin([*PIPELINE, "whole"])]
    seconds = own.groupby(["round", "model"])["seconds"].sum().unstack()
    for ratio in profiled[0].ratios:
        logs = np.log(seconds[ratio.of] / seconds[ratio.to]).dropna()
        assert np.exp(logs.median()) == pytest.approx(ratio.value)
    assert len(profiled[0].ratios) == 3


def test_raw_values_of_every_scenario(profiled: tuple[ProfileRecord, list[RawDuration]]) -> None:
    record, raw = profiled
    for one in record.models:
        for rate in one.throughput:
            key = ("throughput", one.name, "whole", rate.batch)
            values = [row.seconds for row in raw if (row.scenario, row.model, row.stage, row.batch) == key]
            assert rate.ms is not None and len(values) == rate.ms.n
            assert 1000 * np.median(values) == pytest.approx(rate.ms.p50)
        assert one.pipeline is not None and one.pipeline.ms is not None
        values = [row.seconds for row in raw if (row.model, row.stage) == (one.name, "pipeline")]
        assert 1000 * np.median(values) == pytest.approx(one.pipeline.ms.p50)
        steps = {row.stage for row in raw if (row.scenario, row.model) == ("retrieval", one.name)}
        assert (
            {"read, embed", "search 100"} <= steps
            if one.model == "brivl"
            else steps == {"read", "a pair", "read, pairs"}
        )


def test_the_rule_looks_at_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[float]] = []

    def stop(*given: object, reported: Any) -> dict[str, Durations]:
        asked.append(reported(Durations(stages={"decode": [5.0], "see": [1.0], "fuse": [2.0]}, whole=[8.0])))
        raise VlbenchError("enough")

    monkeypatch.setattr("vlbench.profiling.profile.measure", stop)
    for stages in ((), ("decode", "see")):
        with pytest.raises(VlbenchError, match="enough"):
            measured(models=("vilt",), stages=stages)
    assert asked == [[3.0], [6.0]]


@pytest.mark.parametrize("detector", [True, False])
@pytest.mark.parametrize("name", ["cvlp", "lxmert", "vilt", "soho", "brivl"])
def test_stages_are_known_before_a_model_is_built(
    name: str, detector: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "random_network", lambda *_: torch.nn.Identity())  # no stage is run
    spec = ProfileSpec(models=(name,), size="tiny", detector=detector)
    inputs = ModelInputs(write_images(tmp_path / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    built = build.build_model(name, spec, tmp_path, torch.device("cpu"))
    stages = [stage.name for stage in built.with_inputs(inputs, torch.device("cpu")).stages()]
    card, task = catalog.model_card(name), catalog.task_card("coco_retrieval")
    assert stage_names(card, task, detector) == tuple(
        sorted(dict.fromkeys(stages), key=["decode", "preprocess", *dict.fromkeys(stages)].index)
    )


def test_seconds_are_recorded_for_each_scenario(record: ProfileRecord) -> None:
    assert [*record.spent] == ["opening", "latency", "throughput", "retrieval"]
    assert 0 < sum(record.spent.values()) < record.seconds
    assert f"latency {record.spent['latency']:.1f} s" in speed_table(record)


def test_a_model_that_fails_keeps_its_row(vlbench: Callable[..., Any], tmp_path: Path) -> None:
    done = vlbench("profile", "--model", "nobody,vilt", *FLAGS, "--output-path", tmp_path)
    assert done.code == ExitCode.SOME_FAILED
    assert "unknown model 'nobody'" in done.out and "vilt-tiny" in done.out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--picture", "big"), "--picture big is no width and height"),
        (("--device", "tpu"), "--device tpu is unknown"),
        (("--scenario", "speed"), "scenario"),
        (("--batch-sizes", "1,x"), "--batch-sizes 1,x are no numbers"),
        (("--task", "nlvr3"), "unknown task 'nlvr3'"),
    ],
)
def test_bad_input(vlbench: Callable[..., Any], tmp_path: Path, flags: tuple[str, str], says: str) -> None:
    done = vlbench("profile", "--model", "vilt", *flags, "--output-path", tmp_path, "--quiet")
    assert done.code == ExitCode.USAGE and says in done.err and "Traceback" not in done.err


def test_ratios_are_of_neighbours() -> None:
    fast = Durations(stages={"see": [1.0, 2.0, 3.0, 9.0]}, rounds=[0, 1, 2, 3])
    slow = Durations(stages={"see": [2.0, 4.0, 6.0], "decode": [50.0, 50.0, 50.0]}, rounds=[0, 1, 2])
    (ratio,) = latency_ratios({"fast": fast, "slow": slow})
    assert (ratio.of, ratio.to) == ("slow", "fast")
    assert (ratio.value, *ratio.ci95) == pytest.approx((2.0, 2.0, 2.0))


def test_inputs_are_as_large_as_asked(tmp_path: Path) -> None:
    from PIL import Image

    refs = write_images(tmp_path / "p", (100, 60), 2, seed=0)
    pictures = [np.asarray(Image.open(ref.path)) for ref in refs]
    assert [picture.shape for picture in pictures] == [(60, 100, 3)] * 2 and (pictures[0] != pictures[1]).any()
    encoder = write_vocabulary(tmp_path, 40)
    assert encoder.vocab_size == 30_522
    (text,) = make_texts(1, 12, seed=0)
    assert len(text.split()) == 12
    with pytest.raises(VlbenchError, match="has no regions"):
        DetectedRegions(8).get(refs[0])
