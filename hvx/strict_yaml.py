"""Strict YAML for configs: no duplicate keys, no surprising numbers, bounded memory.

PyYAML follows YAML 1.1: it reads ``010`` as 8 and ``1:30`` as 90, and silently keeps the last of duplicate
keys. Here numbers follow YAML 1.2's core schema, and a duplicate key is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hvx.errors import HvxError, shown

MAX_BYTES = 1 << 20
"""Limit of a config file; PyYAML reads about 200 kB per second."""
MAX_DEPTH = 50
MAX_VALUES = 1_000_000
"""Limit of values in a document with all aliases expanded."""
_MAX_DIGITS = 400
"""A longer number is rejected; the largest float has 309 digits."""
_WIDTH = 110
"""Line width of written YAML."""
_MERGE = "tag:yaml.org,2002:merge"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def read_yaml_file(path: Path, kind: str) -> Any:
    """The content of a YAML file as plain Python values.

    Args:
        path: the file.
        kind: what the file is, for errors: "config file".

    Raises:
        HvxError: the file does not exist, cannot be read, is too large, or is not valid YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise HvxError(f"{path}: larger than {MAX_BYTES:,} bytes; not a {kind}")
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise HvxError(f"{path}: no such {kind}") from None
    except (OSError, ValueError) as error:
        raise HvxError(f"{path}: cannot be read ({kind}): {error}") from None
    try:
        return read_yaml(text)
    except HvxError as error:
        raise HvxError(f"{path}: not valid YAML{error}") from None


def read_yaml(text: str) -> Any:
    """The content of a YAML text as plain Python values.

    Raises:
        HvxError: not valid YAML. The message begins with `` on line N: `` or ``: ``; the caller prepends the
            name of the text.
    """
    try:
        return _Loader(text).get_single_data()
    except Exception as error:  # PyYAML's constructors raise various errors on malformed values
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f" on line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise HvxError(f"{where}: {reason}") from None


def write_yaml(value: Any, unicode: bool = True) -> str:
    """Plain Python values as a YAML text that ``read_yaml`` reads as the same values.

    Keys keep their order. Strings that this module or YAML 1.1 would read as another type are quoted.

    Args:
        value: dicts, lists, texts, numbers, booleans and None.
        unicode: write letters beyond ASCII as they are, not as escapes.
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode, width=_WIDTH)
    return text.removesuffix("...\n")  # end marker of a single plain value


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper: lists of plain values on one line, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values in full."""
        return True

    def _list(self, values: list[Any]) -> Node:
        plain = not any(isinstance(value, (list, dict)) for value in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)

    def _text(self, text: str) -> Node:
        # In single quotes, PyYAML writes some line breaks so that they are read as spaces.
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(list, _Dumper._list)
_Dumper.add_representer(str, _Dumper._text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules of this module."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """One value, no deeper than ``MAX_DEPTH``."""
        if self._depth > MAX_DEPTH:
            raise _problem(f"nested more than {MAX_DEPTH} deep", self.get_mark())
        self._depth += 1
        try:
            node: Node | None = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        return node

    def get_single_node(self) -> Node | None:
        """The document; an error if its aliases make it too large."""
        node: Node | None = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def flatten_mapping(self, node: MappingNode) -> None:
        """Apply merge keys (``<<``): own keys take precedence; a key in two merged mappings is an error."""
        _reject_duplicates(node.value)
        merged: list[tuple[Node, Node]] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                sources = value.value if isinstance(value, SequenceNode) else [value]
                for source in sources:
                    if not isinstance(source, MappingNode):
                        raise _problem("'<<' merges a mapping, or a list of them", value.start_mark)
                    self.flatten_mapping(source)
                    merged += source.value
        _reject_duplicates(merged)
        own_pairs = [(key, value) for key, value in node.value if key.tag != _MERGE]
        names = {key.value for key, _ in own_pairs}
        node.value = [pair for pair in merged if pair[0].value not in names] + own_pairs


def _reject_duplicates(pairs: list[tuple[Node, Node]]) -> None:
    """Reject keys that are not text, and duplicate keys."""
    lines: dict[str, int] = {}
    for key, _ in pairs:
        if not isinstance(key, ScalarNode):
            raise _problem("a key must be text, not a list or a mapping", key.start_mark)
        if key.value in lines:
            raise _problem(
                f"duplicate key '{shown(key.value)[1:-1]}', first on line {lines[key.value]}", key.start_mark
            )
        if key.tag not in {_MERGE, "tag:yaml.org,2002:str"}:
            raise _problem(f"the key {key.value} is not text; put it in quotes", key.start_mark)
        lines[key.value] = key.start_mark.line + 1


def _count(node: Node, counts: dict[Node, int | None]) -> int:
    """The number of values in ``node`` and below, with aliases expanded."""
    if node in counts:
        count = counts[node]
        if count is None:
            raise _problem("an alias stands for something that holds the alias itself", node.start_mark)
        return count
    counts[node] = None
    children: list[Node] = []
    if isinstance(node, SequenceNode):
        children = node.value
    elif isinstance(node, MappingNode):
        children = [child for pair in node.value for child in pair]
    count = 1 + sum(_count(child, counts) for child in children)
    if count > MAX_VALUES:
        raise _problem(f"aliases make more than {MAX_VALUES:,} values of it", node.start_mark)
    counts[node] = count
    return count


def _number(loader: _Loader, node: ScalarNode) -> int | float:
    """A number of YAML 1.2's core schema."""
    text = loader.construct_scalar(node)
    if len(text) > _MAX_DIGITS:
        raise _problem(f"a number of {len(text):,} characters", node.start_mark)
    if _INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1:].isalpha() else text)
    raise _problem(f"{shown(text)} is not a number", node.start_mark)


def _problem(reason: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=mark)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in (("int", _INT), ("float", _FLOAT)):
    _full_match = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _full_match, list("-+.0123456789"))
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)
    # In addition to the patterns of YAML 1.1: a string is quoted if either reads it as a number.
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _full_match, list("-+.0123456789"))
