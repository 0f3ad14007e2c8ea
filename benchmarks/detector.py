"""Images per second of the region detector for a folder of photographs, from the file to 36 regions.

Run as `python benchmarks/detector.py --images coco/val2017 --limit 10`. Timed are the steps of `vlbench data features
--extractor fasterrcnn` for each image: decode, scale, run the network, choose regions; with random weights, unless
`--weights` gives others. One image is processed before the timing starts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from vlbench.core.paths import visible
from vlbench.core.progress import Silent
from vlbench.data.images.load import open_image
from vlbench.engine.region_features import ExtractorOptions, open_detector
from vlbench.profiling.stopping_rule import median_interval

ENDINGS = (".jpg", ".jpeg", ".png")


def main() -> None:
    """Run the detector on the images and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int)
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    paths = [path for path in visible(wanted.images, "**/*") if path.suffix.lower() in ENDINGS][: wanted.limit]
    if not paths:
        raise SystemExit(f"{wanted.images} has no images: expected files that end in {', '.join(ENDINGS)}")
    detector = open_detector(ExtractorOptions("fasterrcnn", wanted.weights, device=wanted.device), Silent())
    seconds = []
    for path in (paths[0], *paths):
        begun = time.perf_counter()
        regions = detector(np.array(open_image(path)))
        seconds.append(time.perf_counter() - begun)
    report(seconds[1:], len(regions.boxes))


def report(seconds: list[float], regions: int) -> None:
    """Print the rate over all images, and the median of one with its interval."""
    low, high = median_interval(seconds)
    print(
        f"{len(seconds)} images in {sum(seconds):.1f} s: {len(seconds) / sum(seconds):.3f} images/s, "
        f"{regions} regions each; {statistics.median(seconds):.2f} [{low:.2f}, {high:.2f}] s per image, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
