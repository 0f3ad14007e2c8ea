"""A replaced folder is the old or the new one, whichever operation of its writer was the last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.engine.training import atomic_folder
from vlbench.engine.training.atomic_folder import previous, recover_folder, remove_folder, replace_folder


class Killed(BaseException):
    """An exception that no handler catches, as SIGKILL."""


def writer(text: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).write_text(text) for name in ("a", "b")] and None


def killed_before(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Simulate a kill before the given operation on folders. Returns the operations done so far."""
    done: list[str] = []

    def counted(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == number:
                raise Killed
            done.append(name)
            return operation(*arguments, **options)

        return call

    monkeypatch.setattr(Path, "rename", counted("rename", Path.rename))
    monkeypatch.setattr(Path, "mkdir", counted("mkdir", Path.mkdir))
    monkeypatch.setattr(atomic_folder, "flush", counted("flush", atomic_folder.flush))
    monkeypatch.setattr(shutil, "rmtree", counted("rmtree", shutil.rmtree))
    return done


@pytest.mark.parametrize("keep", [False, True])
def test_killed_before_each_operation(keep: bool, tmp_path: Path) -> None:
    for number in range(30):
        folder = tmp_path / str(number) / "last"
        replace_folder(folder, writer("1"), keep=keep)
        replace_folder(folder, writer("2"), keep=keep)
        with pytest.MonkeyPatch.context() as patch:
            done = killed_before(patch, number)
            try:
                replace_folder(folder, writer("3"), keep=keep)
            except Killed:
                pass
            else:
                assert len(done) == number > 5  # every operation has been the last one once
                return
        recover_folder(folder)
        assert {path.read_text() for path in folder.iterdir()} in ({"2"}, {"3"})
        replace_folder(folder, writer("4"), keep=keep)
        assert {path.read_text() for path in folder.iterdir()} == {"4"}
        kept = {"last", "last.before"} if keep else {"last"}
        assert {path.name for path in folder.parent.iterdir()} == kept
    pytest.fail("it does not end")


def test_the_previous_folder_is_kept(tmp_path: Path) -> None:
    for text in "123":
        replace_folder(tmp_path / "last", writer(text), keep=True)
    assert (previous(tmp_path / "last") / "a").read_text() == "2"
    remove_folder(tmp_path / "last")
    assert list(tmp_path.iterdir()) == []
