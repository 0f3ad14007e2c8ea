"""Weights and training state are restored exactly or not at all, and never half-written."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.runtime.randomness import random_state
from vlbench.engine.training import checkpoint
from vlbench.engine.training.atomic_folder import drop_training_state
from vlbench.engine.training.checkpoint import Best, Checkpoints, TrainState
from vlbench.engine.training.optimizer import BertAdam
from vlbench.engine.weights.files import STANDS_ON


class Net(nn.Module):
    """A module with the parts of a Learner."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5), nn.Linear(width, width))
        self.head = nn.Linear(width, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.backbone(inputs))
        return outputs


def weights(module: nn.Module) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in module.parameters()]


def training(seed: int, kind: type[AdamW] | type[BertAdam] = AdamW) -> tuple[Net, AdamW | BertAdam, LambdaLR]:
    torch.manual_seed(seed)
    net = Net()
    optimizer = kind(net.parameters(), lr=0.1, weight_decay=0.01)
    return net, optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))


def step(net: Net, optimizer: AdamW | BertAdam, schedule: LambdaLR) -> None:
    """Inputs from all three random states, dropout from torch's."""
    inputs = torch.randn(5, 3) * random.random() + float(numpy.random.rand())
    net(inputs).square().sum().backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def seed_all(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def test_best_weights_are_saved_with_their_tokenizer(tmp_path: Path) -> None:
    text = TextEncoder.train(["a red square"], 50, 7)
    checkpoints = Checkpoints(tmp_path, text, {"model": "net", "size": "tiny"})
    one, other = Net(), Net()
    checkpoints.save_best(one)
    assert weights(one) != weights(other)
    checkpoints.load_best(other)
    assert weights(one) == weights(other)
    again = TextEncoder.from_file(tmp_path / "best" / "tokenizer.json")
    assert (again.sha256, again.max_length) == (text.sha256, 7)


def test_best_weights_must_be_complete(tmp_path: Path) -> None:
    """A file that lacks a tensor, or has an extra one, is not loaded."""
    checkpoints, net = Checkpoints(tmp_path), Net()
    whole = dict(net.state_dict())
    for damaged in ({name: whole[name] for name in whole if name != "head.bias"}, whole | {"more": torch.zeros(1)}):
        checkpoints.write_best(damaged)
        with pytest.raises(RuntimeError, match=r"head\.bias|more"):
            checkpoints.load_best(Net())


def test_a_head_on_shipped_weights_is_saved_alone_and_keeps_the_backbone(tmp_path: Path) -> None:
    checkpoints, probed, other = Checkpoints(tmp_path, names={STANDS_ON: "a" * 64}), Net(), Net()
    checkpoints.save_best(probed)
    assert set(load_file(tmp_path / "best" / "model.safetensors")) == {"head.weight", "head.bias"}
    backbone = weights(other.backbone)
    checkpoints.load_best(other)
    assert weights(other.head) == weights(probed.head) and weights(other.backbone) == backbone


@pytest.mark.parametrize("kind", [AdamW, BertAdam])
def test_resumed_training_is_identical(kind: type[AdamW] | type[BertAdam], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    net, optimizer, schedule = training(0, kind)
    average = Net()
    seed_all(1)
    for _ in range(3):
        step(net, optimizer, schedule)
    state = TrainState(step=3, selected_at=2, best=Best(2, "ema", 51.25))
    checkpoints.save_last(state, net.state_dict(), average.state_dict(), optimizer.state_dict(), schedule)
    for _ in range(3):
        step(net, optimizer, schedule)

    fresh, its_optimizer, its_schedule = training(7, kind)
    its_average = Net()
    seed_all(99)
    assert checkpoints.load_last(fresh, its_average, its_optimizer, its_schedule) == state
    assert weights(its_average) == weights(average)
    assert its_schedule.get_last_lr() == [0.1 / 4]
    for _ in range(3):
        step(fresh, its_optimizer, its_schedule)
    assert weights(fresh) == weights(net)


def test_no_state_to_resume(tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load_last(net, None, optimizer, schedule) is None
    checkpoints.save_last(TrainState(step=1), net.state_dict(), None, optimizer.state_dict(), schedule)
    assert checkpoints.load_last(net, None, optimizer, schedule) == TrainState(step=1)
    drop_training_state(checkpoints.folder)
    assert checkpoints.load_last(net, None, optimizer, schedule) is None
    drop_training_state(checkpoints.folder)


@pytest.mark.parametrize("file", ["state.json", "trainer.pt", "model.safetensors"])
def test_a_damaged_state_is_an_error(file: str, tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(TrainState(step=1), net.state_dict(), None, optimizer.state_dict(), schedule)
    damaged = tmp_path / "last" / file
    damaged.write_bytes(damaged.read_bytes()[:20])
    with pytest.raises(VlbenchError, match="last") as error:
        checkpoints.load_last(net, None, optimizer, schedule)
    assert error.value.exit_code in (ExitCode.DATA, ExitCode.WEIGHTS)


@pytest.mark.parametrize("file", ["state.json", "trainer.pt", "model.safetensors"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_damaged_state_is_replaced_by_the_one_before(file: str, left: int, tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(TrainState(step=1), net.state_dict(), None, optimizer.state_dict(), schedule)
    before = weights(net)
    step(net, optimizer, schedule)
    checkpoints.save_last(TrainState(step=2), net.state_dict(), None, optimizer.state_dict(), schedule)
    damaged = tmp_path / "last" / file
    damaged.write_bytes(damaged.read_bytes()[:left])
    assert checkpoints.load_last(net, None, optimizer, schedule) == TrainState(step=1)
    assert weights(net) == before


def test_every_process_restores_its_own_random_state(tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    states, drawn = [], []
    for seed in (1, 2):
        seed_all(seed)
        states.append(random_state())
        drawn.append((random.random(), float(numpy.random.rand()), float(torch.rand(()))))
    Checkpoints(tmp_path).save_last(
        TrainState(step=1), net.state_dict(), None, optimizer.state_dict(), schedule, states
    )
    for rank, expected in (*enumerate(drawn), (2, None)):
        seed_all(3)
        Checkpoints(tmp_path).load_last(net, None, optimizer, schedule, rank)
        found = (random.random(), float(numpy.random.rand()), float(torch.rand(())))
        assert found == expected or rank == 2
    seed_all(3)
    assert found == (random.random(), float(numpy.random.rand()), float(torch.rand(())))  # there was no third one


def test_a_state_of_another_model_is_an_error(tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(TrainState(step=1), net.state_dict(), None, optimizer.state_dict(), schedule)
    with pytest.raises(
        DataError, match=r"cannot be resumed from .*: delete that folder or start over with --no-resume"
    ):
        checkpoints.load_last(Net(width=6), None, optimizer, schedule)


def test_a_failed_write_keeps_the_older_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, net = Checkpoints(tmp_path), Net()
    checkpoints.save_best(net)

    def full(tensors: dict[str, Tensor], path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DataError, match=r"cannot write .*best .*No space left"):
        checkpoints.save_best(Net())
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    kept = Net()
    checkpoints.load_best(kept)
    assert weights(kept) == weights(net)
