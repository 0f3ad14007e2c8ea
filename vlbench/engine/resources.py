"""What the model gets besides its weights: a tokenizer that fits the data, regions where it needs them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vlbench.core.examples import ImageRef
from vlbench.core.progress import Progress
from vlbench.data.cache import cache_folder
from vlbench.data.images import Pictures
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.source import StoredRegions, extract_all
from vlbench.data.regions.store import FeatureStore, store_for_tsv
from vlbench.data.resources import Resources
from vlbench.data.text import TextEncoder
from vlbench.engine.job import Examples, Job
from vlbench.engine.weights import weights_file

VOCABULARY_SIZE = 4000
"""Of a vocabulary trained on a train split, for sizes without a published one."""


def make_resources(job: Job, progress: Progress) -> Resources:
    """Tokenizer, pictures and, for region models, regions of every picture of the job."""
    regions = make_regions(job, progress) if job.card.visual == "regions" else None
    return Resources(make_text(job, progress), Pictures(), regions)


def make_text(job: Job, progress: Progress) -> TextEncoder:
    """The size's tokenizer.

    Weights bring their own. Else `bert-base-uncased` comes from `spec.vocabulary` or the hub; `own` is the world's on
    the world, and otherwise a WordPiece vocabulary trained on the train split's texts.
    """
    size, spec = job.card.sizes[job.size], job.spec
    length = size.max_text
    brought = None if spec.checkpoint == "none" else weights_file(Path(spec.checkpoint)).with_name("tokenizer.json")
    if brought is not None and brought.is_file() and spec.vocabulary is None:
        return TextEncoder.from_file(brought, length)
    if size.vocabulary == "bert-base-uncased":
        return TextEncoder.bert(spec.vocabulary, length)
    if spec.vocabulary is not None:
        return TextEncoder.from_path(spec.vocabulary, length)
    if job.task.source == "world":
        return TextEncoder.from_vocab(job.task.root.parent / "vocab.txt", length)
    progress.say(f"training a WordPiece vocabulary on the texts of split {spec.train_split!r}")
    return TextEncoder.train((example.query.text for example in job.train), VOCABULARY_SIZE, length)


def make_regions(job: Job, progress: Progress) -> StoredRegions:
    """Features from the task's TSV files; pictures without any are described by the weight-free extractor."""
    cache = cache_folder()
    stores = [
        store_for_tsv(table, cache, progress=partial(progress.step, f"reading {table.name}"))
        for table in job.task.features()
    ]
    refs = unique_refs([*job.train, *job.select, *job.report])
    missing = [ref for ref in refs if not any(ref.key in store for store in stores)]
    if missing:
        stores.append(_extracted(job, missing, cache, progress))
    return StoredRegions(stores)


def unique_refs(examples: Examples) -> list[ImageRef]:
    """Every picture of the examples once, in order of first use."""
    refs: dict[str, ImageRef] = {}
    for example in examples:
        for ref in example.query.images:
            refs.setdefault(ref.key, ref)
    return list(refs.values())


def _extracted(job: Job, refs: list[ImageRef], cache: Path, progress: Progress) -> FeatureStore:
    extractor = FlatExtractor()
    progress.say(
        f"{len(refs):,} pictures of {job.task.card.name} have no region features: extracting them with "
        f"{extractor.name}, once (kept in the cache)"
    )
    return extract_all(refs, extractor, cache, progress=partial(progress.step, "extracting regions"))
