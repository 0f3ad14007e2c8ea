"""CPU time of converting region features from LXMERT's TSV to a store, compared with bare decoding.

Run as `python benchmarks/regions.py`. Both sides read the same generated file of 36 regions with 2,048 features per
image in one process, in turn. Bare decoding splits lines and turns base64 into arrays, which it discards; the store
also checks every field, and writes, hashes and syncs all records.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sides import RandomRegions, Side, format_spread, make_refs, measure, paired_ratios

from vlbench.data.regions.store import FeatureStore
from vlbench.data.regions.tsv import FIELDS, read_tsv, write_tsv

QUICK = True
IMAGES = 300
_TYPES = {"objects_id": "<i8", "attrs_id": "<i8"}
"""Types of the arrays that are not float32."""


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    seconds = timings(parser.parse_args().repeats)
    for name, taken in seconds.items():
        print(f"{name}: {format_spread([1e3 * value / IMAGES for value in taken])} CPU-ms per image")
    print(f"bare decoding / store: {format_spread(paired_ratios(seconds))}")


def ratios(repeats: int) -> dict[str, list[float]]:
    """The time of bare decoding over that of the store, for each repeat."""
    return {"region TSV, bare decoding / store": paired_ratios(timings(repeats))}


def timings(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of both sides for `IMAGES` images. Stops if they read different features."""
    with tempfile.TemporaryDirectory() as folder:
        table, regions, number = Path(folder) / "regions.tsv", RandomRegions(), count()
        refs = make_refs(IMAGES)
        write_tsv(table, ((ref.key, regions.get(ref)) for ref in refs))
        first = FeatureStore.build(Path(folder) / "first", read_tsv(table), table.name).get(refs[0].key)
        if not np.array_equal(first.features.reshape(-1), decode(table)["features"]):
            raise SystemExit("the sides read different features")
        sides: dict[str, Side] = {
            "bare decoding": lambda: decode(table),
            "store": lambda: FeatureStore.build(Path(folder) / str(next(number)), read_tsv(table), table.name),
        }
        return measure(sides, repeats)


def decode(table: Path) -> dict[str, NDArray[np.generic]]:
    """Decode all arrays of all lines; return those of the first."""
    first: dict[str, NDArray[np.generic]] = {}
    with table.open("rb") as lines:
        for line in lines:
            values = dict(zip(FIELDS, line.rstrip(b"\n").split(b"\t"), strict=True))
            arrays = {
                name: np.frombuffer(base64.b64decode(values[name]), _TYPES.get(name, "<f4"))
                for name in ("boxes", "features", "objects_id", "objects_conf", "attrs_id", "attrs_conf")
            }
            first = first or arrays
    return first


if __name__ == "__main__":
    main()
