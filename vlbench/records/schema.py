"""The JSON Schema of `run.json`: `python -m vlbench.records.schema > docs/run.schema.json`."""

from __future__ import annotations

import json

from vlbench.core.record import RunRecord


def schema_text() -> str:
    """The content of `docs/run.schema.json`, with a newline at the end."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunRecord.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
