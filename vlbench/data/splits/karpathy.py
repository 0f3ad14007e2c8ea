"""Read retrieval examples from Karpathy's split files and from COCO's own caption files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.task import SplitFiles
from vlbench.data.json.document import as_object, list_at, read_json, whole_number
from vlbench.data.json.lines import Fields, one_of, text

CAPTIONS = 5
"""Captions per image; further captions are ignored, as in all published results."""

FOLD = 1000
"""Images per fold of the splits called `*_1k`."""

SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""Our splits -> Karpathy's. `restval` is COCO's validation set without the 5,000 + 5,000 images of val and test."""

_KNOWN = ("train", "restval", "val", "test")
_TABLES = ("karpathy", "captions")


@dataclass(frozen=True, slots=True)
class _CaptionedImage:
    """An image with its captions.

    file: its name. folder: the name of its folder on the card. captions: (id, text). where: the entry, for errors.
    """

    file: str
    folder: str
    captions: Sequence[tuple[str, str]]
    where: str


def retrieval_examples(files: SplitFiles) -> Iterator[Example[Caption]]:
    """Yield one example per caption, in the order of the file; its id is that of the caption, its group the image.

    The card names Karpathy's file as `karpathy` or COCO's as `captions`, and the folders of images. Splits called
    `*_1k` have folds of 1,000 consecutive images. Captions are stripped; duplicates are not removed. Raises DataError
    if the file is not of its format; the error names the entry.
    """
    from_coco = "captions" in files.card.files
    images = _read_coco(files.path("captions")) if from_coco else _read_karpathy(files.path("karpathy"), files.split)
    folders = {name: files.place(name) for name in files.card.files if name not in _TABLES}
    names: dict[str, str] = {}
    for number, image in enumerate(images):
        ref = _image_ref(image, folders)
        if ref.key in names:  # the captions of both entries would count as correct for either
            raise DataError(f"{image.where}: {_repetition(image.file, names[ref.key])}")
        names[ref.key] = image.file
        fold = str(number // FOLD + 1) if files.split.endswith("_1k") else ""
        for name, caption in image.captions:
            yield Example(name, Query((ref,), caption), Caption(ref.key, fold), ref.key)


def _repetition(file: str, other: str) -> str:
    if file == other:
        return f"the image {file} occurs twice: restore the file, or remove one of the two entries"
    return (
        f"the images {other} and {file} differ in their endings only, and images are known by their names without "
        f"endings: rename one of the two, or remove its entry"
    )


def _image_ref(image: _CaptionedImage, folders: Mapping[str, Path]) -> ImageRef:
    file = Path(image.file)
    if image.folder not in folders or file.name != image.file or not file.suffix:
        raise DataError(
            f"{image.where}: the image {image.folder}/{image.file} is in none of the folders "
            f"{', '.join(folders)}: correct the file, or fetch it again"
        )
    return ImageRef(folders[image.folder] / file, file.stem)


def _read_karpathy(path: Path, split: str) -> Iterator[_CaptionedImage]:
    wanted = SPLITS[split.removesuffix("_1k")]
    for number, entry in enumerate(list_at(as_object(read_json(path), str(path)), "images", str(path)), start=1):
        where = f"{path}, image {number}"
        fields = as_object(entry, where)
        if one_of(fields, "split", _KNOWN, where) in wanted:
            file, sentences = text(fields, "filename", where), list_at(fields, "sentences", where)
            if (count := len(sentences)) < CAPTIONS:
                raise DataError(
                    f"{where}: {file} has {count} caption{'s' * (count != 1)} where {CAPTIONS} are expected, as in the "
                    f"official files: restore the file, or remove the image from it"
                )
            folder = text(fields, "filepath", where) if "filepath" in fields else "images"
            captions = [_caption(as_object(entry, where), "sentid", "raw", where) for entry in sentences[:CAPTIONS]]
            yield _CaptionedImage(file, folder, captions, where)


def _read_coco(path: Path) -> Iterator[_CaptionedImage]:
    """The images of a `captions_*.json` that have captions, in file order, with up to five captions each."""
    from pycocotools.coco import COCO  # takes half a second, and only this format needs it

    content = as_object(read_json(path), str(path))
    images, _ = list_at(content, "images", str(path)), list_at(content, "annotations", str(path))
    coco = COCO()
    coco.dataset = content  # read here, since the errors of pycocotools do not name the fault
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    except Exception as error:  # pycocotools raises any type of error
        raise DataError(f"{path} is not a file of COCO captions ({error!r}): fetch it again") from None
    if len(coco.imgs) < len(images) or coco.imgToAnns.keys() - coco.imgs:
        raise DataError(f"{path} has image ids twice, or captions of images that it does not list: fetch it again")
    for name, image in coco.imgs.items():
        where = f"{path}, image {name}"
        captions = [_caption(entry, "id", "caption", where) for entry in coco.imgToAnns.get(name, [])[:CAPTIONS]]
        if captions:
            yield _CaptionedImage(text(image, "file_name", where), "images", captions, where)


def _caption(fields: Fields, id_key: str, text_key: str, where: str) -> tuple[str, str]:
    """The id and the text under these keys; COCO's captions have surrounding space."""
    return str(whole_number(fields, id_key, where)), text(fields, text_key, where).strip()
