"""What `vlbench data features` describes pictures with: the weight-free extractor, or the detector."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from vlbench.core.errors import VlbenchError, first_five, unknown
from vlbench.core.examples import ImageRef
from vlbench.core.progress import Progress
from vlbench.data.cache.folder import cache_folder
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.region_cache import extract_each
from vlbench.data.regions.source import extract_all
from vlbench.data.regions.types import Regions
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.weights.files import weights_file, weights_sha256
from vlbench.engine.weights.state_dict import read_state
from vlbench.models.detector.checkpoint import load_network
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.extractor import DetectorExtractor
from vlbench.models.detector.network import FasterRCNN, random_network

EXTRACTORS = ("flat", "fasterrcnn")
MOST_REGIONS = 300
"""As many as there are proposals."""
Describe: TypeAlias = Callable[[Sequence[ImageRef], Callable[[int, int], None]], Iterable[tuple[str, Regions]]]
"""Pictures, and who is told how many are done -> key and regions of each, in order."""


@dataclass(frozen=True)
class Choice:
    """What was asked for. weights: a file, or "none" for random ones. regions: "36", or a range "10-100".

    The last three are of `fasterrcnn` alone; None where nothing was said.
    """

    extractor: str = "flat"
    weights: str | None = None
    regions: str | None = None
    device: str | None = None


def describer(choice: Choice, progress: Progress) -> Describe:
    """What describes pictures as chosen.

    Raises:
        VlbenchError: no such extractor, an option that it does not have, no weights said, weights that do not fit, or
            a device that is not there.
    """
    if choice.extractor not in EXTRACTORS:
        raise unknown("extractor", choice.extractor, EXTRACTORS)
    if choice.extractor == "fasterrcnn":
        return _by_detector(open_detector(choice, progress))
    for name in ("weights", "regions", "device"):
        if getattr(choice, name) is not None:
            raise VlbenchError(f"--{name} is an option of --extractor fasterrcnn: leave it out, or choose that")
    return _flat


def open_detector(choice: Choice, progress: Progress) -> DetectorExtractor:
    """The detector with its weights, on its device. Raises VlbenchError as `describer` does."""
    rules = _rules(choice.regions or "36")
    if choice.weights is None:
        raise VlbenchError("--extractor fasterrcnn has no weights: give --weights FILE, or none for random ones")
    device = make_accelerator(choice.device, "float32").device
    if choice.weights == "none":
        progress.say("fasterrcnn has RANDOM weights: its features tell how long it takes, not what is in a picture")
        return DetectorExtractor(random_network(Layout(), rules), "random-0", device)
    file = weights_file(Path(choice.weights), "--weights")
    return DetectorExtractor(_loaded(file, rules, progress), weights_sha256(file), device)


def _loaded(file: Path, rules: Rules, progress: Progress) -> FasterRCNN:
    network, unused = load_network(read_state(file), rules, str(file))
    if unused:
        progress.say(f"{file}: {len(unused)} tensors have no use here: {first_five(unused)}")
    return network


def _rules(regions: str) -> Rules:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", regions)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most <= MOST_REGIONS:
        raise VlbenchError(f"--regions {regions} is no number: expected 36, or a range like 10-100, of 1 to 300")
    return Rules(least=least, most=most)


def _flat(refs: Sequence[ImageRef], told: Callable[[int, int], None]) -> Iterable[tuple[str, Regions]]:
    store = extract_all(refs, FlatExtractor(), cache_folder(), told)
    return ((ref.key, store.get(ref.key)) for ref in refs)


def _by_detector(extractor: DetectorExtractor) -> Describe:
    return lambda refs, told: extract_each(refs, extractor, cache_folder(), told)
