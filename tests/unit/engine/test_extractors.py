"""Which extractor `vlbench data features` takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.progress import Silent
from vlbench.engine import extractors
from vlbench.engine.extractors import Choice, describer, open_detector
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.network import random_network


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def weights(tiny_detector: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_detector.save(tmp_path_factory.mktemp("detector") / "tiny.bin"))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice("fastercnn"), "unknown extractor 'fastercnn': did you mean 'fasterrcnn'"),
        (Choice("flat", weights="none"), "--weights is an option of --extractor fasterrcnn"),
        (Choice("flat", regions="36"), "--regions is an option"),
        (Choice("flat", device="cpu"), "--device is an option"),
        (Choice("fasterrcnn"), "give --weights FILE, or none for random ones"),
        (Choice("fasterrcnn", "nowhere.bin"), "--weights nowhere.bin holds no weights"),
        (Choice("fasterrcnn", "none", device="tpu"), "--device tpu is unknown"),
        *((Choice("fasterrcnn", "none", regions), f"--regions {regions} is no number") for regions in
          ("0", "301", "100-10", "ten", "10-", "-5", "10-301")),
    ],
)  # fmt: skip
def test_what_is_refused(choice: Choice, expected: str) -> None:
    with pytest.raises(VlbenchError, match=expected.replace(".", r"\.")):
        describer(choice, Silent())


def test_weights_of_a_file(weights: Path, tmp_path: Path) -> None:
    heard = Heard()
    detector = open_detector(Choice("fasterrcnn", str(weights), "10-100", "cpu"), heard)
    assert (detector.network.rules.least, detector.network.rules.most, detector.dim) == (10, 100, 128)
    assert heard.lines == [f"{weights}: 1 tensors have no use here: roi_heads.box_predictor.bbox_pred.weight"]
    again = open_detector(Choice("fasterrcnn", str(weights), device="cpu"), Silent())
    assert again.network.rules == Rules(pooling="max")
    assert again.name != detector.name


def test_random_weights_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Layout(blocks=(1, 1, 1, 1), width=4, rpn_width=8, classes=3, attributes=3)
    monkeypatch.setattr(extractors, "random_network", lambda layout, rules: random_network(tiny, rules))
    heard = Heard()
    detector = open_detector(Choice("fasterrcnn", "none", device="cpu"), heard)
    assert "RANDOM weights" in heard.lines[0]
    assert detector.name.endswith("-random-0")
    assert detector.network.rules == Rules()
