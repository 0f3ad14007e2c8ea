from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.records.folder import RunFolder
from vlbench.records.schema import schema_text

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "run.schema.json"


def test_committed_schema_is_current() -> None:
    remedy = "python -m vlbench.records.schema > docs/run.schema.json"
    assert COMMITTED.read_text(encoding="utf-8") == schema_text(), remedy


def test_a_written_record_is_valid_and_a_changed_one_is_not(record: RunRecord, spec: RunSpec) -> None:
    folder = RunFolder.create(spec, record.fingerprint)
    folder.write_record(record)
    values = json.loads(folder.run_json.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(json.loads(COMMITTED.read_text(encoding="utf-8")))
    validator.validate(values)
    for fault in ({"status": "perhaps"}, {"surprise": 1}, {"majority": "half"}, {"results": {}}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**values, **fault})
