import gzip

import pytest

from vlbench.core.errors import DataError
from vlbench.data.json.lines import folder, one_of, read_json_lines, text


def test_marks_line_ends_and_blank_lines_are_tolerated(tmp_path):
    path = tmp_path / "lines.json"
    path.write_bytes('\ufeff{"a": "é"}\r\n\r\n{"a": 2}'.encode())
    assert list(read_json_lines(path)) == [(1, {"a": "é"}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": ', "line 2: not JSON"),
        (b"[1]", "line 2: '\\[1\\]' is not a JSON object"),
        (b'{"a": "\xff"}', "line 2: not UTF-8"),
        (b"[" * 100_000, "line 2: not JSON"),
    ],
)
def test_faults_name_file_and_line(tmp_path, line, message):
    path = tmp_path / "lines.json"
    path.write_bytes(b'{"a": 1}\n' + line)
    with pytest.raises(DataError, match=rf"lines\.json, {message}"):
        list(read_json_lines(path))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*absent\.json"):
        list(read_json_lines(tmp_path / "absent.json"))


def test_compressed_lines_are_told_apart(tmp_path):
    (tmp_path / "lines.jsonl").write_bytes(gzip.compress(b'{"a": 1}', mtime=0))
    with pytest.raises(DataError, match=r"lines\.jsonl is compressed by gzip .* unpack it"):
        list(read_json_lines(tmp_path / "lines.jsonl"))


def test_fields_have_the_type_asked_for():
    fields = {"name": "a", "number": 7, "label": "tRuE"}
    assert text(fields, "name", "here") == "a"
    assert folder(fields, "number", "here") == "7"
    assert one_of(fields, "label", ("False", "True"), "here") == "True"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: text({"a": 1}, "a", "f, line 3"), "f, line 3: 'a' is 1 where a string is expected"),
        (lambda: text({}, "a", "f, line 3"), "f, line 3: 'a' is missing where a string"),
        (lambda: text({"a": "x\ud800"}, "a", "f, line 3"), "where a string of whole characters is expected"),
        (lambda: one_of({"a": "no"}, "a", ("x", "y"), "f, line 3"), "'a' is 'no' where \"x\" or \"y\""),
        (lambda: folder({"a": ".."}, "a", "f, line 3"), "'a' is '..' where the name of one folder"),
    ],
)
def test_other_fields_are_rejected(read, message):
    with pytest.raises(DataError, match=message):
        read()
