from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import PIL
import pytest
from PIL import features

from vlbench.core.spec import RunSpec
from vlbench.records import provenance

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]


def test_environment_says_what_is_true() -> None:
    found = provenance.environment("cpu", 2)
    assert found.python == sys.version.split()[0]
    assert found.libraries["numpy"] == metadata.version("numpy") and "torch" in found.libraries
    assert (found.device, found.world_size, found.gpu, found.driver) == ("cpu", 2, "", "")
    assert found.cpu and found.threads >= 1


def test_what_changes_pixels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = provenance.environment("cpu", 1).libraries
    assert found["pillow"] == PIL.__version__
    assert found["pillow/libjpeg-turbo"] == features.version_feature("libjpeg_turbo")
    monkeypatch.setattr(metadata, "version", lambda name: {"torchvision": "0.99"}[name])
    monkeypatch.setattr(metadata, "PackageNotFoundError", KeyError)
    assert provenance.environment("cpu", 1).libraries["torchvision"] == "0.99"


def test_nothing_private_is_told() -> None:
    told = provenance.environment("cpu", 1).model_dump_json() + provenance.tool().model_dump_json()
    assert str(Path.home()) + os.sep not in told
    assert platform.node() not in told
    if getpass.getuser() != "root":
        assert getpass.getuser() not in told


def test_threads_are_those_torch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert provenance.environment("cpu", 1).threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert provenance.environment("cpu", 1).threads <= (os.cpu_count() or 1)


def test_gpu_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 555.1'\necho 'NVIDIA H200, 555.1'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = provenance.environment("cuda:0", 1)
    assert (found.gpu, found.driver) == ("NVIDIA H200", "555.1")
    assert provenance.environment("cpu", 1).gpu == ""
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert provenance.environment("cuda", 1).gpu == ""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert provenance.environment("cuda", 1).gpu == ""


def test_no_torch_is_imported() -> None:
    program = (
        "import sys\nfrom vlbench.records.provenance import environment, tool\n"
        "import vlbench.records.samples, vlbench.records.folder, vlbench.report.tables.results, vlbench.report.show\n"
        "environment('cpu', 1), tool()\n"
        "print(sorted({'torch', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tool_version() -> None:
    assert provenance.tool().version == metadata.version("vlbench")


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkout"
    (root / "vlbench").mkdir(parents=True)
    assert provenance._git_state(root) == ("", False)
    (root / "vlbench" / "a.py").write_text("a = 1\n")
    subprocess.run([*GIT, "init", "-q", str(root)], check=True)
    assert provenance._git_state(root) == ("", False)
    for command in (["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*GIT, "-C", str(root), *command], check=True)
    head = subprocess.run([*GIT, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = head.stdout.strip()
    assert provenance._git_state(root) == (commit, False)
    (root / "notes.txt").write_text("no code")
    assert provenance._git_state(root) == (commit, False)
    (root / "vlbench" / "new.py").touch()
    assert provenance._git_state(root) == (commit, True)
    assert provenance._git_state(root / "vlbench") == ("", False), "installed below somebody else's checkout"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance._git_state(root) == (commit, True)
    monkeypatch.setenv("PATH", "")
    assert provenance._git_state(root) == ("", False)


def test_peak_memory_is_this_process_alone() -> None:
    block = b"x" * (100 * 2**20)  # a peak of the parent that the child below must not inherit
    assert len(block) / 2**20 < provenance.peak_memory_mib()
    program = (
        "from vlbench.records.provenance import peak_memory_mib\n"
        "a = peak_memory_mib(); b = b'x' * (200 * 2**20); print(peak_memory_mib() - a)"
    )
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 180 < float(grown.stdout) < 220


def test_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    spec = RunSpec(
        task="nlvr2",
        model="/home/someone/net.py:Net",
        data_root=Path("/home/someone/data"),
        tasks_dir=Path("/srv/home/someone/tasks"),
        vocabulary=Path("/home/someone"),
        output_path=Path("runs"),
        checkpoint="/home/someone2/w.safetensors",
        seed=3,
    )
    found = provenance.portable(spec)
    assert (found.model, found.data_root, found.vocabulary) == ("~/net.py:Net", Path("~/data"), Path("~"))
    kept = ("tasks_dir", "output_path", "checkpoint", "seed", "task", "size")
    assert [getattr(found, name) for name in kept] == [getattr(spec, name) for name in kept]
    assert provenance.portable(found) == found


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [
        ("/hut", "cannot open '/hut/a b': no", "cannot open '~/a b': no"),
        ("/hut", "/data/hut/x and /huted/x and ./hut/x", "/data/hut/x and /huted/x and ./hut/x"),
        ("/hut", "a=/hut,/hut/b (/hut)", "a=~,~/b (~)"),
        ("/", "/a/b", "/a/b"),
    ],
)
def test_without_home(monkeypatch: pytest.MonkeyPatch, home: str, text: str, shown: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert provenance.without_home(text) == shown
