"""Values and kinds in words: for the lines about mistakes, and for the reference in the docs."""

from __future__ import annotations

import re
from typing import Any

from probeline.errors import nearest

LONGEST = 60
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")

# What people write, and what it is called here. Only looked up among the words allowed at a place.
SYNONYMS = {
    "acc": "accuracy",
    "auc": "roc-auc",
    "auroc": "roc-auc",
    "average": "mean",
    "avg": "mean",
    "bf16": "bfloat16",
    "cls": "first",
    "dev": "validation",
    "eos": "last",
    "f1": "macro-f1",
    "f1-macro": "macro-f1",
    "f1-micro": "micro-f1",
    "f1_macro": "macro-f1",
    "f1_micro": "micro-f1",
    "fp16": "float16",
    "fp32": "float32",
    "gpu": "cuda",
    "half": "float16",
    "hf": "hub",
    "huggingface": "hub",
    "jsonl": "json",
    "mcc": "matthews",
    "mlp": "ffn",
    "ndjson": "json",
    "residual": "hidden",
    "val": "validation",
}


def hint(word: str, choices: Any) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest choice or its synonym, or nothing."""
    choices = [str(choice) for choice in choices]
    synonym = SYNONYMS.get(word.lower())
    if synonym in choices:
        return f"; did you mean '{synonym}'?"
    by_lower = {choice.lower(): choice for choice in reversed(choices)}
    if word.lower() in by_lower:
        return f"; did you mean '{by_lower[word.lower()]}'?"
    return nearest(word, choices)


def shown(value: Any) -> str:
    """Return `value` as one short piece of text, written as in YAML where that is plain."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        text = "[" + ", ".join(shown(item) for item in value[:10]) + "]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {shown(v)}" for k, v in list(value.items())[:10]) + "}"
    elif isinstance(value, str | int | float):
        text = repr(value)
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def path_words(path: tuple) -> str:
    """Return a key's path as ``models.minilm.path`` or ``runs[0].model``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def kind_words(schema: dict, definitions: dict) -> str:
    """Return what a JSON schema allows, in words: ``'auto' or a list of numbers > 0``."""
    schema = resolved(schema, definitions)
    if "$comment" in schema:
        return schema["$comment"]
    if alternatives(schema):
        return _either_words(schema, definitions)
    if "enum" in schema:
        if len(schema["enum"]) > 8:
            return f"text such as {schema['enum'][0]}"
        return "one of " + ", ".join(schema["enum"])
    if "const" in schema:
        return f"'{schema['const']}'"
    kind = schema.get("type")
    if kind == "array":
        return f"{_list_words(schema)}, each item {kind_words(schema['items'], definitions)}"
    if kind == "object" and "properties" in schema:
        return "a mapping with the keys " + (", ".join(schema["properties"]) or "below")
    if kind == "object":
        of = "names" if "propertyNames" in schema else "keys"
        return f"a mapping of {of} to {kind_words(schema['additionalProperties'], definitions)}"
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    simple = {"string": "text", "boolean": "true or false", "null": "null"}
    return simple.get(kind, "a value")


def _either_words(schema: dict, definitions: dict) -> str:
    found: list[str] = []
    for member in alternatives(schema):
        words = kind_words(member, definitions)
        # A mapping to what was just described: "or a mapping of keys to such".
        for known in found:
            words = words.replace(f" to {known}", " to such")
        found += [] if words in found else [words]
    separator = ", or " if any(", " in words for words in found) or len(found) > 2 else " or "
    return separator.join(found)


def _list_words(schema: dict) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if least == most:
        return f"a list of {least}"
    return f"a list of {least} or more" if least > 1 else "a list"


def _bounds(schema: dict) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return " and".join(f" {sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)


def alternatives(schema: dict) -> list[dict]:
    """Return the members of a union, or nothing."""
    return schema.get("oneOf") or schema.get("anyOf") or []


def resolved(schema: dict, definitions: dict) -> dict:
    """Follow a schema's reference to its definition."""
    if "$ref" in schema:
        return {**definitions[schema["$ref"].rsplit("/", 1)[-1]], **schema}
    return schema


def words_allowed(schema: dict, definitions: dict) -> list[str]:
    """Return the fixed words a schema allows, those of its unions and list items among them."""
    schema = resolved(schema, definitions)
    found = list(schema.get("enum", []))
    found += [schema["const"]] if "const" in schema else []
    for member in alternatives(schema):
        found += words_allowed(member, definitions)
    if schema.get("type") == "array":
        found += words_allowed(schema.get("items", {}), definitions)
    return found
