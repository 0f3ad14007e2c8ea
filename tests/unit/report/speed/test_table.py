from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlbench.core.profile import GalleryQuery, Memory, Parameters, ProfileRecord
from vlbench.core.record import RunRecord
from vlbench.report.speed import charts as pictures
from vlbench.report.speed.charts import left_out, save_front_chart, save_stages_chart
from vlbench.report.speed.table import speed_table
from vlbench.report.tables.markup import rounded


def test_the_table(profile: ProfileRecord) -> None:
    text = speed_table(profile)
    row = next(line for line in text.splitlines() if line.startswith("| cvlp-base"))
    cells = [part.strip() for part in row.split("|")[1:-1]]
    assert cells == [
        "cvlp-base", "region", "36 + 14", "220", "1,705", "4,020", "4,050 [3,645, 4,455]", "9", "4,060",
        "0.200 at 1", "1.00",
    ]  # fmt: skip
    assert "cvlp-base takes 40.5 [40.0, 41.0] times as long as vilt-base" in text
    assert "NOISY, do not quote: a load of 3.00" in text
    assert "unknown model" in text
    galleries = next(line for line in text.splitlines() if "cross-encoder" in line)
    assert [part.strip() for part in galleries.split("|")[3:-1]] == ["50.0", "~500"]


def test_a_hostile_name_breaks_no_table(profile: ProfileRecord) -> None:
    columns = {line.replace("\\|", "").count("|") for line in speed_table(profile).splitlines()[3:7]}
    assert columns == {12}


def test_a_name_links_nothing(profile: ProfileRecord) -> None:
    models = [
        one.model_copy(
            update={"model": "hf:@somebody/www.evil.example", "error": one.error and "see https://evil.example"}
        )
        for one in profile.models
    ]
    text = speed_table(profile.model_copy(update={"models": tuple(models), "ratios": ()}))
    assert "somebody" in text and "see `https://evil.example`" in text
    assert not re.search(r"@|://", re.sub(r"`[^`]*`", "", text))


def few(record: ProfileRecord, n: int) -> ProfileRecord:
    """The record with its first model measured only so often."""
    one, *others = record.models
    assert one.latency is not None
    latency = one.latency.model_copy(update={"model": one.latency.model.model_copy(update={"n": n})})
    return record.model_copy(update={"models": (one.model_copy(update={"latency": latency}), *others)})


def test_below_six_iterations_there_is_no_interval(profile: ProfileRecord) -> None:
    assert "4,050 (range of 5: 3,645 to 4,455)" in speed_table(few(profile, 5))
    assert "4,050 (of 1)" in speed_table(few(profile, 1))
    said = "Ratios with their range in brackets, not an interval: cvlp-base : vilt-base (n 5)."
    assert said in speed_table(few(profile, 5))
    assert "range" not in speed_table(few(profile, 6))


def test_seconds_that_were_used(profile: ProfileRecord) -> None:
    """60 s are the spec's."""
    assert "Took:" not in speed_table(profile)
    short = profile.model_copy(update={"spent": {"opening": 99.0, "latency": 60.5}})
    assert "Took: opening 99.0 s, latency 60.5 s; --max-seconds 60 is for each scenario." in speed_table(short)
    long = profile.model_copy(update={"spent": {"opening": 1.0, "latency": 70.0}})
    assert "latency 70.0 s; --max-seconds 60 is for each scenario; the minimum number of" in speed_table(long)


def test_what_no_stage_accounts_for_is_shown(profile: ProfileRecord) -> None:
    rows = [line.split("|") for line in speed_table(profile).splitlines() if "| rest " in line]
    assert [(row[1].strip(), row[3].strip()) for row in rows] == [
        ("cvlp-base", "1.00 % of the whole"),
        ("vilt-base", "1.00 % of the whole"),
    ]


def changed_latency(record: ProfileRecord, name: str, **changed: object) -> ProfileRecord:
    """The record with something else in one model's latency."""
    models = [
        one.model_copy(update={"latency": one.latency.model_copy(update=changed)})
        if one.name == name and one.latency
        else one
        for one in record.models
    ]
    return record.model_copy(update={"models": tuple(models)})


