"""What the model gets besides its weights: a tokenizer that fits the data, regions where it needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef
from vlbench.core.progress import Progress
from vlbench.core.task import Task
from vlbench.data.cache.folder import cache_folder
from vlbench.data.images.image_cache import KeptPictures
from vlbench.data.images.load import Pictures
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.source import StoredRegions, extract_all
from vlbench.data.regions.store import FeatureStore, store_for_tsv
from vlbench.data.resources import Loading, Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.job import Job
from vlbench.engine.limit import Examples
from vlbench.engine.weights.files import brought_tokenizer

VOCABULARY_SIZE = 4000
"""Of a vocabulary trained on a train split, for sizes without a published one."""


@dataclass(frozen=True)
class Material:
    """What resources are made for: a model at a size, tasks of one data root, texts to learn from, pictures to see.

    vocabulary: a file given for the tokenizer. weights: those begun with, which bring their own; None from scratch.
    loading: how a model of transformers is brought into memory. kept: GiB of resized pictures to keep in the cache;
    None keeps none.
    """

    card: ModelCard
    size: str
    tasks: Sequence[Task]
    learned: Examples
    seen: Examples
    vocabulary: Path | None
    weights: Path | None
    loading: Loading
    kept: float | None = None


def of_job(job: Job) -> Material:
    """What a run's resources are made for."""
    seen = [*job.train, *job.select, *job.report]
    spec = job.spec
    return Material(
        card=job.card,
        size=job.size,
        tasks=(job.task,),
        learned=job.train,
        seen=seen,
        vocabulary=spec.vocabulary,
        weights=job.weights,
        loading=job.loading,
        kept=spec.cache_images,
    )


def make_resources(material: Material, progress: Progress) -> Resources:
    """Tokenizer, pictures and, for region models, regions of every picture."""
    regions = make_regions(material, progress) if material.card.visual == "regions" else None
    own = material.card.sizes[material.size].vocabulary == "its own"
    pictures = KeptPictures(cache_folder() / "pictures", int(material.kept * 2**30)) if material.kept else Pictures()
    return Resources(None if own else make_text(material, progress), pictures, regions, material.loading)


def make_text(material: Material, progress: Progress) -> TextEncoder:
    """The size's tokenizer.

    Weights bring their own. Else `bert-base-uncased` comes from the given vocabulary or the hub; `own` is the world's
    on the world, and otherwise a WordPiece vocabulary trained on the texts that are learned from.
    """
    size, given = material.card.sizes[material.size], material.vocabulary
    length = size.max_text
    brought = brought_tokenizer(material.weights) if material.weights else None
    if brought is not None and given is None:
        return TextEncoder.from_path(brought, length)
    if size.vocabulary == "bert-base-uncased":
        return TextEncoder.bert(given, length)
    if given is not None:
        return TextEncoder.from_path(given, length)
    if material.tasks[0].source == "world":
        return TextEncoder.from_vocab(material.tasks[0].root.parent / "vocab.txt", length)
    progress.say("training a WordPiece vocabulary on the texts of the train split")
    return TextEncoder.train((example.query.text for example in material.learned), VOCABULARY_SIZE, length)


def make_regions(material: Material, progress: Progress) -> StoredRegions:
    """Features from the tasks' TSV files; pictures without any are described by the weight-free extractor."""
    cache = cache_folder()
    stores = [
        store_for_tsv(table, cache, progress=partial(progress.step, f"reading {table.name}"))
        for task in material.tasks
        for table in task.features()
    ]
    refs = unique_refs(material.seen)
    missing = [ref for ref in refs if not any(ref.key in store for store in stores)]
    if missing:
        stores.append(_extracted(material.tasks, missing, cache, progress))
    return StoredRegions(stores)


def unique_refs(examples: Examples) -> list[ImageRef]:
    """Every picture of the examples once, in order of first use."""
    refs: dict[str, ImageRef] = {}
    for example in examples:
        for ref in example.query.images:
            refs.setdefault(ref.key, ref)
    return list(refs.values())


def _extracted(tasks: Sequence[Task], refs: list[ImageRef], cache: Path, progress: Progress) -> FeatureStore:
    extractor, names = FlatExtractor(), ", ".join(task.card.name for task in tasks)
    progress.say(
        f"{len(refs):,} pictures of {names} have no region features: extracting them with "
        f"{extractor.name}, once (kept in the cache)"
    )
    return extract_all(refs, extractor, cache, progress=partial(progress.step, "extracting regions"))
