"""The config as a JSON Schema (draft 2020-12), for editors and for docs/config.md.

Pydantic derives it from the types and docstrings of ``hvx.config``. This module adds that ``model`` is one of
two kinds of section, and rules between keys that a schema can express.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

from hvx import config
from hvx.config import DUAL_ENCODERS, MI_ENCODER, Config, ModelConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _if(key: str, value: Any, then: dict[str, Any]) -> dict[str, Any]:
    """The rule that ``then`` applies to the other keys if ``key`` has ``value``."""
    return {
        "if": {"properties": {key: {"const": value}}, "required": [key]},
        "then": {"properties": then},
    }


_RULES = {
    "MRNConfig": _if("pool", "max", {"unit_length": {"const": False}}),
    "DualEncoderConfig": _if("network", "transformers", {"pretrained": {"type": "null"}}),
    "ModelConfig": _if(
        "network", "mi",
        {"encoder": {"properties": {name: {"const": value} for name, value in MI_ENCODER.items()}}},
    ),
}  # fmt: skip
"""Section → a rule between its keys; the validators of ``hvx.config`` check the same."""


def config_schema() -> dict[str, Any]:
    """The schema of a config file: every key with its type, limits, default and description."""
    schema = Config.model_json_schema()
    sections = schema.pop("$defs")
    for name, rule in _RULES.items():
        sections[name] |= rule
    descriptions = _descriptions()
    for name, section in {"Config": schema, **sections}.items():
        for key, value in section["properties"].items():
            value |= {"description": text} if (text := descriptions.get((name, key))) else {}
        _tidy(section, sections)
    _split_model(schema)
    return {"$schema": DRAFT, "title": "Config file of hvx"} | schema | {"$defs": sections}


def _descriptions() -> dict[tuple[str, str], str]:
    """(section, key) → the docstring below the key in the source of ``hvx.config``."""
    classes = (node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef))
    return {
        (section.name, key.target.id): inspect.cleandoc(text.value.value)
        for section in classes
        for key, text in pairwise(section.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _split_model(schema: dict[str, Any]) -> None:
    """Make ``model`` one of hvx's networks, with a checkpoint, or a dual encoder, without."""
    dual = schema["properties"].pop("dual_encoder")["anyOf"][0]
    hvx_model = {"$ref": schema["properties"]["model"].pop("$ref")}
    networks = [*get_args(ModelConfig.model_fields["network"].annotation), *DUAL_ENCODERS]
    schema["properties"]["model"]["properties"] = {"network": {"enum": networks}}
    is_dual = {"type": "object", "properties": {"network": {"enum": list(DUAL_ENCODERS)}}}
    del schema["required"]  # checkpoint, unless there is a dual encoder
    schema["if"] = {"properties": {"model": is_dual | {"required": ["network"]}}, "required": ["model"]}
    schema["then"] = {"properties": {"model": dual, "checkpoint": False}}
    schema["else"] = {"properties": {"model": hvx_model}, "required": ["checkpoint"]}


def _tidy(section: dict[str, Any], sections: dict[str, Any]) -> None:
    """Make one section readable: descriptions in one line of Markdown, no titles that repeat the key."""
    section.pop("title")
    section["description"] = _one_line(section["description"])
    for key in section["properties"].values():
        key.pop("title", None)
        for name in _sections_of(key):
            key.pop("default", None)  # each of its keys has its own
            key.setdefault("description", sections[name]["description"])
        key["description"] = _one_line(key["description"])
        if "prefixItems" in key:  # all equal; editors for earlier drafts support only ``items``
            key["items"] = key.pop("prefixItems")[0]


def _sections_of(key: dict[str, Any]) -> Iterator[str]:
    """Names of the sections that are a key's value."""
    for choice in (key, *key.get("anyOf", ())):
        if "$ref" in choice:
            yield choice["$ref"].rpartition("/")[2]


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")
