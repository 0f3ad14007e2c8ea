"""Region features of a split for `vlbench data features`, by the flat extractor or by the detector."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from vlbench.core.errors import DataError, VlbenchError, first_five, unknown
from vlbench.core.examples import ImageRef
from vlbench.core.progress import Progress
from vlbench.core.task import Task
from vlbench.data.cache.folder import cache_folder
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.region_cache import extract_each
from vlbench.data.regions.source import extract_all
from vlbench.data.regions.tsv import write_tsv
from vlbench.data.regions.types import Regions
from vlbench.engine.resources import unique_refs
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.weights.files import weights_file, weights_sha256
from vlbench.engine.weights.state_dict import read_state
from vlbench.models.detector.checkpoint import load_network
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.extractor import DetectorExtractor
from vlbench.models.detector.network import random_network

EXTRACTORS = ("flat", "fasterrcnn")
MOST_REGIONS = 300
"""The number of region proposals."""
ExtractRegions: TypeAlias = Callable[[Sequence[ImageRef], Callable[[int, int], None]], Iterable[tuple[str, Regions]]]
"""A function of images and a progress callback (done, total); returns key and regions of each image, in order."""


@dataclass(frozen=True)
class ExtractorOptions:
    """The options of an extractor.

    weights: a file, or "none" for random ones. regions: a number "36", or a range "10-100". weights, regions and device
    are options of `fasterrcnn` only; None if not given.
    """

    extractor: str = "flat"
    weights: str | None = None
    regions: str | None = None
    device: str | None = None


def make_extractor(options: ExtractorOptions, progress: Progress) -> ExtractRegions:
    """A function that computes regions of images.

    Raises:
        VlbenchError: an unknown extractor, an option that it does not have, unsuitable weights or device.
    """
    if options.extractor not in EXTRACTORS:
        raise unknown("extractor", options.extractor, EXTRACTORS)
    if options.extractor == "fasterrcnn":
        detector = open_detector(options, progress)
        return lambda refs, step: extract_each(refs, detector, cache_folder(), step)
    for name in ("weights", "regions", "device"):
        if getattr(options, name) is not None:
            raise VlbenchError(f"--{name} is an option of --extractor fasterrcnn: leave it out, or choose that")
    return _extract_flat


def open_detector(options: ExtractorOptions, progress: Progress) -> DetectorExtractor:
    """The detector with its weights, on its device. Raises VlbenchError as `make_extractor` does."""
    rules = _parse_regions(options.regions or "36")
    if options.weights is None:
        raise VlbenchError("--extractor fasterrcnn has no weights: give --weights FILE, or none for random ones")
    device = make_accelerator(options.device, "float32").device
    if options.weights == "none":
        progress.say("fasterrcnn has RANDOM weights: its features are good for measuring time only")
        return DetectorExtractor(random_network(Layout(), rules), "random-0", device)
    file = weights_file(Path(options.weights), "--weights")
    network, unused = load_network(read_state(file), rules, str(file))
    if unused:
        progress.say(f"{file}: {len(unused)} tensors are not used: {first_five(unused)}")
    return DetectorExtractor(network, weights_sha256(file), device)


def find_output_files(folder: Path, splits: Sequence[str], overwrite: bool) -> dict[str, Path]:
    """The file of each split, in LXMERT's format: `folder/<split>.tsv`; a VlbenchError if one would be overwritten."""
    paths = {split: folder / f"{split}.tsv" for split in splits}
    existing = [str(path) for path in paths.values() if path.exists()]
    if existing and not overwrite:
        raise VlbenchError(f"{first_five(existing)} would be lost: give another --output, or --overwrite")
    return paths


def write_features(task: Task, split: str, path: Path, extract: ExtractRegions, progress: Progress) -> int:
    """Write the regions of the split's images to a file; return their number, or raise a DataError."""
    refs = unique_refs(task.load(split))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {path.parent} ({error.strerror}): give another --output") from None
    write_tsv(path, extract(refs, partial(progress.step, f"extracting regions of {split}")))
    return len(refs)


def _parse_regions(regions: str) -> Rules:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", regions)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most <= MOST_REGIONS:
        raise VlbenchError(
            f"--regions {regions} is invalid: expected a number like 36 or a range like 10-100, up to 300"
        )
    return Rules(least=least, most=most)


def _extract_flat(refs: Sequence[ImageRef], step: Callable[[int, int], None]) -> Iterable[tuple[str, Regions]]:
    store = extract_all(refs, FlatExtractor(), cache_folder(), step)
    return ((ref.key, store.get(ref.key)) for ref in refs)
