import gzip
import json
import random

import pytest

from vlbench.core.errors import DataError
from vlbench.data.json import stream as jsonstream
from vlbench.data.json.stream import elements, entries, is_list, list_entries

VALUES = [0, -12, 1.5e10, True, None, "", 'a "quoted" \\ one', "é🙂\u2028", [], [1, [2, {}]], {"a": {"b": [1.25]}}]


def written(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    ['{"é": [1, null], "b": 2}', '\ufeff\r\n{"é":\r[1,\nnull]\t,\r\n"b" : 2 }\r\n', '{"\\u00e9":[1,null],"b":2}'],
)
def test_members_come_whatever_the_gaps(tmp_path, content):
    assert list(entries(written(tmp_path, content))) == [("é", [1, None]), ("b", 2)]


@pytest.mark.parametrize("content", ["{}", " { \r\n} \n"])
def test_an_object_may_be_empty(tmp_path, content):
    assert list(entries(written(tmp_path, content))) == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_what_a_chunk_tears_is_read_whole(tmp_path, monkeypatch, chunk, indent, ascii_only):
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    toss = random.Random(2)
    content = {f"{number:03d} é": toss.sample(VALUES, 3) if number % 3 else VALUES[number % 11] for number in range(60)}
    path = written(tmp_path, json.dumps(content, indent=indent, ensure_ascii=ascii_only))
    assert list(entries(path)) == list(content.items())


def test_a_member_may_be_larger_than_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "CHUNK", 100)
    content = {"a": 1, "b": ["x" * 5000] * 40, "c": {"d": list(range(5000))}, "e": 2}
    assert dict(entries(written(tmp_path, json.dumps(content)))) == content


def test_members_come_before_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "CHUNK", 64)
    path = written(tmp_path, '{"a": 1, ' + '"b": "x", ' * 20 + "torn")
    assert next(entries(path)) == ("a", 1)


@pytest.mark.parametrize("chunk", [8, 1 << 20])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"file\.json: not JSON \(a JSON object is expected, in braces at character 0\)"),
        ("[1, 2, 3, 4, 5, 6, 7, 8, 9]", r"a JSON object is expected, in braces at character 0"),
        ('"text"', r"a JSON object is expected"),
        ("  {", r"Expecting a key or '}' at character 3"),
        ('{"a": 1, "b": ', r"Expecting value at character 14\)"),
        ('{"a": {"b": 1}, "c": {"d": 2', r"Expecting ',' delimiter at character 28\)"),
        ('{"a": "b' + "c" * 200, r"Unterminated string starting at character 6\)"),
        ('{"a": 1, "b": 2', r"Expecting ',' delimiter at character 15\)"),
        ('{"a": 1,', r"Expecting a key in double quotes at character 8\)"),
        ('{"a": 1, }' + " " * 50, r"Expecting a key in double quotes at character 9\)"),
        ('{"é": 1} {"b": 2}', r"Extra data at character 9\)"),
        ('{"a": 1}' + " " * 100 + "]", r"Extra data at character 108\)"),
        ('{"a" 1' + " " * 100, r"Expecting ':' delimiter at character 5\)"),
        ('{a: 1}', r"Expecting a key in double quotes at character 1\)"),
        ('{"a": 1, "b": [1, NaN]}', r"NaN is not a JSON number"),
        ('{"a": -Infinity}', r"-Infinity is not a JSON number"),
        ('{"a": ' + "[" * 100_000, r"not JSON \(.*recursion"),
        (b'{"a": "\xff"}' + b" " * 99, r"file\.json: not UTF-8 \(invalid start byte at byte 7\)"),
        (b'\xef\xbb\xbf{"a": "b", "c": "\xff"}', r"not UTF-8 \(invalid start byte at byte 20\)"),
        (b'{"a": "\xc3', r"not UTF-8 \(unexpected end of data at byte 7\)"),
        (gzip.compress(b"{}", mtime=0), r"file\.json is compressed by gzip .*: unpack it"),
        ('{"a": 1, "b": 2, "a": 3}', r"file\.json holds the key 'a' twice"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(tmp_path, monkeypatch, chunk, content, message):
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    with pytest.raises(DataError, match=message) as caught:
        list(entries(written(tmp_path, content)))
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("name", [".", "absent.json"])
def test_unreadable_files_are_named(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot read .*: give a readable file"):
        list(entries(tmp_path / name))


def test_a_fault_is_found_without_reading_on(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "CHUNK", 1 << 10)
    path = written(tmp_path, '{"a": 1, b: 2, ' + '"c": "\xff", ' * 1000)
    with pytest.raises(DataError, match="Expecting a key in double quotes at character 9"):
        list(entries(path))


def test_an_endless_member_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "LONGEST_MEMBER", 1 << 20)
    path = written(tmp_path, '{"a": 1, "b": "' + "x" * (4 << 20) + '"}')
    with pytest.raises(DataError, match="an entry of more than 1,048,576 characters at character 8"):
        dict(entries(path))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_elements_of_a_list_come_one_by_one(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    content = {"info": {"list": [1]}, "list": VALUES, "other": [2]}
    members = {}
    assert list(list_entries(written(tmp_path, json.dumps(content, indent=indent)), "list", members)) == VALUES
    assert members == content | {"list": []}
    assert list(elements(written(tmp_path, json.dumps(VALUES, indent=indent)))) == VALUES


def test_a_list_is_read_no_further_than_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "CHUNK", 64)
    path = written(tmp_path, '{"a": 1, "list": [{"b": 2}, ' + "3, " * 200 + "torn")
    members = {}
    assert next(list_entries(path, "list", members)) == {"b": 2} and members == {"a": 1, "list": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", r"file\.json: \[1\] is found where a JSON object"),
        ("{}", r"'list' is missing where a JSON list"),
        ('{"list": {}}', r"'list' is \{\} where a JSON list"),
        ('{"list": [], "list": [1]}', r"holds the key 'list' twice"),
        ('{"list": [1 2]}', r"not JSON \(Expecting ',' delimiter at character 12\)"),
        ('{"list": [1, 2', r"not JSON \(Expecting ',' delimiter at character 14\)"),
        ('{"list": [', r"not JSON \(Expecting value at character 10\)"),
        ('{"list": [1]} 2', r"Extra data at character 14\)"),
        ("", r"not JSON \(Expecting value at character 0\)"),
    ],
)
def test_faults_of_a_list_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        list(list_entries(written(tmp_path, content), "list", {}))


def test_a_list_is_told_by_its_first_character(tmp_path):
    assert [is_list(written(tmp_path, content)) for content in ("\ufeff\n [1]", "[]", "{}", '"["')] == [
        *(True, True, False, False)
    ]
    with pytest.raises(DataError, match=r"'text' is found where a JSON list"):
        list(elements(written(tmp_path, '"text"')))
