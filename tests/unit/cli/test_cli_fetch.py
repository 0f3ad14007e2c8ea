"""`vlbench data list` and `data fetch` on a task of one's own, whose files lie on a server on this machine."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlbench import catalog
from vlbench.core.errors import ExitCode
from vlbench.core.progress import Silent
from vlbench.data.files.fetch import fetch, places

Run = Callable[..., Any]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{http_server.server_port}"
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture
def tasks(server: tuple[Path, str], tmp_path: Path) -> Path:
    folder, url = server
    with zipfile.ZipFile(folder / "pictures.zip", "w") as packed:
        packed.writestr("pictures/a.txt", "a")
    (folder / "train.json").write_text("{}")
    card = catalog.task_card("nlvr2").model_dump(mode="json", exclude_defaults=True) | {"name": "mine"}
    task = tmp_path / "tasks" / "mine"
    task.mkdir(parents=True)
    (task / "task.yaml").write_text(yaml.safe_dump(card))
    sources = [
        {"url": f"{url}/train.json", "to": "mine", "gives": ["train.json"]},
        {"url": f"{url}/pictures.zip", "to": "shared/mine", "gives": ["pictures"], "unpack": True},
        {"url": f"{url}/more.json", "to": "mine", "gives": ["more.json"], "optional": True},
    ]
    (task / "downloads.yaml").write_text(yaml.safe_dump({"sources": sources}))
    return tmp_path / "tasks"


def test_names_with_blanks_and_doubles(vlbench: Run) -> None:
    assert vlbench("data", "list", "--task", "nlvr2, vqa2").code == 0
    assert vlbench("data", "fetch", "nlvr2, vqa2", "--dry-run").code == 0
    for asked in (("list", "--task", "nlvr2,nlvr2"), ("fetch", "nlvr2,nlvr2", "--dry-run")):
        done = vlbench("data", *asked)
        assert done.code == 2 and "names nlvr2 more than once" in done.err


def test_what_is_missing_is_fetched_once(vlbench: Run, tasks: Path, server: tuple[Path, str], tmp_path: Path) -> None:
    place = ("--data-root", tmp_path / "data", "--tasks-dir", tasks)
    listed = vlbench("data", "list", "--task", "mine", "--json", *place)
    assert [row["state"] for row in json.loads(listed.out)["files"]] == ["missing"] * 3
    dry = vlbench("data", "fetch", "mine", "--dry-run", *place)
    assert dry.code == 0 and dry.out.count("would fetch") == 2 and not (tmp_path / "data").exists()
    assert vlbench("data", "fetch", "mine", "--quiet", *place).code == 0
    data = tmp_path / "data"
    files = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())
    assert [name for name in files if not name.startswith(".vlbench/")] == [
        "mine/train.json", "shared/mine/pictures/a.txt",
    ]  # fmt: skip
    (server[0] / "train.json").write_text("changed")
    assert vlbench("data", "fetch", "mine", "--quiet", *place).code == 0
    assert (data / "mine" / "train.json").read_text() == "{}"
    listed = vlbench("data", "list", "--task", "mine", "--json", *place)
    states = {row["files"]: row["state"] for row in json.loads(listed.out)["files"]}
    assert states == {"train.json": "there", "pictures": "there", "more.json": "missing"}


def test_two_commands_at_once_fetch_once(
    vlbench: Run, tasks: Path, server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, both = [], threading.Event()
    serve = Quiet.do_GET

    def slow(handler: Quiet) -> None:
        asked.append(handler.path)
        both.wait(10)  # until the second command waits
        serve(handler)

    class Said(Silent):
        def say(self, line: str) -> None:
            both.set()
            said.append(line)

    said: list[str] = []
    monkeypatch.setattr(Quiet, "do_GET", slow)
    place = next(place for place in places(catalog.task_sources("mine", tasks), tmp_path / "data"))
    threads = [threading.Thread(target=fetch, args=(place, Said())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["/train.json"] and said == ["waiting for another process that is fetching train.json"]
    assert (tmp_path / "data" / "mine" / "train.json").read_text() == "{}"


def test_an_archive_that_was_not_unpacked_to_its_end_is_unpacked_again(
    vlbench: Run, tasks: Path, server: tuple[Path, str], tmp_path: Path
) -> None:
    place = ("--quiet", "--data-root", tmp_path / "data", "--tasks-dir", tasks)
    folder = tmp_path / "data" / "shared" / "mine"
    (folder / "pictures").mkdir(parents=True)  # moved before the process was killed
    (folder / ".unpacking-pictures.zip").mkdir()
    shutil.copy(server[0] / "pictures.zip", folder)
    (tmp_path / "data" / "mine").mkdir()
    for name in ("train.json", "train.json.part.json"):  # killed between rename and deletion
        (tmp_path / "data" / "mine" / name).write_text("{}")
    assert vlbench("data", "fetch", "mine", *place).code == 0
    assert (folder / "pictures" / "a.txt").read_text() == "a"
    assert [path.name for path in folder.iterdir()] == ["pictures"]
    assert [path.name for path in (tmp_path / "data" / "mine").iterdir()] == ["train.json"]


def test_a_file_that_changed_at_its_source_is_named(
    vlbench: Run, tasks: Path, server: tuple[Path, str], tmp_path: Path
) -> None:
    place = ("--quiet", "--data-root", tmp_path / "data", "--tasks-dir", tasks)
    assert vlbench("data", "fetch", "mine", *place).code == 0
    (tmp_path / "data" / "mine" / "train.json").unlink()
    (server[0] / "train.json").write_text("{} ")
    done = vlbench("data", "fetch", "mine", *place)
    assert done.code == ExitCode.DATA and "train.json is not the file of its first download any more" in done.err
    (note,) = (tmp_path / "data" / ".vlbench" / "downloads").glob("train.json.*.json")
    assert f"delete {note}" in done.err
    note.unlink()
    assert vlbench("data", "fetch", "mine", *place).code == 0


def test_nothing_is_written_through_a_link_out_of_the_data_root(vlbench: Run, tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(tmp_path / "elsewhere")
    done = vlbench("data", "fetch", "mine", "--quiet", "--data-root", tmp_path / "data", "--tasks-dir", tasks)
    assert done.code == ExitCode.DATA and "data/mine is a link that leads out of" in done.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_that_fails_leaves_the_others(vlbench: Run, tasks: Path, tmp_path: Path) -> None:
    place = ("--data-root", tmp_path / "data", "--tasks-dir", tasks)
    done = vlbench("data", "fetch", "mine", "--optional", "--quiet", *place)
    assert done.code == ExitCode.DATA
    assert "more.json answers 404" in done.err
    assert (tmp_path / "data/mine/train.json").is_file() and (tmp_path / "data/shared/mine/pictures/a.txt").is_file()


def test_an_archive_without_what_it_should_give(
    vlbench: Run, tasks: Path, server: tuple[Path, str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(server[0] / "pictures.zip", "w") as packed:
        packed.writestr("photos/a.txt", "a")
    done = vlbench("data", "fetch", "mine", "--quiet", "--data-root", tmp_path / "data", "--tasks-dir", tasks)
    assert done.code == ExitCode.DATA and "does not hold pictures" in done.err


def test_what_is_handed_out_on_request_is_explained(vlbench: Run, tmp_path: Path) -> None:
    done = vlbench("data", "fetch", "flickr30k_retrieval", "--only", "flickr30k*", "--data-root", tmp_path)
    assert done.code == ExitCode.DATA and "fill in the form" in done.out


def test_nothing_matches(vlbench: Run, tmp_path: Path) -> None:
    done = vlbench("data", "fetch", "nlvr2", "--only", "*.xyz", "--data-root", tmp_path)
    assert done.code == ExitCode.USAGE and "matches no file of nlvr2" in done.err


@pytest.mark.parametrize("task", sorted(catalog.task_folders()))
def test_fetched_files_lie_where_the_card_looks(task: str) -> None:
    card, sources = catalog.task_card(task), catalog.task_sources(task)
    given = {f"{source.to}/{name}" for source in sources for name in source.gives}
    split = card.splits[card.train_split]
    for name, candidates in split.files.items():
        if name in split.optional:
            continue
        roots = (task, *card.siblings)
        expected = {f"{root}/{path.split('/{')[0]}" for root in roots for path in candidates}
        below = {place for place in expected for one in given if place == one or place.startswith(f"{one}/")}
        assert below or any(one.startswith(f"{place}/") for place in expected for one in given), (task, name)
