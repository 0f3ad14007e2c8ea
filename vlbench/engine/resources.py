"""Make the resources that a model needs besides its weights: tokenizer, images, and regions for a region model."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlbench.core.cards import ModelCard
from vlbench.core.columns import queries_of, refs_of
from vlbench.core.errors import DataError
from vlbench.core.examples import Examples, ImageRef
from vlbench.core.progress import Progress
from vlbench.core.task import Task
from vlbench.data.cache.folder import CannotWrite, cache_folder
from vlbench.data.cache.index import Joined
from vlbench.data.images.image_cache import ImageCache
from vlbench.data.images.load import ImageFiles, open_image
from vlbench.data.parallel import parallel_map
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.source import StoredRegions, extract_all
from vlbench.data.regions.store import store_for_tsv
from vlbench.data.resources import Loading, Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.job import Job
from vlbench.engine.weights.files import brought_tokenizer

VOCABULARY_SIZE = 4000
"""Entries of a vocabulary trained on a train split, for sizes without a published one."""


@dataclass(frozen=True)
class ResourceSpec:
    """The inputs to `make_resources`.

    card, size: the model. tasks: of one data root. text_examples: those whose texts a new vocabulary is trained on.
    image_examples: those whose images need regions. spared: keys of images that may be unreadable: they get no regions,
    and their examples fail one by one. vocabulary: a tokenizer file given by the user. weights: the
    initial weights, which may bring a tokenizer; None from scratch. loading: how transformers loads the model.
    cache_gib: GiB of resized images to keep in the cache; None keeps none.
    """

    card: ModelCard
    size: str
    tasks: Sequence[Task]
    text_examples: Examples
    image_examples: Examples
    vocabulary: Path | None
    weights: Path | None
    loading: Loading
    cache_gib: float | None = None
    spared: Set[str] = frozenset()


def resource_spec(job: Job) -> ResourceSpec:
    """The inputs for the resources of a run."""
    spec, spared = job.spec, set[str]()
    if spec.on_error == "record":
        learned = {ref.key for ref in refs_of(Joined([job.train, job.select]))}
        spared = {ref.key for ref in refs_of(job.report)} - learned
    return ResourceSpec(
        card=job.card,
        size=job.size,
        tasks=(job.task,),
        text_examples=job.train,
        image_examples=Joined([job.train, job.select, job.report]),
        vocabulary=spec.vocabulary,
        weights=job.weights,
        loading=job.loading,
        cache_gib=spec.cache_images,
        spared=spared,
    )


def make_resources(spec: ResourceSpec, progress: Progress) -> Resources:
    """Tokenizer, image loader and, for region models, the regions of every image."""
    regions = make_regions(spec, progress) if spec.card.visual == "regions" else None
    own = spec.card.sizes[spec.size].vocabulary == "its own"
    gib = spec.cache_gib
    images = ImageCache(cache_folder() / "pictures", int(gib * 2**30)) if gib else ImageFiles()
    return Resources(None if own else make_tokenizer(spec, progress), images, regions, spec.loading)


def make_tokenizer(spec: ResourceSpec, progress: Progress) -> TextEncoder:
    """The tokenizer of the model's size.

    Weights bring their own. Otherwise `bert-base-uncased` is the given vocabulary or the hub's; `own` is the given
    vocabulary, else the world's on synthetic data, else a WordPiece vocabulary trained on the texts of the examples.
    """
    size, given = spec.card.sizes[spec.size], spec.vocabulary
    length = size.max_text
    brought = brought_tokenizer(spec.weights) if spec.weights else None
    if brought is not None and given is None:
        return TextEncoder.from_path(brought, length)
    if size.vocabulary == "bert-base-uncased":
        return TextEncoder.bert(given, length)
    if given is not None:
        return TextEncoder.from_path(given, length)
    if spec.tasks[0].source == "world":
        return TextEncoder.from_vocab(spec.tasks[0].root.parent / "vocab.txt", length)
    progress.say("training a WordPiece vocabulary on the texts of the train split")
    return TextEncoder.train((query.text for query in queries_of(spec.text_examples)), VOCABULARY_SIZE, length)


def make_regions(spec: ResourceSpec, progress: Progress) -> StoredRegions:
    """Regions from the tasks' TSV files; for images without any, the extractor without weights computes them."""
    cache = cache_folder()
    wait = partial(progress.say, "waiting for another process that caches the same region features")
    stores = [
        store_for_tsv(table, cache, progress=partial(progress.step, f"reading {table.name}"), on_wait=wait)
        for task in spec.tasks
        for table in task.features()
    ]
    refs = unique_refs(spec.image_examples)
    missing = [ref for ref in refs if not any(ref.key in store for store in stores)]
    unreadable = _unreadable([ref for ref in missing if ref.key in spec.spared])
    missing = [ref for ref in missing if ref.key not in unreadable]
    if missing:
        extractor, names = FlatExtractor(), ", ".join(task.card.name for task in spec.tasks)
        progress.say(
            f"{len(missing):,} images of {names} have no region features: extracting them with "
            f"{extractor.name}, once (kept in the cache)"
        )
        try:
            stores.append(extract_all(missing, extractor, cache, partial(progress.step, "extracting regions"), wait))
        except CannotWrite as error:
            progress.say(f"{error.message}; until then, every process extracts regions again when it needs them")
            return StoredRegions(stores, extractor)
        if unreadable:
            return StoredRegions(stores, extractor)  # which names what is wrong with such an image
    return StoredRegions(stores)


def _unreadable(refs: Sequence[ImageRef]) -> set[str]:
    """The keys of the images that cannot be read."""
    return {ref.key for ref, readable in zip(refs, parallel_map(_is_readable, refs), strict=True) if not readable}


def _is_readable(ref: ImageRef) -> bool:
    try:
        open_image(ref.path)
    except DataError:
        return False
    return True


def unique_refs(examples: Examples) -> list[ImageRef]:
    """Every image of the examples once, in order of first use."""
    refs: dict[str, ImageRef] = {}
    for ref in refs_of(examples):
        refs.setdefault(ref.key, ref)
    return list(refs.values())
