"""The study file's JSON Schema."""

from __future__ import annotations

from typing import Any

from tunewise.study.schema import Study


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the study file, for editors, with all short forms."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Study.model_json_schema(),
    }
    properties, definitions = schema["properties"], schema["$defs"]
    metric = properties["metric"]
    metric["anyOf"] = [{"type": "string"}, {"$ref": metric.pop("$ref")}]
    definitions["FineTune"]["properties"]["reward"]["anyOf"].insert(0, {"type": "string"})
    for alternative in properties["candidates"]["anyOf"]:
        if alternative.get("type") == "array":
            kind = definitions["CandidateSpec"]["properties"]["kind"]
            alternative["items"] = {
                "anyOf": [{"enum": kind["enum"]}, {"$ref": "#/$defs/CandidateSpec"}]
            }
    # A candidate's name is its kind unless it says otherwise, and the other way round.
    candidate = definitions["CandidateSpec"]
    candidate["anyOf"] = [{"required": [key]} for key in candidate.pop("required")]
    return schema
