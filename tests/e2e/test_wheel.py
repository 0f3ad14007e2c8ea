"""What `pip install vlbench` gives: the wheel, away from the checkout, lists its tasks and runs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "vlbench", "tasks", "leaderboards")

MAIN = """
import sys
sys.path[:0] = sys.argv.pop(1).split("|")
import vlbench
print(vlbench.__file__, file=sys.stderr)
from vlbench.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel of this checkout is installed in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SHIPPED:  # a copy, because building leaves its traces where it builds
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, source / name)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    pip("install", "--no-deps", "--no-index", "--target", folder / "site", wheel)
    return folder / "site"


def run(installed: Path, here: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command line on the wheel and the environment's other packages; -S leaves its editable installs out."""
    paths = dict.fromkeys([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    command = [sys.executable, "-S", "-c", MAIN, "|".join(paths), *map(str, arguments)]
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, cwd=here, env=outside, check=False)


def test_all_that_a_package_needs_is_in_the_wheel(installed: Path) -> None:
    """Every file of the package, the tasks and the published figures that is not there to be written anew."""
    places = {"vlbench": "vlbench", "tasks": "vlbench/_tasks", "leaderboards/published": "vlbench/_published"}
    for folder, place in ((REPOSITORY / name, place) for name, place in places.items()):
        wanted = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        wanted = {path for path in wanted if "__pycache__" not in path.parts}
        missing = {str(path) for path in wanted if not (installed / place / path).is_file()}
        assert missing == set()


def test_the_wheel_lists_its_tasks(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "list", "tasks")
    assert done.returncode == 0, done.stderr
    assert Path(done.stderr.splitlines()[0]).is_relative_to(installed)
    names = {line.split()[0] for line in done.stdout.splitlines()[2:]}
    assert names == {path.parent.name for path in (REPOSITORY / "tasks").glob("*/task.yaml")}


def test_the_wheel_runs_a_task(installed: Path, tmp_path: Path, tiny_world: Path) -> None:
    arguments = ("--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--steps", 2, "--controls", "none")
    done = run(installed, tmp_path, "run", *arguments)
    assert done.returncode == 0, done.stderr
    assert Path(done.stderr.splitlines()[0]).is_relative_to(installed)
    record = tmp_path / done.stdout.splitlines()[-1] / "run.json"
    assert record.is_relative_to(tmp_path / "runs" / "nlvr2" / "fake-tiny")
    assert record.is_file()
