import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlbench.core.errors import DataError
from vlbench.core.results import Prediction
from vlbench.records.predictions import read_predictions

TWO = [Prediction("dev-1-0-0", "True"), Prediction("dev-1-1-0", "false")]


def written(tmp_path, content, name="predictions"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def samples(tmp_path, **columns):
    table = {
        "example_id": ["dev-1-0-0", "dev-1-1-0", "dev-1-0-0"],
        "prediction": ["True", "false", "True"],
        "status": ["ok", "ok", "ok"],
        "control": ["", "", "blind"],
        "score": [1.0, 0.0, 1.0],
    } | columns
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}), path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "dev-1-0-0,True\ndev-1-1-0,false\n",
        "\ufeffdev-1-0-0,True\r\n\r\ndev-1-1-0 , false",
        '{"identifier": "dev-1-0-0", "prediction": "True"}\n{"id": "dev-1-1-0", "answer": "false"}\n',
        '\ufeff{"example_id": "dev-1-0-0", "answer": "True"}\r\n\r\n{"id": "dev-1-1-0", "prediction": "false"}',
    ],
)
def test_text_formats_are_told_by_their_content(tmp_path, content):
    assert read_predictions(written(tmp_path, content)) == TWO


@pytest.mark.parametrize(
    "content",
    [
        '[{"question_id": 12000, "answer": "net"}, {"question_id": 7, "answer": "a, b"}]',
        '\ufeff \r\n[{"questionId": "12000", "prediction": "net"},\r\n{"questionId": "7", "prediction": "a, b"}]\n',
        '{"question_id": 12000, "answer": "net"}\n{"id": 7, "prediction": "a, b"}\n',
    ],
)
def test_official_lists_of_answers(tmp_path, content):
    assert read_predictions(written(tmp_path, content)) == [Prediction("12000", "net"), Prediction("7", "a, b")]


def test_ids_that_are_strings_keep_their_zeros(tmp_path):
    path = written(tmp_path, '[{"questionId": "007", "prediction": "yes"}]')
    assert read_predictions(path) == [Prediction("007", "yes")]


def test_samples_of_a_run_without_its_controls(tmp_path):
    assert read_predictions(samples(tmp_path)) == TWO


def test_status_of_a_sample_is_kept(tmp_path):
    path = samples(tmp_path, prediction=["True", None, "x"], status=["ok", "error", "ok"])
    assert read_predictions(path) == [TWO[0], Prediction("dev-1-1-0", "", status="error")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dev-1-0-0,True\ndev-1-1-0\n", r"line 2: 'dev-1-1-0' is not 'identifier,prediction'"),
        ("a,True,0.9\n", r"line 1: 'a,True,0.9' is not"),
        ('{"id": "a", "answer": "True"}\n{"id": "b", "answer"\n', r"line 2: not JSON"),
        ('{"id": "a", "answer": "True"}\n["b"]\n', r"line 2: .* is not a JSON object"),
        (
            '{"name": "a", "answer": "True"}\n',
            r"line 1: expected one of the keys identifier, id, example_id, question_id, questionId, found name",
        ),
        ('{"id": "a", "answer": true}\n', r"line 1: 'answer' is True where a string"),
        ('[{"question_id": 1, "answer": "a"}, {"question_id": 1.5, "answer": "b"}]', r"entry 2: 'question_id' is 1\.5"),
        ('[{"question_id": true, "answer": "a"}]', r"entry 1: 'question_id' is True where a whole number"),
        ('[{"question_id": 1, "answer": 2}]', r"entry 1: 'answer' is 2 where a string"),
        ('[{"question_id": 1}]', r"entry 1: expected one of the keys prediction, answer, found question_id"),
        (
            '{"id": "a", "answer": "True"}\n{"id": "b", "answer": "1", "answer": "2"}\n',
            r"line 2: .*'answer' comes twice",
        ),
        ('[{"question_id": 1, "question_id": 2, "answer": "b"}]', r"'question_id' comes twice in one object"),
        ('[["a", "b"]]', r"entry 1: \['a', 'b'\] is found where a JSON object"),
        ('[{"question_id": 1, ', r"predictions: not JSON"),
        ("[]", "holds no predictions"),
        (gzip.compress(b"[]", mtime=0), "compressed by gzip"),
        (b"a,True\nb\xff,True\n", r"line 2: not UTF-8"),
        ("", "holds no predictions"),
        (b"PAR1 and then nothing of the kind", "not a readable parquet"),
    ],
)
def test_faults_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_predictions(written(tmp_path, content))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"status": None}, "lacks the columns status"),
        ({"prediction": ["True", None, "x"]}, r"row 2: the prediction for 'dev-1-1-0' is null with status 'ok'"),
        ({"status": ["ok", "fine", "ok"]}, "row 2: status is 'fine'"),
        ({"example_id": [1, 2, 3]}, "row 1: example_id 1"),
    ],
)
def test_samples_must_be_those_of_a_run(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read_predictions(samples(tmp_path, **columns))


@pytest.mark.parametrize("name", [".", "absent.csv"])
def test_unreadable_files_are_named(tmp_path, name):
    with pytest.raises(DataError, match="cannot read predictions"):
        read_predictions(tmp_path / name)


def test_a_cut_parquet_file_is_named(tmp_path):
    path = samples(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable parquet"):
        read_predictions(path)
