"""Captioned pictures as retrieval examples: Karpathy's files of splits, and COCO's own files of captions."""

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
"""Texts per picture: what a picture has beyond the first five is left out, as in all published figures."""

FOLD = 1000
"""Pictures per fold of the splits called `*_1k`."""

SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""Our splits -> Karpathy's: what COCO's validation set has beyond 5,000 + 5,000 pictures trains as well."""

_KNOWN = ("train", "restval", "val", "test")
_TABLES = ("karpathy", "captions")


@dataclass(frozen=True, slots=True)
class _Captioned:
    """A picture's file, the folder of the card it lies in, its captions as (id, words), and the entry it is from."""

    file: str
    folder: str
    texts: Sequence[tuple[str, str]]
    where: str


def retrieval_examples(files: SplitFiles) -> Iterator[Example[Caption]]:
    """One example per caption, in the order of the file; the id is the sentence's, the group the picture.

    The card names Karpathy's file as `karpathy` or COCO's as `captions`, and the folders of pictures. Splits called
    `*_1k` fall into folds of 1,000 consecutive pictures. Space around a caption is dropped, equal captions stay.

    Raises:
        DataError: a file that is not what its format promises, entry named.
    """
    from_coco = "captions" in files.card.files
    captioned = _coco(files.path("captions")) if from_coco else _karpathy(files.path("karpathy"), files.split)
    folders = {name: files.place(name) for name in files.card.files if name not in _TABLES}
    seen: set[str] = set()
    for number, picture in enumerate(captioned):
        ref = _reference(picture, folders)
        if ref.key in seen:  # both entries' captions would count as right for either
            raise DataError(f"{picture.where}: the picture {picture.file} comes twice: fetch the file again")
        seen.add(ref.key)
        fold = str(number // FOLD + 1) if files.split.endswith("_1k") else ""
        for name, words in picture.texts:
            yield Example(name, Query((ref,), words), Caption(ref.key, fold), ref.key)


def _reference(picture: _Captioned, folders: Mapping[str, Path]) -> ImageRef:
    file = Path(picture.file)
    if picture.folder not in folders or file.name != picture.file or not file.suffix:
        raise DataError(
            f"{picture.where}: the picture {picture.folder}/{picture.file} lies in none of the folders "
            f"{', '.join(folders)}: mend the file, or fetch it again"
        )
    return ImageRef(folders[picture.folder] / file, file.stem)


def _karpathy(path: Path, split: str) -> Iterator[_Captioned]:
    wanted = SPLITS[split.removesuffix("_1k")]
    for number, entry in enumerate(list_at(as_object(read_json(path), str(path)), "images", str(path)), start=1):
        where = f"{path}, image {number}"
        fields = as_object(entry, where)
        if one_of(fields, "split", _KNOWN, where) in wanted:
            file, sentences = text(fields, "filename", where), list_at(fields, "sentences", where)
            if len(sentences) < CAPTIONS:
                raise DataError(
                    f"{where}: {file} has {len(sentences)} captions where {CAPTIONS} are expected: fetch the file again"
                )
            folder = text(fields, "filepath", where) if "filepath" in fields else "images"
            texts = [_caption(as_object(one, where), "sentid", "raw", where) for one in sentences[:CAPTIONS]]
            yield _Captioned(file, folder, texts, where)


def _coco(path: Path) -> Iterator[_Captioned]:
    """The pictures of a `captions_*.json` that have captions, in its order, with up to five each."""
    from pycocotools.coco import COCO  # half a second, and only this format needs it

    content = as_object(read_json(path), str(path))
    pictures, _ = list_at(content, "images", str(path)), list_at(content, "annotations", str(path))
    coco = COCO()
    coco.dataset = content  # read here, because pycocotools' own reading names no fault
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is no file of COCO captions ({error!r}): fetch it again") from None
    if len(coco.imgs) < len(pictures) or coco.imgToAnns.keys() - coco.imgs:
        raise DataError(f"{path} has picture ids twice, or captions of pictures it does not list: fetch it again")
    for name, entry in coco.imgs.items():
        where = f"{path}, image {name}"
        texts = [_caption(one, "id", "caption", where) for one in coco.imgToAnns.get(name, [])[:CAPTIONS]]
        if texts:
            yield _Captioned(text(entry, "file_name", where), "images", texts, where)


def _caption(fields: Fields, name: str, words: str, where: str) -> tuple[str, str]:
    """The id and the words under these keys, without the space around them that COCO's files have."""
    return str(whole_number(fields, name, where)), text(fields, words, where).strip()
