"""The configuration's JSON schema: for editors, for the page of keys, for lines about mistakes."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from probeline.config.schema import Config


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without the titles, which only repeat the keys, and without sorting."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value  # keys stay in the order in which they are explained


def json_schema() -> dict:
    """Return the configuration's JSON schema (draft 2020-12), closed at every level.

    It says what single values may be. What must hold between values is checked by
    `probeline.config.validate` alone.
    """
    schema = Config.model_json_schema(schema_generator=_Generator)
    for part in [schema, *schema["$defs"].values()]:
        part.pop("title", None)
        part["description"] = inspect.cleandoc(part["description"])
    schema["description"] = "Configuration of a probeline workflow."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
