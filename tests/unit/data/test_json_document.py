import gzip

import pytest

from vlbench.core.errors import DataError
from vlbench.data.json.document import as_list, as_object, list_at, object_at, read_json, whole_number


def written(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("content", ['{"é": [1, null]}', '\ufeff\r\n{"é":\r[1,\nnull]}\r\n'])
def test_a_document_is_read_whatever_its_line_ends(tmp_path, content):
    assert read_json(written(tmp_path, content)) == {"é": [1, None]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"file\.json: not JSON \(Expecting value"),
        ('{"a": ', r"file\.json: not JSON \(Expecting value: line 1 column 7"),
        ('{"a": 1}\n{"a": 2}', r"not JSON \(Extra data: line 2"),
        ('{"a": NaN}', r"not JSON \(NaN is not a JSON number\)"),
        ("[-Infinity]", r"not JSON \(-Infinity is not a JSON number\)"),
        ("[" * 100_000, r"not JSON \(.*recursion"),
        (b'{"a": "\xff"}', r"file\.json: not UTF-8 \(invalid start byte at byte 7\)"),
        (gzip.compress(b"{}", mtime=0), r"file\.json is compressed by gzip .*: unpack it"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_json(written(tmp_path, content))


@pytest.mark.parametrize("name", [".", "absent.json"])
def test_unreadable_files_are_named(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot read .*: give a readable file"):
        read_json(tmp_path / name)


def test_what_is_expected_is_handed_on():
    assert as_object({"a": 1}, "w") == object_at({"b": {"a": 1}}, "b", "w") == {"a": 1}
    assert as_list([1], "w") == list_at({"b": [1]}, "b", "w") == [1]
    assert [whole_number({"b": number}, "b", "w") for number in (0, 10**30)] == [0, 10**30]


@pytest.mark.parametrize(
    ("getter", "message"),
    [
        (lambda: as_object([1], "f, entry 3"), r"f, entry 3: \[1\] is found where a JSON object is expected"),
        (lambda: as_list("x" * 10**5, "f"), r"f: 'x+\.\.\.x+' is found where a JSON list is expected"),
        (lambda: object_at({"b": None}, "b", "f"), r"f: 'b' is None where a JSON object is expected"),
        (lambda: list_at({}, "b", "f"), r"f: 'b' is missing where a JSON list is expected"),
        *(
            (lambda value=value: whole_number({"b": value}, "b", "f"), r"f: 'b' is .* where a whole number is expected")
            for value in (-1, True, 1.0, "1", None)
        ),
    ],
)
def test_anything_else_is_named_shortly(getter, message):
    with pytest.raises(DataError, match=message) as caught:
        getter()
    assert len(caught.value.message) < 200
