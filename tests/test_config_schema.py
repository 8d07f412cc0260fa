"""``hvx config schema``: a JSON Schema that accepts what hvx accepts and refuses what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, hvx
from jsonschema import Draft202012Validator
from test_config_table import BASE, BOUNDS, CHOICES, DEFAULTS, PATHS, TEXTS, tree_with

from hvx.config import MLB_FORMS, load, parse
from hvx.config_schema import config_schema
from hvx.errors import HvxError
from hvx.strict_yaml import read_yaml_file

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
SCHEMA = config_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def accepted(tree: Any) -> bool:
    """Whether the schema accepts a tree; hvx must say the same."""
    wrong = [error.message for error in VALIDATOR.iter_errors(tree)]
    try:
        parse(deepcopy(tree), "c.yaml")
        said = None
    except HvxError as error:
        said = str(error)
    assert (said is None) == (not wrong), (said, wrong)
    return not wrong


# The command


def test_the_schema_is_printed_or_written(tmp_path: Path) -> None:
    printed = hvx("config", "schema")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert json.loads(printed.stdout) == SCHEMA
    path = tmp_path / "below" / "hvx.schema.json"
    done = hvx("config", "schema", "-o", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: JSON Schema of config files\n")
    assert path.read_text(encoding="utf-8") == printed.stdout
    assert "½‖V − F‖²" in printed.stdout  # letters as they are


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "schema.json"):
        done = hvx("config", "schema", "-o", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"Error: {path}: cannot be written: ") and done.stderr.count("\n") == 1


WITHOUT_PYTORCH = """
import sys
from click.testing import CliRunner
from hvx.cli import main
for line in (["schema"], ["show", sys.argv[1]], ["show", sys.argv[1], "--json"]):
    assert CliRunner().invoke(main, ["config", *line]).exit_code == 0
print(sorted({"torch", "torchvision", "numpy", "matplotlib"} & set(sys.modules)))
"""


def test_neither_command_imports_pytorch() -> None:
    command = [sys.executable, "-c", WITHOUT_PYTORCH, str(CONFIGS[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# What the schema says of each key


def target(value: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a value refers to."""
    for place in (value, *value.get("anyOf", ())):
        if "$ref" in place:
            found: dict[str, Any] = SCHEMA["$defs"][place["$ref"].removeprefix("#/$defs/")]
            return found
    return None


