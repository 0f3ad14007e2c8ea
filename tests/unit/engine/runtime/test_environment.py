"""The environment of a run changes no number: Accelerate's variables, precision on a CPU."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import nn

from vlbench.core.accelerate_env import KEPT, PREFIX, kept_variables, remove_variables
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.spec import RunSpec
from vlbench.engine.runtime.environment import PRECISION, make_accelerator
from vlbench.records.folder import read_run

LAUNCH = {
    "ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP", "ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_ENABLE_RICH", "ACCELERATE_TORCH_DEVICE", "ACCELERATE_LOG_LEVEL", "ACCELERATE_NUM_PROCESSES",
    "ACCELERATE_IN_TPU_POD", "ACCELERATE_DEBUG_RDV_FILE",
}  # fmt: skip
"""Variables that say where a run happens, stated here again: a new one in KEPT must be added by hand."""


def read_by_accelerate() -> set[str]:
    """The names in the installed package's source; also those that it builds from a prefix and a suffix."""
    found: set[str] = set()
    for path in Path(accelerate.__file__).parent.rglob("*.py"):
        text = path.read_text("utf8")
        names = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", text))
        suffixes = re.findall(r"prefix\s*\+\s*[\"']([A-Z0-9_]+)", text)
        found |= {name for name in names if not name.endswith("_")}
        found |= {prefix + suffix for prefix in names if prefix.endswith("_") for suffix in suffixes}
    return found


@pytest.fixture(autouse=True)
def none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith((PREFIX, "FSDP_"))]:
        monkeypatch.delenv(name)


def trained() -> list[Any]:
    """Loss, gradient norm and weights of three steps of accumulated training, by the engine's accelerator."""
    torch.manual_seed(0)
    accelerator = make_accelerator("cpu", "float32", 1)
    network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    wrapped, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.1))
    told: list[Any] = []
    for _ in range(3):
        for part in torch.randn(2, 5, 4):
            with accelerator.autocast():
                loss = wrapped(part).square().mean()
            accelerator.backward(loss)
            told.append(float(loss.detach()))
        told.append(float(accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)))
        optimizer.step()
        optimizer.zero_grad()
    return [*told, *[parameter.tolist() for parameter in network.parameters()]]


def test_the_list_of_honoured_variables_is_this_one() -> None:
    assert KEPT == LAUNCH
    names = read_by_accelerate()
    assert len(names) > 35 and {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_DYNAMO_BACKEND"} <= names


@pytest.mark.parametrize("odd", ["4", "true", "bf16", "inductor"])
def test_no_other_variable_changes_a_number(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All variables at once: if one had an effect, the numbers would differ."""
    expected = trained()
    for name in read_by_accelerate() - LAUNCH:
        monkeypatch.setenv(name, odd)
    assert trained() == expected


@pytest.mark.parametrize("name", sorted(read_by_accelerate() - LAUNCH))
def test_one_variable_alone_changes_no_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained()
    monkeypatch.setenv(name, "4")
    assert trained() == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"ACCELERATE_USE_CPU": "1"}, {"ACCELERATE_TORCH_DEVICE": "cpu"}, {"ACCELERATE_CPU_AFFINITY": "0"},
    ],
)  # fmt: skip
def test_launch_and_device_are_honoured_and_recorded(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert remove_variables() == [] and kept_variables() == variables
    assert make_accelerator(None, "float32", 1).device.type == "cpu" and kept_variables() == variables
    assert trained() == expected


def test_accelerates_fsdp_is_rejected_on_a_cpu(
    vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert kept_variables() == {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    given = ("run", "--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path)
    done = vlbench(*given)
    assert done.code == 2 and not list(tmp_path.rglob("run.json"))
    assert "ACCELERATE_USE_FSDP asks for Accelerate's FSDP, which needs GPUs" in done.err and "use --fsdp" in done.err
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert kept_variables() == {"ACCELERATE_USE_FSDP": "false"}


def test_the_requested_device_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert make_accelerator("cpu", "float32", 1).device.type == "cpu"
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    with pytest.raises(VlbenchError, match="ACCELERATE_TORCH_DEVICE meta is unknown: expected cpu, cuda or mps"):
        make_accelerator(None, "float32", 1)


def test_a_malformed_flag_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "7")
    with pytest.raises(VlbenchError, match="ACCELERATE_USE_CPU is '7', neither true nor false") as caught:
        make_accelerator(None, "float32", 1)
    assert caught.value.exit_code == ExitCode.USAGE


def test_ignored_variables_are_reported_unless_they_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch` sets precision and compilation to `no` always."""
    for name, value in {"MIXED_PRECISION": "bf16", "DYNAMO_BACKEND": "no", "GRADIENT_ACCUMULATION_STEPS": "4"}.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    assert remove_variables() == ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4", "ACCELERATE_MIXED_PRECISION=bf16"]
    assert make_accelerator("cpu", "float32", 1).mixed_precision == "no"


def test_a_run_says_what_it_ignores_and_records_what_it_honours(
    vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> list[str]:
        given = ("--task", "nlvr2", "--model", "fake", "--steps", 2, "--controls", "none", "--data-root", tiny_world)
        done = vlbench("run", *given, "--output-path", tmp_path / name)
        assert done.code == 0, done.err
        (path,) = (tmp_path / name).rglob("metrics.jsonl")
        records.append(read_run(path.parent))
        return [re.sub(r'"seconds": [\d.e-]+', "", line) for line in path.read_text("utf8").splitlines()] + [done.err]

    records: list[Any] = []
    *plain, _ = run("plain")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    *other, said = run("other")
    assert other == plain and "ignored, since only" in said and "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4" in said
    assert [record.environment.accelerate for record in records] == [{}, {"ACCELERATE_USE_CPU": "true"}]
    assert records[0].fingerprint == records[1].fingerprint


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    yield


@pytest.mark.parametrize("device", [None, "cpu"])
def test_float16_on_a_cpu_is_rejected(device: str | None, no_gpu: None) -> None:
    with pytest.raises(VlbenchError, match=r"--dtype float16 needs a GPU, .* use --dtype bfloat16") as caught:
        make_accelerator(device, "float16", 1)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("command", ["run", "run --dry-run", "pretrain"])
def test_commands_reject_float16_on_a_cpu_and_leave_no_record(
    command: str, vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path
) -> None:
    task = "coco_retrieval" if command == "pretrain" else "nlvr2"
    given = ("--task", task, "--model", "fake", "--steps", 1, "--device", "cpu", "--dtype", "float16")
    done = vlbench(*command.split(), *given, "--data-root", tiny_world, "--output-path", tmp_path / "out")
    assert done.code == ExitCode.USAGE and "--dtype float16 needs a GPU" in done.err
    assert list((tmp_path / "out").rglob("run.json")) == []


def test_the_precision_of_products_is_that_of_the_last_run() -> None:
    make_accelerator("cpu", "float32", 1, "high")
    assert torch.get_float32_matmul_precision() == "high"
    make_accelerator("cpu", "float32", 1)
    assert torch.get_float32_matmul_precision() == "highest"


def test_every_precision_of_a_spec_is_known() -> None:
    assert set(PRECISION) == set(RunSpec.model_fields["dtype"].annotation.__args__)  # type: ignore[union-attr]
