"""Names out of one flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.cli.spec import split_models
from vlbench.core.errors import VlbenchError


def test_a_comma_in_a_path_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "backbone.py").touch()
    for model in (f"hf:{tmp_path}/a,b", f"{tmp_path}/a,b/backbone.py:Mine"):
        assert split_models(model) == [model]
    assert split_models(f"hf:{tmp_path},vilt") == [f"hf:{tmp_path}", "vilt"]
    assert split_models("cvlp, vilt") == ["cvlp", "vilt"]


@pytest.mark.parametrize("text", ["hf:absent,", "cvlp,cvlp"])
def test_names_that_are_empty_or_twice(text: str) -> None:
    with pytest.raises(VlbenchError, match="--model"):
        split_models(text)
