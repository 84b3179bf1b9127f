"""The JSON schema of ``params.yaml``, from the typed sections, for editors that complete and check YAML."""

from __future__ import annotations

import json

from pydantic.json_schema import GenerateJsonSchema

from collabench.config.params import Params


def schema_text() -> str:
    """The schema as JSON (draft 2020-12), with a newline at the end.

    It covers keys, types, ranges and choices. Rules that join several keys are checked by ``collabench plan`` only.
    """
    schema = Params.model_json_schema(schema_generator=GenerateJsonSchema)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": "params.yaml of CollaBench"}
    return json.dumps(head | {k: v for k, v in schema.items() if k != "title"}, indent=1, ensure_ascii=False) + "\n"
