"""A user's model and task import the modules beside them, and misnamed ones are one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.core.errors import VlbenchError
from vlbench.core.plugin_modules import import_file
from vlbench.models import fake

Call = Callable[..., Any]
MODEL = """
from vlbench.models.fake.backbone import Fake
import helper
import json, helper.inner as inner

class Mine(Fake):
    value = helper.VALUE + inner.VALUE

    def later(self):
        from helper import inner
        from .other import VALUE
        return VALUE
"""


def write(folder: Path, value: int) -> Path:
    """A model's folder with a package `helper`, a module that imports it, and one named as a library."""
    (folder / "helper").mkdir(parents=True)
    (folder / "helper" / "__init__.py").write_text(f"import other\nVALUE = other.VALUE\nSTART = {value}")
    (folder / "helper" / "inner.py").write_text("from helper import VALUE")
    (folder / "other.py").write_text(f"VALUE = {value}")
    (folder / "json.py").write_text("raise ValueError")
    card = Path(fake.__file__).with_name("model.yaml").read_text(encoding="utf8")
    (folder / "model.yaml").write_text(card, encoding="utf8")
    (folder / "my.backbone.py").write_text(MODEL)
    return folder / "my.backbone.py"


def test_helpers_of_one_name_are_those_of_each_folder(tmp_path: Path) -> None:
    first, second = (import_file(write(tmp_path / name, value)) for name, value in (("a", 1), ("b", 2)))
    assert (first.Mine.value, second.Mine.value) == (2, 4)
    assert (first.Mine.later(None), second.Mine.later(None)) == (1, 2)
    assert first.json is json and "helper" not in sys.modules and "other" not in sys.modules
    assert sys.modules[first.Mine.__module__] is first and import_file(Path(first.__file__ or "")) is first


def test_what_is_imported_is_what_the_hash_is_of(tmp_path: Path) -> None:
    file = write(tmp_path / "a", 1)
    name = f"{file}:Mine"
    before = catalog.own_sha256(catalog.model_card(name))
    assert vars(catalog.backbone_class(catalog.model_card(name)))["value"] == 2
    (file.parent / "other.py").write_text("VALUE = 3")
    assert catalog.own_sha256(catalog.model_card(name)) != before
    assert vars(catalog.backbone_class(catalog.model_card(name)))["value"] == 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{file}", "names a file without its class: give {file}:CLASS"),
        ("{file}:Nope", "has no 'Nope': --model names it, so give a class of that file"),
        ("{folder}/gone.py:Mine", "there is no file {folder}/gone.py"),
    ],
)
def test_a_misnamed_class_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    file = write(tmp_path / "a", 1)
    places = {"file": file, "folder": file.parent}
    with pytest.raises(VlbenchError) as caught:
        catalog.backbone_class(catalog.model_card(name.format(**places)))
    assert caught.value.exit_code == 2 and said.format(**places) in caught.value.message


def test_a_card_of_the_user_is_not_pretrained(vlbench: Call, tmp_path: Path) -> None:
    file = write(tmp_path / "a", 1)
    card = file.with_name("model.yaml")
    card.write_text(f"{card.read_text()}\npretrained: true\n")
    done = vlbench("run", "--task", "nlvr2", "--model", f"{file}:Mine")
    assert done.code == 2 and done.err.count("\n") == 1
    assert f"{card}: pretrained is for models of transformers" in done.err


@pytest.mark.parametrize(
    ("flags", "said"), [(("--learning-rate", 3), "did you mean --lr?"), (("--set", "learning_rate=3"), "'train.lr'?")]
)
def test_a_long_name_has_its_short_one(vlbench: Call, flags: tuple[object, ...], said: str) -> None:
    done = vlbench("run", "--task", "nlvr2", "--model", "cvlp", *flags)
    assert done.code == 2 and done.err.count("\n") == 1 and said in done.err
