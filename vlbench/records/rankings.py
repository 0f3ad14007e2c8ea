"""Rankings on disk: a run's `ranks.parquet`, a matrix of scores, or ranked lists of candidates.

Shapes: N images, M texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, Example
from vlbench.core.gallery import Gallery, galleries
from vlbench.core.results import Direction, Ranking
from vlbench.data.files.foreign import reading
from vlbench.data.json.document import as_list, as_object, object_at, read_json
from vlbench.metrics.ranks import ScoreMatrix, from_lists, from_matrix
from vlbench.records.parquet import read_table, write_table
from vlbench.records.score_matrix import read_matrix

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
COLUMNS = ("query_id", "direction", "rank_low", "rank_high", "positives")


def write_ranks(path: Path, rankings: Sequence[Ranking]) -> None:
    """Write `ranks.parquet` in one step: the columns are the fields of a Ranking, `top` as `top_ids` and `top_scores`.
    Raises DataError: the file cannot be written (exit 5); an old one stays as it was.
    """
    import pyarrow as pa

    columns = {
        name: pa.array([getattr(item, name) for item in rankings], pa.int64() if number > 1 else pa.string())
        for number, name in enumerate(COLUMNS)
    }
    columns["top_ids"] = pa.array([[name for name, _ in item.top] for item in rankings], pa.list_(pa.string()))
    columns["top_scores"] = pa.array([[score for _, score in item.top] for item in rankings], pa.list_(pa.float64()))
    write_table(path, pa.table(columns))


def read_rankings(path: Path, examples: Sequence[Example[Caption]]) -> list[Ranking]:
    """`read_rankings_of` without the notes, for files that rank only the candidates of these examples."""
    return read_rankings_of(path, examples)[0]


def read_rankings_of(
    path: Path, examples: Sequence[Example[Caption]], larger: Callable[[], Sequence[Example[Caption]]] = tuple
) -> tuple[list[Ranking], tuple[str, ...]]:
    """Read rankings of the examples' gallery, and notes on what was left out. The file's suffix names its format.

    `.npy`, `.npz` or `.safetensors`: scores [N, M], a row per image and a column per text, both in the order of the
    examples. `.json`: `{"i2t": {image: [text ids, best first]}, "t2i": {text id: [images]}}` with one direction
    or both. `.parquet`: a run's ranks. A list may rank the candidates of a larger gallery: all folds of the split, or a
    larger split. It is restricted to the candidates of the query's own fold, in their order, as in the official
    evaluation of COCO's five folds. A list that was cut is then shorter, and recalls beyond its end are absent.
    examples: those of the split; empty where a run's ranks need not be compared with them. larger: returns the examples
    of splits that include this one; called only if lists have unknown ids.
    Raises DataError: the file cannot be read, breaks its format, or does not fit the gallery.
    """
    match path.suffix:
        case ".npy" | ".npz" | ".safetensors":
            return list(rankings_of_scores(examples, partial(read_matrix, path))), ()
        case ".json":
            return _from_lists(path, examples, larger)
        case ".parquet":
            rankings = _from_parquet(path)
            _check_candidates(path, rankings, examples)
            return rankings, ()
    raise DataError(
        f"{path} has the suffix {path.suffix!r}: rankings come as .npy, .npz, .safetensors or .pt (scores, images by "
        f"texts), .json (lists of the best) or .parquet (a run's ranks)"
    )


def rankings_of_scores(
    examples: Sequence[Example[Caption]], read: Callable[[tuple[int, int]], ScoreMatrix]
) -> Iterator[Ranking]:
    """The rankings of each fold from the scores [N, M] of the whole split, whose folds follow each other.

    read: returns the scores of the N images and M texts that it is called with.
    """
    folds = galleries(examples)
    scores = read((sum(len(fold.images) for fold in folds), sum(len(fold.texts) for fold in folds)))
    row = column = 0
    for fold in folds:
        bottom, right = row + len(fold.images), column + len(fold.texts)
        yield from from_matrix(scores[row:bottom, column:right], fold)
        row, column = bottom, right


def _from_lists(
    path: Path, examples: Sequence[Example[Caption]], larger: Callable[[], Sequence[Example[Caption]]]
) -> tuple[list[Ranking], tuple[str, ...]]:
    content = as_object(read_json(path, unique_keys=True), str(path))
    given = [direction for direction in DIRECTIONS if direction in content]
    if not given or len(given) < len(content):
        raise DataError(f"{path} has the keys {', '.join(content) or 'none'}: expected i2t, t2i or both")
    rankings: list[Ranking] = []
    notes: list[str] = []
    for direction in given:
        lists = {
            query: [str(name) for name in as_list(names, f"{path}, {direction} of {query!r}")]
            for query, names in object_at(content, direction, str(path)).items()
        }
        restricted, cut = _restricted(lists, direction, examples, larger)
        for fold, own in restricted:
            rankings.extend(from_lists(own, direction, fold))
        notes.extend(cut)
    return rankings, tuple(notes)


def _restricted(
    lists: Mapping[str, Sequence[str]],
    direction: Direction,
    examples: Sequence[Example[Caption]],
    larger: Callable[[], Sequence[Example[Caption]]],
) -> tuple[list[tuple[Gallery, Mapping[str, Sequence[str]]]], tuple[str, ...]]:
    """Each fold with the lists of its queries, without candidates of other folds and larger splits; and notes. Ids that
    belong to no split stay, so that `from_lists` reports them.
    """
    queries, candidates = _sides(examples, direction)
    named = lists.keys() | {name for names in lists.values() for name in names}
    others = _sides(larger() if named - queries - candidates else (), direction)
    extra = lists.keys() & (others[0] - queries)
    folds: list[tuple[Gallery, Mapping[str, Sequence[str]]]] = []
    shortened = 0
    for place, fold in enumerate(galleries(examples)):
        own = _gallery_sides(fold, direction)
        elsewhere = (candidates | others[1]) - own[1]
        kept = {}
        for query, names in lists.items():
            if query in own[0] or (place == 0 and query not in queries and query not in extra):
                kept[query] = [name for name in names if name not in elsewhere]
                shortened += len(kept[query]) < len(names)
        folds.append((fold, kept))
    notes = []
    if extra:
        notes.append(f"{len(extra):,} {direction} lists of a larger split were left out: this split has no such query")
    if shortened:
        notes.append(
            f"{shortened:,} {direction} lists rank a larger gallery: only candidates of the query's own gallery count"
        )
    return folds, tuple(notes)


def _sides(examples: Sequence[Example[Caption]], direction: Direction) -> tuple[set[str], set[str]]:
    """The ids of queries and the ids of candidates in that direction."""
    images, texts = {example.reference.image for example in examples}, {example.id for example in examples}
    return (images, texts) if direction == "i2t" else (texts, images)


def _gallery_sides(gallery: Gallery, direction: Direction) -> tuple[set[str], set[str]]:
    """`_sides` of one gallery."""
    images, texts = {ref.key for ref in gallery.images}, set(gallery.text_ids)
    return (images, texts) if direction == "i2t" else (texts, images)


def _check_candidates(path: Path, rankings: Sequence[Ranking], examples: Sequence[Example[Caption]]) -> None:
    """Check that ranks were counted among the candidates of the query's gallery. Raises DataError: a query's best
    candidate is not in its gallery, or its rank exceeds the size of the gallery.
    """
    for direction in DIRECTIONS:
        galleries_of = {}
        for fold in galleries(examples):
            queries, candidates = _gallery_sides(fold, direction)
            galleries_of.update(dict.fromkeys(queries, candidates))
        for item in rankings:
            own = galleries_of.get(item.query_id) if item.direction == direction else None
            if own is None:  # the metrics report missing and extra queries
                continue
            if item.rank_high + item.positives > len(own) or not own.issuperset(name for name, _ in item.top):
                raise DataError(
                    f"{path}: {direction} ranks of {item.query_id!r} were counted among other candidates than the "
                    f"{len(own):,} of its gallery: score the split that was ranked, or give scores or lists of the best"
                )


def _from_parquet(path: Path) -> list[Ranking]:
    with reading(path, "is not a run's ranks.parquet", "run again, or give an intact file"):
        table = read_table(path)
        columns = [table.column(name).to_pylist() for name in (*COLUMNS, "top_ids", "top_scores")]
    return [_from_row(f"{path}, row {row}", *values) for row, values in enumerate(zip(*columns, strict=True), start=1)]


def _from_row(
    where: str,
    query: object,
    direction: object,
    low: object,
    high: object,
    positives: object,
    ids: Sequence[str] | None,
    scores: Sequence[float] | None,
) -> Ranking:
    whole = [value for value in (low, high, positives) if isinstance(value, int)]
    if not isinstance(query, str) or direction not in DIRECTIONS or len(whole) < 3:
        raise DataError(f"{where}: {query!r}, {direction!r}, {low!r}, {high!r}, {positives!r}: expected a ranking")
    if not 0 <= whole[0] <= whole[1] or whole[2] < 1 or len(ids or ()) != len(scores or ()):
        raise DataError(
            f"{where}: {query!r} ranks between {low} and {high} with {positives} right answers: expected 0 or more, "
            f"the first no larger than the second, and 1 or more"
        )
    top = tuple(zip(ids or (), scores or (), strict=True))
    return Ranking(query, DIRECTIONS[DIRECTIONS.index(direction)], whole[0], whole[1], whole[2], top)
