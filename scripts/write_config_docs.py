"""Writes docs/config.md from the types and docstrings of the config, so that it cannot drift.

python scripts/write_config_docs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hvx.config import MI_ENCODER, MLB_FORMS, ModelConfig
from hvx.config_schema import config_schema
from hvx.strict_yaml import write_yaml

PAGE = Path(__file__).resolve().parents[1] / "docs" / "config.md"

_HEAD = """# Config file

Written by `python scripts/write_config_docs.py` from the types and docstrings of
[`hvx/config.py`](../hvx/config.py); a test holds it to that.

One YAML file describes splits, model, training and explanation; `hvx train`, `hvx explain` and `hvx check`
read the same file. [`configs/`](../configs) has examples. Every key has a default, except those marked
*required*. An unknown key or a wrong value is an error that names it.

- `--set explain.batch_images=4` overrides one key for one command; the value is read as YAML.
- `hvx config show CONFIG` prints every key with its value: as given, as overridden, or the default.
- `hvx config schema -o hvx.schema.json` writes a JSON Schema of this page. With the line
  `# yaml-language-server: $schema=hvx.schema.json` at the top of a config (the path is relative to the
  config), an editor with the YAML language server, such as VS Code with Red Hat's YAML extension, completes
  keys, shows what they mean and marks wrong ones.
- A text or path that YAML reads as something else needs quotes: `"no"`, `"2014"`, `"2001-02-03"`. Numbers
  are those of YAML 1.2, without leading zeros and `_`. A key that is given twice is an error.
"""

_PRESETS = """## Presets

`model.form` changes these defaults of `model`; a key that is given keeps its value:

{forms}
`model.network: mi` changes these, and accepts no other values:

{mi}"""


@dataclass(frozen=True)
class _Section:
    """A part of the page.

    Attributes:
        title: of the heading.
        prefix: what stands before each key, dot included.
        schema: of the section.
        required: keys without a default.
    """

    title: str
    prefix: str
    schema: dict[str, Any]
    required: list[str]


def page() -> str:
    """The whole page."""
    schema = config_schema()
    parts = [_HEAD]
    for section in _sections(schema):
        rows = [
            _row(section, key, value, schema["$defs"]) for key, value in section.schema["properties"].items()
        ]
        about = _cell(section.schema["description"])
        parts.append(f"## {section.title}\n\n{about}\n\n{_table('key type default meaning', rows)}")
    parts.append(_PRESETS.format(forms=_forms(), mi=_table("key value", _flat("model.encoder", MI_ENCODER))))
    return "\n".join(parts)


def _sections(schema: dict[str, Any]) -> Iterator[_Section]:
    """All sections, each before those inside it."""
    yield _Section("Top level", "", schema, schema["else"]["required"])
    for key, value in schema["properties"].items():
        if key != "model":
            yield from _below(key, value, schema["$defs"])
            continue
        yield from _below(key, schema["else"]["properties"]["model"], schema["$defs"])
        (dual,) = _below(key, schema["then"]["properties"]["model"], schema["$defs"])
        yield _Section(f"{dual.title} of a dual encoder", dual.prefix, dual.schema, dual.required)


def _below(key: str, value: dict[str, Any], known: dict[str, Any]) -> Iterator[_Section]:
    """The section that a key's value is, if it is one, and those inside it."""
    path, name = _section_of(key, value)
    if name is None:
        return
    section = known[name]
    yield _Section(f"`{path}`", f"{path}.", section, section.get("required", []))
    for inner, own in section["properties"].items():
        yield from _below(f"{path}.{inner}", own, known)


def _section_of(key: str, value: dict[str, Any]) -> tuple[str, str | None]:
    """The dotted path of the section below ``key``, and its name in the schema; None if it is no section."""
    places = [(key, choice) for choice in (value, *value.get("anyOf", ()))]
    places += [(f"{key}.N", value.get("items", {})), (f"{key}.NAME", value.get("additionalProperties", {}))]
    for path, place in places:
        if "$ref" in place:
            return path, place["$ref"].rpartition("/")[2]
    return key, None