def keys(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All keys with what the schema says of them, sections included, named as in ``DEFAULTS``."""
    for key, value in section["properties"].items():
        yield prefix + key, value
        inner = SCHEMA["else"]["properties"]["model"] if prefix + key == "model" else value
        for place, suffix in (
            (inner, ""), (value.get("additionalProperties", {}), ".val"), (value.get("items", {}), ".0")
        ):  # fmt: skip
            below = target(place)
            if below is not None:
                yield from keys(below, f"{prefix}{key}{suffix}.")


KEYS = dict(keys(SCHEMA))
SECTIONS = [SCHEMA, *SCHEMA["$defs"].values()]


def test_the_schema_is_one_of_draft_2020_12() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_has_every_key_and_no_other() -> None:
    parts = {key.rpartition(".")[0] for key in KEYS} - {""}
    sections = {part.removesuffix(".val").removesuffix(".0") for part in parts}
    assert set(KEYS) - sections == set(DEFAULTS) - {"dual_encoder"} - {"explain.pick"}
    assert sections <= set(KEYS)


@pytest.mark.parametrize("key", [key for key in KEYS if key in DEFAULTS])
def test_a_key_has_its_default(key: str) -> None:
    required = {
        "checkpoint", "splits.val.questions", "splits.val.images", "explain.run", "explain.pick.0.question"
    }  # fmt: skip
    assert ("default" in KEYS[key]) == (key not in required)
    if key not in required:
        default = DEFAULTS[key]
        plain = str(default) if isinstance(default, Path) else default
        assert KEYS[key]["default"] == (list(plain) if isinstance(plain, tuple) else plain)


def test_every_key_and_section_is_described_in_one_line() -> None:
    described = [*KEYS.items(), *((name, own) for name, own in SCHEMA["$defs"].items()), ("top", SCHEMA)]
    described += [
        (f"dual.{key}", own) for key, own in SCHEMA["$defs"]["DualEncoderConfig"]["properties"].items()
    ]
    for name, own in described:
        text = own.get("description", "")
        assert len(text) > 10 and text.endswith("."), name
        assert "\n" not in text and "``" not in text, name
    assert KEYS["train.batch"]["description"].startswith(
        "Questions per step"
    )  # the docstring below the field


def test_every_section_is_closed() -> None:
    assert all(section["additionalProperties"] is False for section in SECTIONS)


# What it accepts and refuses


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_of_the_project_are_valid(path: Path) -> None:
    tree = read_yaml_file(path, "config file")
    assert [error.message for error in VALIDATOR.iter_errors(tree)] == []
    assert VALIDATOR.is_valid(load(path).model_dump(mode="json"))  # with every key written out
    assert not VALIDATOR.is_valid(tree | {"sed": 3})


@pytest.mark.parametrize("key", BOUNDS)
def test_a_number_has_its_bounds(key: str) -> None:
    low, high = BOUNDS[key]
    for value in (low, high):
        assert accepted(tree_with(key, value))
    whole = type(low) is int
    beyond = (
        [low - 1, high + 1] if whole else [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    )
    for value in (*beyond, True, "5", "word", [1], {}, math.inf, *([1.5] if whole else [])):
        assert not accepted(tree_with(key, value))


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_has_its_values(key: str) -> None:
    for value in CHOICES[key]:
        assert accepted(tree_with(key, value))
    for value in ("other", "", None, 3, True, []):
        assert not accepted(tree_with(key, value))


@pytest.mark.parametrize("key", [key for key, value in DEFAULTS.items() if isinstance(value, bool)])
def test_a_flag_is_a_boolean(key: str) -> None:
    for value in (True, False):
        assert accepted(tree_with(key, value))
    for value in (0, 1, "true", "yes", None):
        assert not accepted(tree_with(key, value))


@pytest.mark.parametrize("key", sorted(TEXTS | PATHS))
def test_a_text_is_in_quotes_where_yaml_reads_something_else(key: str) -> None:
    for value in (True, 3, 1.5, date(2001, 2, 3), {"a": "b"}, [3]):
        assert not accepted(tree_with(key, value))
    assert accepted(tree_with(key, None)) == (DEFAULTS[key] is None or key == "train.validation")


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("splits.val.images", ["a", ["a"], ["a", "b"]], [[], [3], ["a", None], [["a"]], None]),
        (
            "splits.val.labels",
            [None, "labels.txt", ["a", "b"]],
            [3, True, [], ["a"], ["a", "a"], ["a", 3], ["a", " "]],
        ),
        (
            "splits.val.template",
            ["{}", "a {}", "{} {a}", "a\n{}", "{{}}"],
            ["a", "", "{} and {}", "{a}", None, "{}\n{}"],
        ),
        ("splits.val.image_name", ["{image_id}", "a{image_id:012d}.jpg"], ["image.jpg", "", "{0}", "{id}"]),
        (
            "explain.pick.0.figure",
            ["a", "Figure 3", "a-b_c 1", "é", "a" * 40, "3", "_"],
            ["", " a", "-a", "a/b", "..", "a.png", "a\tb", "a" * 41, "[a", "a@", "`"],
        ),
        (
            "explain.pick.0.question_id",
            [None, 5, -(2**63), 2**63 - 1, "05515938", "n1"],
            [True, 1.5, "", [1], 2**63, -(2**63) - 1],
        ),
        ("model.image.mean", [[0, 0, 0]], [[0, 0], [0, 0, 0, 0], 3, None, ["a", 0, 0]]),
        ("model.image.std", [[1, 1, 1]], [[1, 1], [1, 1, 1, 1], [1, 0, 1]]),
        ("explain.pick", [[], [{"question": "a"}]], [{}, None, [{}], [{"question": "a", "b": 1}], ["a"]]),
        ("splits", [{}], [[], None, {"val": 3}, {"val": {}}, {"val": {"questions": "a"}}]),
        ("explain", [None, {"run": "a"}], [{}, 3, [], {"run": "a", "runs": "b"}]),
        ("model", [{}, {"form": "torch7"}], [3, None, [], {"netwrk": "mlb"}, {"network": None}]),
        ("train", [{}], [3, None, {"epoch": 3}]),
        ("model.encoder", [{}], [None, 3, {"hiden": 3}]),
        ("train.epochs", [1], [0]),
        ("unknown", [], [None, 1]),
        ("dual_encoder", [], [None, {"network": "open_clip", "name": "a"}]),
    ],
)  # fmt: skip
def test_a_value_is_accepted_or_refused_as_by_hvx(key: str, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not accepted(tree_with(key, value))] == []
    assert [value for value in wrong if accepted(tree_with(key, value))] == []


def model(**keys: Any) -> dict[str, Any]:
    return BASE | {"model": keys}


def dual(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in model(**keys).items() if key != "checkpoint"}


def test_a_config_has_a_checkpoint_or_a_dual_encoder() -> None:
    assert accepted({"checkpoint": "a"})
    assert not accepted({})
    assert not accepted({"model": {}}) and not accepted(dual(network="mlb"))
    assert accepted(dual(network="open_clip", name="a", pretrained="b"))
    assert accepted(dual(network="transformers", name="a", pretrained=None))
    for keys in ({"name": "a", "pretrained": 3}, {}, {"name": 3}, {"name": "a", "joint": 3}):
        assert not accepted(dual(network="open_clip", **keys))
    assert not accepted(model(network="open_clip", name="a"))  # with a checkpoint
    assert not accepted(model(network="mlb", name="a"))


def test_rules_between_keys() -> None:
    assert not accepted(dual(network="transformers", name="a", pretrained="b"))
    for form in MLB_FORMS:
        assert accepted(model(form=form))
    assert accepted(model(network="mi"))
    assert accepted(model(network="mi", encoder={"integration": "multiplicative", "hidden": 3}))
    assert not accepted(model(network="mi", encoder={"integration": "additive"}))
    assert not accepted(model(network="mi", encoder={"candidate": "reset_before"}))
    assert accepted(model(network="mlb", encoder={"integration": "additive"}))
    assert accepted(model(mrn={"unit_length": True}))
    assert accepted(model(mrn={"unit_length": False, "pool": "max"}))
    assert not accepted(model(mrn={"unit_length": True, "pool": "max"}))


def test_an_editor_is_offered_all_networks() -> None:
    offered = SCHEMA["properties"]["model"]["properties"]["network"]["enum"]
    assert offered == [*CHOICES["model.network"], "open_clip", "transformers"]
