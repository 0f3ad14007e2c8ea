"""Weights and training state: back as they were, or not at all, and never half-written."""

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
from vlbench.engine.training.checkpoint import Best, Checkpoints, TrainState
from vlbench.engine.training.optimizer import BertAdam
from vlbench.engine.weights.files import STANDS_ON


class Net(nn.Module):
    """Named as a Learner's parts are."""

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


def test_best_weights_come_back_with_their_tokenizer(tmp_path: Path) -> None:
    text = TextEncoder.train(["a red square"], 50, 7)
    places = Checkpoints(tmp_path, text, {"model": "net", "size": "tiny"})
    one, other = Net(), Net()
    places.save_best(one)
    assert weights(one) != weights(other)
    places.load_best(other)
    assert weights(one) == weights(other)
    again = TextEncoder.from_file(tmp_path / "best" / "tokenizer.json")
    assert (again.sha256, again.max_length) == (text.sha256, 7)


def test_best_weights_must_be_complete(tmp_path: Path) -> None:
    """A file that lacks a tensor, or has one too many, is never half a learner."""
    places, net = Checkpoints(tmp_path), Net()
    whole = dict(net.state_dict())
    for damaged in ({name: whole[name] for name in whole if name != "head.bias"}, whole | {"more": torch.zeros(1)}):
        places.write_best(damaged)
        with pytest.raises(RuntimeError, match=r"head\.bias|more"):
            places.load_best(Net())


def test_a_head_on_shipped_weights_is_kept_alone_and_leaves_the_backbone(tmp_path: Path) -> None:
    places, probed, other = Checkpoints(tmp_path, names={STANDS_ON: "a" * 64}), Net(), Net()
    places.save_best(probed)
    assert set(load_file(tmp_path / "best" / "model.safetensors")) == {"head.weight", "head.bias"}
    backbone = weights(other.backbone)
    places.load_best(other)
    assert weights(other.head) == weights(probed.head) and weights(other.backbone) == backbone


@pytest.mark.parametrize("kind", [AdamW, BertAdam])
def test_the_rest_of_the_training_is_as_if_nothing_had_been(kind: type[AdamW] | type[BertAdam], tmp_path: Path) -> None:
    places = Checkpoints(tmp_path)
    net, optimizer, schedule = training(0, kind)
    average = Net()
    seed_all(1)
    for _ in range(3):
        step(net, optimizer, schedule)
    state = TrainState(step=3, selected_at=2, best=Best(2, "ema", 51.25))
    places.save_last(state, net.state_dict(), average, optimizer, schedule)
    for _ in range(3):
        step(net, optimizer, schedule)

    fresh, its_optimizer, its_schedule = training(7, kind)
    its_average = Net()
    seed_all(99)
    assert places.load_last(fresh, its_average, its_optimizer, its_schedule) == state
    assert weights(its_average) == weights(average)
    assert its_schedule.get_last_lr() == [0.1 / 4]
    for _ in range(3):
        step(fresh, its_optimizer, its_schedule)
    assert weights(fresh) == weights(net)


def test_there_may_be_nothing_to_resume(tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    places = Checkpoints(tmp_path)
    assert places.load_last(net, None, optimizer, schedule) is None
    places.save_last(TrainState(step=1), net.state_dict(), None, optimizer, schedule)
    assert places.load_last(net, None, optimizer, schedule) == TrainState(step=1)
    places.drop_last()
    assert places.load_last(net, None, optimizer, schedule) is None
    places.drop_last()


@pytest.mark.parametrize("file", ["state.json", "trainer.pt", "model.safetensors"])
def test_a_damaged_state_is_said(file: str, tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    places = Checkpoints(tmp_path)
    places.save_last(TrainState(step=1), net.state_dict(), None, optimizer, schedule)
    damaged = tmp_path / "last" / file
    damaged.write_bytes(damaged.read_bytes()[:20])
    with pytest.raises(VlbenchError, match="last") as error:
        places.load_last(net, None, optimizer, schedule)
    assert error.value.exit_code in (ExitCode.DATA, ExitCode.WEIGHTS)


@pytest.mark.parametrize("file", ["state.json", "trainer.pt", "model.safetensors"])
@pytest.mark.parametrize("left", [0, 20])
def test_of_a_damaged_one_the_one_before_is_gone_on_from(file: str, left: int, tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    places = Checkpoints(tmp_path)
    places.save_last(TrainState(step=1), net.state_dict(), None, optimizer, schedule)
    before = weights(net)
    step(net, optimizer, schedule)
    places.save_last(TrainState(step=2), net.state_dict(), None, optimizer, schedule)
    damaged = tmp_path / "last" / file
    damaged.write_bytes(damaged.read_bytes()[:left])
    assert places.load_last(net, None, optimizer, schedule) == TrainState(step=1)
    assert weights(net) == before


def test_every_process_gets_its_own_chance_back(tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    states, drawn = [], []
    for seed in (1, 2):
        seed_all(seed)
        states.append(random_state())
        drawn.append((random.random(), float(numpy.random.rand()), float(torch.rand(()))))
    Checkpoints(tmp_path).save_last(TrainState(step=1), net.state_dict(), None, optimizer, schedule, states)
    for rank, expected in (*enumerate(drawn), (2, None)):
        seed_all(3)
        Checkpoints(tmp_path).load_last(net, None, optimizer, schedule, rank)
        found = (random.random(), float(numpy.random.rand()), float(torch.rand(())))
        assert found == expected or rank == 2
    seed_all(3)
    assert found == (random.random(), float(numpy.random.rand()), float(torch.rand(())))  # there was no third one


def test_a_state_of_another_model_is_said(tmp_path: Path) -> None:
    net, optimizer, schedule = training(0)
    places = Checkpoints(tmp_path)
    places.save_last(TrainState(step=1), net.state_dict(), None, optimizer, schedule)
    with pytest.raises(
        DataError, match=r"cannot be resumed from .*: delete that folder or start over with --no-resume"
    ):
        places.load_last(Net(width=6), None, optimizer, schedule)


def test_what_cannot_be_written_leaves_the_older_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places, net = Checkpoints(tmp_path), Net()
    places.save_best(net)

    def full(tensors: dict[str, Tensor], path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DataError, match=r"cannot write .*best .*No space left"):
        places.save_best(Net())
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    kept = Net()
    places.load_best(kept)
    assert weights(kept) == weights(net)
