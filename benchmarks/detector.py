"""Pictures per second of the region detector over a folder of photographs, from the file to 36 regions.

Run as `python benchmarks/detector.py --pictures coco/val2017 --limit 10`. What is timed is what `vlbench data features
--extractor fasterrcnn` does with each picture: decode, scale, look, choose; with random weights, unless `--weights`
gives others. One picture comes before the clock starts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from vlbench.core.progress import Silent
from vlbench.data.images.load import open_image
from vlbench.engine.region_features import ExtractorOptions, open_detector
from vlbench.profiling.stopping_rule import median_interval

ENDINGS = (".jpg", ".jpeg", ".png")


def main() -> None:
    """Look at the pictures, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int)
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    paths = sorted(path for path in wanted.pictures.rglob("*") if path.suffix.lower() in ENDINGS)[: wanted.limit]
    if not paths:
        raise SystemExit(f"{wanted.pictures} holds no pictures: expected files that end in {', '.join(ENDINGS)}")
    detector = open_detector(ExtractorOptions("fasterrcnn", wanted.weights, device=wanted.device), Silent())
    seconds = []
    for path in (paths[0], *paths):
        begun = time.perf_counter()
        regions = detector(np.array(open_image(path)))
        seconds.append(time.perf_counter() - begun)
    report(seconds[1:], len(regions.boxes))


def report(seconds: list[float], regions: int) -> None:
    """Rate over all, and the median of one with its interval."""
    low, high = median_interval(seconds)
    print(
        f"{len(seconds)} pictures in {sum(seconds):.1f} s: {len(seconds) / sum(seconds):.3f} pictures/s, "
        f"{regions} regions each; {statistics.median(seconds):.2f} [{low:.2f}, {high:.2f}] s a picture, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
