"""The README's tree is what is on disk, and CONTRIBUTING's examples run as they stand there."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Info string and text of each fenced block."""
    text = (REPOSITORY / page).read_text(encoding="utf8")
    return ((match["info"].strip(), match["text"]) for match in BLOCK.finditer(text))


def tree() -> list[tuple[int, str]]:
    """Depth and name of each line of the README's tree."""
    (text,) = [text for _, text in blocks("README.md") if text.startswith("vlbench/ ")]
    lines = [re.match(r"( *)([\w./]+)  ", line) for line in text.splitlines()]
    assert all(lines), "a line of the tree is a name, two spaces or more, and a comment"
    return [(len(line[1]) // 2, line[2]) for line in lines if line]


def test_every_name_of_the_tree_is_on_disk() -> None:
    above: list[str] = []
    for depth, name in tree():
        above[depth:] = [name]
        place = REPOSITORY.joinpath(*above)
        assert place.is_dir() if name.endswith("/") else place.is_file(), place


def packages(folder: Path) -> set[str]:
    return {f"{path.name}/" for path in folder.iterdir() if (path / "__init__.py").is_file()}


def test_every_package_is_in_the_tree() -> None:
    assert packages(REPOSITORY / "vlbench") <= {name for depth, name in tree() if depth == 1}


@pytest.mark.parametrize("package", ["data", "world", "report", "engine"])
def test_every_sub_package_is_in_the_tree(package: str) -> None:
    lines = tree()
    start = next(number for number, line in enumerate(lines) if line == (1, f"{package}/"))
    below = itertools.takewhile(lambda line: line[0] > 1, lines[start + 1 :])
    assert {name for _, name in below if name.endswith("/")} == packages(REPOSITORY / "vlbench" / package)


def test_the_examples_of_contributing_run(tmp_path: Path, cache: Path) -> None:
    commands: list[str] = []
    for info, text in blocks("CONTRIBUTING.md"):
        language, _, rest = info.partition(" ")
        if rest.startswith("file="):
            path = tmp_path / rest.removeprefix("file=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
        elif (language, rest) == ("sh", "run"):
            commands += text.splitlines()
    assert any("--task" in command for command in commands)
    assert any(".py:" in command for command in commands), "an example runs a model of the reader's own"
    # The commands of the environment that runs the tests, whatever else is on the path.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env={**os.environ, "PATH": search}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.startswith("vlbench run"):
            assert (tmp_path / done.stdout.splitlines()[-1] / "run.json").is_file()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/decisions.md", "docs/scale.md", "docs/ci.md"])
def test_links_and_files_named_exist(page: str) -> None:
    text = BLOCK.sub("", (REPOSITORY / page).read_text(encoding="utf8"))
    named = set(re.findall(r"`((?:docs|tests|tasks|vlbench)/[\w./]+)`", text))
    linked = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    assert [name for name in named | linked if not (REPOSITORY / name).exists()] == []
