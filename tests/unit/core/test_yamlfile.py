"""YAML from anywhere: values, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.validate import Frozen, parse
from vlbench.core.yamlfile import parse_yaml, read_yaml


class Card(Frozen):
    names: tuple[str, ...] = ()


def test_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: &x {a: 1}\n2: *x\n")
    for trusted in (False, True):
        assert read_yaml(tmp_path / "a.yaml", "it", trusted) == {"base": {"a": 1}, "2": {"a": 1}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"- a", "holds list"),
        (b"a: [", "is not YAML"),
        (b"[" * 100_000, "nested too deep"),
        (b"- " * 5_000, "nested too deep"),
        (b"a: 9999-99-99", "is not YAML"),
        (b"a: " + b"9" * 5000, "is not YAML"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(VlbenchError, match=said) as error:
        read_yaml(path, "the card")
    assert error.value.message.startswith("the card ") and len(error.value.message) < 500


def test_a_laugh_is_not_written_out() -> None:
    """References to references would be 10 ** 9 values, were they followed."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    values = parse_yaml("\n".join(lines), "it")
    assert isinstance(values, dict)
    with pytest.raises(VlbenchError) as error:
        parse(Card, {"names": values["a8"]}, "card")
    assert len(error.value.message) < 3000
    with pytest.raises(VlbenchError, match="an enormous number"):
        parse(Card, {"names": parse_yaml("0x" + "f" * 5000, "it")}, "card")


def test_many_faults_are_counted() -> None:
    with pytest.raises(VlbenchError, match="and 30 more"):
        parse(Card, {"names": [1] * 50}, "card")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lr: 1\nsteps: 2\nlr: 3\n", "gives the key 'lr' twice, in lines 1 and 3: leave one of them out"),
        ("a:\n  - b: {c: 1,\n      d: 2, c: 3}\n", "gives the key 'c' twice, in lines 2 and 3"),
        ("a: {b: 1, 'b': 2}", "gives the key 'b' twice, in line 1"),
        ("1: a\n\n'1': b", "gives the key '1' twice, in lines 1 and 3"),
        ("yes: a\ntrue: b", "gives the key 'true' twice, in lines 1 and 2"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x", "gives the key '<<' twice, in lines 3 and 4"),
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_key_given_twice_is_named_with_its_lines(content: str, said: str, trusted: bool, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(content)
    with pytest.raises(VlbenchError) as error:
        read_yaml(tmp_path / "card.yaml", "card.yaml", trusted)
    assert error.value.message.startswith(f"card.yaml {said}")


def test_the_same_key_in_other_mappings_and_over_a_merged_one_is_fine() -> None:
    text = "x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\nz: [{<<: *x, a: 4}, {a: 5}, *x, *x]\nw: {<<: [*x, {a: 6}], b: 7}"
    for trusted in (False, True):
        found = parse_yaml(text, "it", trusted)
        assert found == {
            "x": {"a": 1, "b": 2},
            "y": {"a": 3, "b": 2},
            "z": [{"a": 4, "b": 2}, {"a": 5}, {"a": 1, "b": 2}, {"a": 1, "b": 2}],
            "w": {"a": 1, "b": 7},
        }
