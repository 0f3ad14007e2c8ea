"""The extractors of `vlbench data features`, and rejected options."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.progress import Silent
from vlbench.engine import region_features
from vlbench.engine.region_features import ExtractorOptions, make_extractor, open_detector
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
        (ExtractorOptions("fastercnn"), "unknown extractor 'fastercnn': did you mean 'fasterrcnn'"),
        (ExtractorOptions("flat", weights="none"), "--weights is an option of --extractor fasterrcnn"),
        (ExtractorOptions("flat", regions="36"), "--regions is an option"),
        (ExtractorOptions("flat", device="cpu"), "--device is an option"),
        (ExtractorOptions("fasterrcnn"), "give --weights FILE, or none for random ones"),
        (ExtractorOptions("fasterrcnn", "nowhere.bin"), "--weights nowhere.bin holds no weights"),
        (ExtractorOptions("fasterrcnn", "none", device="tpu"), "--device tpu is unknown"),
        *((ExtractorOptions("fasterrcnn", "none", regions), f"--regions {regions} is invalid") for regions in
          ("0", "301", "100-10", "ten", "10-", "-5", "10-301")),
    ],
)  # fmt: skip
def test_rejected_options(choice: ExtractorOptions, expected: str) -> None:
    with pytest.raises(VlbenchError, match=expected.replace(".", r"\.")):
        make_extractor(choice, Silent())


def test_weights_of_a_file(weights: Path, tmp_path: Path) -> None:
    heard = Heard()
    detector = open_detector(ExtractorOptions("fasterrcnn", str(weights), "10-100", "cpu"), heard)
    assert (detector.network.rules.least, detector.network.rules.most, detector.dim) == (10, 100, 128)
    assert heard.lines == [f"{weights}: 1 tensors are not used: roi_heads.box_predictor.bbox_pred.weight"]
    again = open_detector(ExtractorOptions("fasterrcnn", str(weights), device="cpu"), Silent())
    assert again.network.rules == Rules(pooling="max")
    assert again.name != detector.name


def test_random_weights_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Layout(blocks=(1, 1, 1, 1), width=4, rpn_width=8, classes=3, attributes=3)
    monkeypatch.setattr(region_features, "random_network", lambda layout, rules: random_network(tiny, rules))
    heard = Heard()
    detector = open_detector(ExtractorOptions("fasterrcnn", "none", device="cpu"), heard)
    assert "RANDOM weights" in heard.lines[0]
    assert detector.name.endswith("-random-0")
    assert detector.network.rules == Rules()
