"""One declaration per option: names, old names and the values that they are given."""

from __future__ import annotations

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.options import Option, Spec, declared_options, names_in, normalise, old_names, option
from vlbench.core.profile import ProfileSpec
from vlbench.core.spec import PretrainSpec, RunSpec


class Inner(Spec):
    depth: int = option(1, "How deep.", "Training")


class Outer(Spec):
    inner: Inner = Inner()
    colour: str = option("red", "Colour.", "Data", formerly="color")
    sizes: tuple[int, ...] = option((), "Sizes.", "Data", name="size")
    any_depth: bool = option(False, "any depth.", value_of=("depth", "any"))
    plain: int = 0


def test_declared_options_of_a_spec_and_below() -> None:
    found = {known.name: known.path for known in declared_options(Outer)}
    assert found == {
        "depth": ("inner", "depth"), "colour": ("colour",), "size": ("sizes",), "any_depth": ("any_depth",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"depth": 2}, {"inner": {"depth": 2}}),
        ({"depth": 2, "inner": {}}, {"inner": {"depth": 2}}),
        ({"depth": "any"}, {"inner": {}, "any_depth": True}),
        ({"inner": {"depth": "any"}}, {"inner": {}, "any_depth": True}),
        ({"color": "blue"}, {"colour": "blue"}),
        ({"size": [1]}, {"sizes": [1]}),
        ({"any-depth": True, "plain": 1}, {"any_depth": True, "plain": 1}),
        ({"unknown-key": 1}, {"unknown_key": 1}),
    ],
)
def test_values_come_under_the_names_of_the_fields(values: dict[str, object], found: dict[str, object]) -> None:
    given = {**values}
    assert normalise(Outer, values, "x") == found
    assert values == given


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"depth": 1, "inner": {"depth": 1}}, "x: depth and inner.depth are the same setting: give one of them"),
        ({"depth": 1, "inner": None}, "x: depth: inner is None: expected keys with values"),
        ({"size": 1, "sizes": 1}, "x: size and sizes are the same setting: give one of them"),
        ({"color": 1, "colour": 1}, "x: color is the old name of colour: give colour alone"),
    ],
)
def test_a_setting_given_twice(values: dict[str, object], said: str) -> None:
    with pytest.raises(VlbenchError) as caught:
        normalise(Outer, values, "x")
    assert caught.value.message == said


def test_an_old_name_is_read_wherever_a_spec_is_made() -> None:
    assert old_names(Outer) == {"color": "colour"}
    assert Outer.model_validate({"color": "blue"}) == Outer(colour="blue")
    assert Outer.model_validate_json('{"color": "blue"}') == Outer(colour="blue")


def test_names_in_a_text() -> None:
    assert names_in("a, b") == ("a", "b")
    for text, said in (("a,", "empty name"), ("", "empty name"), ("a,b,a", "names a more than once")):
        with pytest.raises(ValueError, match=said):
            names_in(text)


@pytest.mark.parametrize("spec", [RunSpec, PretrainSpec, ProfileSpec])
def test_names_are_unlike_and_every_field_is_described(spec: type[Spec]) -> None:
    names = [known.name for known in declared_options(spec)]
    assert len(set(names)) == len(names)
    assert all(field.description for field in spec.model_fields.values())
    declared = [field for field in spec.model_fields.values() if isinstance(field.json_schema_extra, Option)]
    assert len(declared) >= len(spec.model_fields) - 2, "all but the recipe, and the options of a pretraining"


def test_values_that_refer_to_each_other_are_not_written_out() -> None:
    level: dict[str, object] = {"x": 1}
    for _ in range(40):
        level = {"a": level, "b": level}
    found = normalise(Outer, {"inner": level, "plain": level}, "x")
    assert found == {"inner": {"a": level["a"], "b": level["b"]}, "plain": found["plain"]}