@pytest.fixture
def uneven(profile: ProfileRecord) -> ProfileRecord:
    """Stages of vilt that are slow in turn: 1 and 21 ms, so that each has a median of 2 and a mean of 10 ms."""
    latency = profile.models[1].latency
    assert latency is not None
    skewed = latency.whole.model_copy(update={"p50": 2.0, "mean": 10.0})
    whole = skewed.model_copy(update={"p50": 20.0, "mean": 25.0})
    stages = {"decode": skewed, "see": skewed}
    return changed_latency(profile, "vilt-base", stages=stages, whole=whole, rest=0.2)


def rows_of(text: str, name: str, column: str) -> dict[str, list[str]]:
    """By the second cell of a model's rows in the table that has this column: all cells from the third on."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if f"| {column} " in line)
    end = lines.index("", start)
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in lines[start:end]]
    return {row[1]: row[2:] for row in rows if row[0] == name}


def test_parts_add_up_to_the_whole_where_medians_do_not(
    uneven: ProfileRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(speed_table(uneven), "vilt-base", "stage")
    column = 3  # of these cells
    assert {stage: row[column] for stage, row in rows.items()} == {"decode": "8.00", "see": "8.00", "rest": "4.00"}
    widths: list[float] = []
    draw = Axes.barh

    def barh(self: Axes, y: object, width: list[float], **rest: object) -> object:
        widths.append(width[1])
        return draw(self, y, width, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "barh", barh)
    save_stages_chart(uneven, tmp_path)
    assert sum(widths) == pytest.approx(20.0)


def test_medians_that_do_not_add_up_are_told(profile: ProfileRecord, uneven: ProfileRecord) -> None:
    said = "vilt-base: medians of stages add up to 4.00 ms, and the median of the whole is 20.0 ms"
    assert said in speed_table(uneven) and "medians of stages add up" not in speed_table(profile)


def test_too_few_values_have_no_tail_and_no_spread(profile: ProfileRecord) -> None:
    latency = profile.models[1].latency
    assert latency is not None
    for n, shown in ((1, ["-", "-"]), (19, ["-", "0"]), (20, ["99.0", "0"])):
        stages = {"fuse": latency.stages["fuse"].model_copy(update={"n": n})}
        text = speed_table(changed_latency(profile, "vilt-base", stages=stages))
        assert rows_of(text, "vilt-base", "stage")["fuse"][1:3] == shown


def test_parameters_of_no_stage_are_in_the_rest(profile: ProfileRecord) -> None:
    held = Parameters(total=3_500_000, embeddings=0, stages={"see": 1_000_000, "other": 2_500_000})
    one, *others = profile.models
    models = (one.model_copy(update={"parameters": held}), *others)
    rows = rows_of(speed_table(profile.model_copy(update={"models": models})), "cvlp-base", "stage")
    assert rows["rest"][-1] == "2.50" and sum(float(row[-1]) for row in rows.values()) == pytest.approx(3.5)


def asking(record: ProfileRecord, **changed: object) -> ProfileRecord:
    """The record of another spec."""
    return record.model_copy(update={"spec": record.spec.model_copy(update=changed)})


def test_regions_that_are_not_charged_for_are_marked(profile: ProfileRecord) -> None:
    for mark in ("no-detector", "no detector", "without detector"):
        assert mark not in speed_table(profile)
    text = speed_table(asking(profile, detector=False))
    assert "--no-detector: the time of the detector is not counted" in text
    assert [*rows_of(text, "cvlp-base", "visual embed")] == ["region, no detector"]
    assert [*rows_of(text, "vilt-base", "visual embed")] == ["patch"]
    assert "cvlp-base (without detector) takes 40.5 [40.0, 41.0] times as long as vilt-base" in text


def test_which_stages_a_latency_is_of(profile: ProfileRecord) -> None:
    text = speed_table(asking(profile, stages=("see",)))
    assert "stages see only: latency and ratios are of these, all else of whole models" in text
    assert "alone: latency" not in speed_table(profile)


def test_a_ratio_whose_interval_holds_1_shows_no_difference(profile: ProfileRecord) -> None:
    (ratio,) = profile.ratios
    for low, doubtful in ((0.693, True), (1.01, False)):
        changed = ratio.model_copy(update={"value": 1.04, "ci95": (low, 1.14)})
        text = speed_table(profile.model_copy(update={"ratios": (changed,)}))
        (line,) = (line for line in text.splitlines() if "cvlp-base takes" in line)
        assert f"takes 1.04 [{rounded(low)}, 1.14] times as long as vilt-base" in line
        assert ("(no significant difference)" in line) is doubtful


def test_a_pair_without_a_ratio_is_named(profile: ProfileRecord) -> None:
    said = "cvlp-base : vilt-base: no ratio, as fewer than two rounds measured both"
    assert said not in speed_table(profile) and "Ratios are medians over rounds" in speed_table(profile)
    text = speed_table(profile.model_copy(update={"ratios": ()}))
    assert said in text and "Ratios are medians" not in text


def test_a_size_that_a_model_does_not_have(profile: ProfileRecord) -> None:
    assert "--size base" not in speed_table(asking(profile, size="base"))
    one, *others = profile.models
    models = (one.model_copy(update={"model": "hf:CLIPModel", "size": "hf"}), *others)
    text = speed_table(asking(profile, size="base").model_copy(update={"models": models, "ratios": ()}))
    assert "hf:CLIPModel-hf: only one size, so --size base does not apply" in text


def test_runs_of_one_name_are_counted(profile: ProfileRecord, record: RunRecord) -> None:
    runs = [run_of(record, "soho", "base"), run_of(record, "vilt", "tiny"), run_of(record, "soho", "base")]
    (line,) = left_out(profile, runs)
    assert line.endswith("not measured: 2 runs of soho-base on coco_retrieval, vilt-tiny on coco_retrieval")


def test_pictures(profile: ProfileRecord, record: RunRecord, tmp_path: Path) -> None:
    runs = [run_of(record, name, size) for name, size in (("cvlp", "base"), ("vilt", "base"), ("vilt", "tiny"))]
    paths = [*save_stages_chart(profile, tmp_path), *save_front_chart(profile, runs, tmp_path)]
    assert [path.name for path in paths] == ["stages.png", "stages.svg", "front.png", "front.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    before = [path.read_bytes() for path in paths if path.suffix == ".svg"]
    ElementTree.fromstring(before[0])
    assert save_stages_chart(profile.model_copy(update={"models": profile.models[2:]}), tmp_path) == []
    assert save_front_chart(profile, runs[2:], tmp_path) == []


def run_of(record: RunRecord, name: str, size: str, task: str = "coco_retrieval", **facts: object) -> RunRecord:
    """A run of a pretrained model on a task, with an accuracy."""
    given = {"name": task, "main_metric": "accuracy", **facts}
    update = {
        "fingerprint": f"{name} {size} {task} {facts}",
        "model": record.model.model_copy(update={"name": name, "size": size, "from_scratch": False}),
        "task": record.task.model_copy(update=given),
    }
    return record.model_copy(update=update)


def with_spec(run: RunRecord, value: float = 58.325, **changed: object) -> RunRecord:
    """The run by another spec, with another accuracy."""
    spec = run.spec.model_copy(update=changed)
    results = (run.results[0].model_copy(update={"value": value}), *run.results[1:])
    return run.model_copy(update={"spec": spec, "results": results, "fingerprint": f"{run.fingerprint} {changed}"})


def drawn(profile: ProfileRecord, runs: list[RunRecord], folder: Path) -> str:
    """All that front.svg says, without the shapes."""
    (path,) = [path for path in save_front_chart(profile, runs, folder) if path.suffix == ".svg"]
    return "\n".join(ElementTree.fromstring(path.read_text(encoding="utf-8")).itertext())


def test_the_latency_of_one_task_is_not_that_of_another(
    profile: ProfileRecord, record: RunRecord, tmp_path: Path
) -> None:
    runs = [
        run_of(record, "vilt", "base"),
        run_of(record, "vilt", "base", "flickr30k_retrieval"),  # ranks one picture too
        run_of(record, "vilt", "base", "nlvr2"),
        run_of(record, "cvlp", "base", "nlvr2"),
        run_of(record, "cvlp", "base", "a_task_of_somebodys"),
        run_of(record, "soho", "base"),
        run_of(record, "cvlp", "base").model_copy(update={"status": "failed"}),
    ]
    text = drawn(profile, runs, tmp_path)
    assert "coco_retrieval" in text and "flickr30k_retrieval" in text
    assert "nlvr2" not in text and "somebodys" not in text
    other = "since coco_retrieval was measured, which has other inputs (profile with --task "
    assert left_out(profile, runs) == [
        f"left out of the chart, {other}nlvr2): cvlp-base on nlvr2, vilt-base on nlvr2",
        f"left out of the chart, {other}a_task_of_somebodys): cvlp-base on a_task_of_somebodys",
        "left out of the chart, of models whose latency was not measured: soho-base on coco_retrieval",
        "left out of the chart, not done: cvlp-base on coco_retrieval",
    ]
    of_pairs = profile.model_copy(update={"spec": profile.spec.model_copy(update={"task": "nlvr2"})})
    text = drawn(of_pairs, runs, tmp_path)
    assert "nlvr2" in text and "retrieval" not in text


def test_labels_say_what_a_point_is_not(profile: ProfileRecord, record: RunRecord, tmp_path: Path) -> None:
    runs = [run_of(record, "cvlp", "base"), run_of(record, "vilt", "base", limit=100.0, n_scored=100)]
    assert "(without detector)" not in drawn(profile, runs, tmp_path)
    without = profile.model_copy(update={"spec": profile.spec.model_copy(update={"detector": False})})
    text = drawn(without, runs, tmp_path)
    assert "cvlp-base (without detector)" in text and "vilt-base (100 of 4,000)" in text


def points(
    profile: ProfileRecord, runs: list[RunRecord], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> dict[str, list[tuple[str, float]]]:
    """What is drawn: by the title of its field, labels and figures."""
    found: dict[str, list[tuple[str, float]]] = {}

    def keep(figure: Figure, folder: Path, name: str, title: str) -> list[Path]:
        for axes in figure.axes:
            found[axes.get_title()] = [(text.get_text(), text.xy[1]) for text in axes.texts]
        return []

    monkeypatch.setattr(pictures, "save_figure", keep)
    save_front_chart(profile, runs, folder)
    return found


def test_what_does_not_compare_shares_no_field(
    profile: ProfileRecord, record: RunRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = run_of(record, "vilt", "base")
    others = [
        with_spec(run, mode="eval"), with_spec(run, domain="natural"),
        run_of(record, "vilt", "base", version=2), run_of(record, "vilt", "base", manifest_sha256="other"),
    ]  # fmt: skip
    found = points(profile, [run, *others], monkeypatch, tmp_path)
    start = "coco_retrieval test-p (built-in world (plain)): accuracy"
    assert sorted(found) == sorted(
        [
            f"{start}\neval",
            "coco_retrieval test-p (built-in world (natural)): accuracy\nfinetune on train",
            f"{start}\nfinetune on train (version 1, data m)", f"{start}\nfinetune on train (version 2, data m)",
            f"{start}\nfinetune on train (version 1, data other)",
        ]
    )  # fmt: skip
    assert all(len(one) == 1 for one in found.values()) and left_out(profile, [run, *others]) == []


def test_seeds_are_one_point_and_other_recipes_points_of_their_own(
    profile: ProfileRecord, record: RunRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = run_of(record, "vilt", "base")
    seeds = [with_spec(run, 10.0 * seed, seed=seed) for seed in (1, 2, 6)]
    other = with_spec(run, 77.0, answers=Path("others.json"))
    (found,) = points(profile, [*seeds, other], monkeypatch, tmp_path).values()
    assert found == [
        ("vilt-base (answers none) (3 seeds)", pytest.approx(30.0)),
        ("vilt-base (answers others.json)", 77.0),
    ]
    (alone,) = points(profile, seeds, monkeypatch, tmp_path).values()
    assert [label for label, _ in alone] == ["vilt-base (3 seeds)"]


def test_every_run_that_is_not_drawn_is_named_with_its_own_reason(profile: ProfileRecord, record: RunRecord) -> None:
    run = run_of(record, "vilt", "base")
    older = with_spec(run, 1.0).model_copy(update={"fingerprint": run.fingerprint, "started": "2025-01-01T00:00:00Z"})
    assert left_out(profile, [run, older]) == ["left out of the chart, superseded: vilt-base on coco_retrieval"]
    assert left_out(profile, [run.model_copy(update={"results": ()})]) == [
        "left out of the chart, without a value of their task's main metric: vilt-base on coco_retrieval"
    ]
    assert left_out(profile, [with_spec(run, float("nan"))]) == [
        "left out of the chart, since their value is not a number: vilt-base on coco_retrieval"
    ]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "-"), (0.0, "0"), (0.0043, "0.00430"), (0.0000123, "1.23e-05"), (0.2, "0.200"), (9.996, "10.0"),
        (40.52, "40.5"), (99.96, "100"), (99.94, "99.9"), (1704.6, "1,705"), (-0.043, "-0.0430"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float | None, says: str) -> None:
    assert rounded(value) == says


def test_the_footnote_says_how_each_search_was_computed(profile: ProfileRecord) -> None:
    def footnote(*hows: str) -> str:
        queries = tuple(GalleryQuery(how=how, gallery=10**6, ms=1.0, measured=False) for how in hows)
        one = profile.models[0].model_copy(update={"retrieval": queries})
        record = profile.model_copy(update={"models": (one, *profile.models[1:])})
        return speed_table(record).partition("~ computed")[2].partition("\n")[0]

    assert "cost of a pair" in footnote("cross-encoder") and "index" not in footnote("cross-encoder")
    assert "largest index" in footnote("dual") and "pair" not in footnote("dual")
    assert "timed apart" in footnote("two-stage") and footnote() == ""


def test_memory_that_was_not_measured_is_not_counted_as_none(profile: ProfileRecord) -> None:
    memory = Memory(weights=900.0, activations=None)
    models = (profile.models[0].model_copy(update={"memory": memory}), *profile.models[1:])
    text = speed_table(profile.model_copy(update={"models": models}))
    row = next(line for line in text.splitlines() if line.startswith("| cvlp-base"))
    assert row.split("|")[-2].strip() == "-"


@pytest.mark.parametrize(("higher_is_better", "front"), [(True, {58.325, 70.0}), (False, {58.325})])
def test_the_front_improves_in_the_direction_of_the_metric(
    higher_is_better: bool,
    front: set[float],
    profile: ProfileRecord,
    record: RunRecord,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The faster of two models scores 58.325, the slower one 70."""
    fast, slow = sorted(
        (one for one in profile.models if one.latency), key=lambda one: one.latency.model.p50 if one.latency else 0.0
    )[:2]
    runs = [with_spec(run_of(record, *one.name.split("-")), value) for one, value in ((fast, 58.325), (slow, 70.0))]
    told = [
        run.model_copy(update={"results": (run.results[0].model_copy(update={"higher_is_better": higher_is_better}),)})
        for run in runs
    ]
    lines: list[set[float]] = []

    def keep(figure: Figure, folder: Path, name: str, title: str) -> list[Path]:
        lines.extend({float(y) for y in line.get_ydata()} for axes in figure.axes for line in axes.lines)
        return []

    monkeypatch.setattr(pictures, "save_figure", keep)
    save_front_chart(profile, told, tmp_path)
    assert lines == [front]