def _row(section: _Section, key: str, value: dict[str, Any], known: dict[str, Any]) -> list[str]:
    path = section.prefix + key
    if key in section.required:
        default = "*required*"
    else:
        default = f"`{write_yaml(value['default']).strip()}`" if "default" in value else ""
    if key == "model":
        kind = "[section](#model)"
    else:
        inner, name = _section_of(path, value)
        kind = _type(value) if name is None else f"[{_type(value)}](#{inner.lower().replace('.', '')})"
    return [f"`{path}`", kind, default, value["description"]]


def _type(value: dict[str, Any]) -> str:
    """A key's type in words, with its limits or choices."""
    if "anyOf" in value:
        return _either([_type(choice) for choice in value["anyOf"]])
    if "enum" in value:
        return _either([f"`{choice}`" for choice in value["enum"]])
    if "$ref" in value:
        return "section"
    if value["type"] == "array":
        return _list_type(value)
    if value["type"] in {"integer", "number"}:
        return f"{'whole number' if value['type'] == 'integer' else 'number'} ({_limits(value)})"
    plain = {"boolean": "`true` or `false`", "null": "`null`", "object": "sections by name"}
    return "path" if value.get("format") == "path" else plain.get(value["type"], "text")


def _list_type(value: dict[str, Any]) -> str:
    least, most = value.get("minItems", 0), value.get("maxItems")
    count = f"{least} " if least == most else f"{least} or more " if least > 1 else ""
    noun, bracket, limits = _type(value["items"]).partition(" (")
    return f"list of {count}{noun}s{bracket}{limits and 'each '}{limits}"


def _limits(value: dict[str, Any]) -> str:
    """The limits of a number, of which every one has two: ``0 to 100``."""
    if value["type"] == "integer" and "exclusiveMaximum" in value:
        return f"{_number(value['minimum'])} to {_number(value['exclusiveMaximum'] - 1)}"
    if "minimum" in value and "maximum" in value:
        return f"{_number(value['minimum'])} to {_number(value['maximum'])}"
    words = {
        "minimum": "at least", "exclusiveMinimum": "more than",
        "maximum": "at most", "exclusiveMaximum": "less than",
    }  # fmt: skip
    return " and ".join(f"{said} {_number(value[name])}" for name, said in words.items() if name in value)


def _number(value: float) -> str:
    for edge, name in ((2**63 - 1, "2⁶³ − 1"), (-(2**63), "−2⁶³")):
        if value == edge and isinstance(value, int):
            return name
    text = f"{int(value):,}" if value == int(value) else repr(value)
    return text.replace("-", "−")


def _either(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _forms() -> str:
    """The presets of ``model.form`` side by side; what a form leaves open is the default."""
    presets = {form: dict(_flat("model", preset)) for form, preset in MLB_FORMS.items()}
    defaults = dict(_flat("model", ModelConfig().model_dump(mode="json")))
    keys = dict.fromkeys(key for preset in presets.values() for key in preset)
    rows = [[key, *(preset.get(key, defaults[key]) for preset in presets.values())] for key in keys]
    return _table(" ".join(["key", *(f"`{form}`" for form in presets)]), rows)


def _flat(prefix: str, tree: dict[str, Any]) -> Iterator[list[str]]:
    """Dotted keys and values of a tree, as the page shows them."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}.{key}", value)
        else:
            yield [f"`{prefix}.{key}`", f"`{write_yaml(value).strip()}`"]


def _table(head: str, rows: Iterator[list[str]] | list[list[str]]) -> str:
    """A Markdown table; ``head`` has the columns' names, separated by spaces."""
    names = head.split(" ")
    lines = [names, ["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    click.echo(PAGE)
