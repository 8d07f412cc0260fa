"""``hvx config show``: every key with its value, as YAML or JSON that hvx reads as the same config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, hvx
from hypothesis import given
from hypothesis import strategies as st
from test_config_table import BASE, DEFAULTS

from hvx.config import load, parse
from hvx.strict_yaml import read_yaml, write_yaml

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def written(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    return path


def shown(*arguments: object) -> str:
    done = hvx("config", "show", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def error_of(*arguments: object) -> str:
    done = hvx("config", "show", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("Error: ").rstrip("\n")


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key → value; a list of sections has keys, too."""
    if isinstance(value, dict) and value:
        parts = list(value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = list(enumerate(value))
    else:
        return {key: value}
    return {k: v for name, part in parts for k, v in leaves(part, f"{key}.{name}".lstrip(".")).items()}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_is_shown_loads_as_the_same_config(path: Path, tmp_path: Path) -> None:
    text = shown(path)
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    assert load(again) == load(path)
    assert shown(again) == text
    (tmp_path / "again.json").write_text(shown(path, "--json"), encoding="utf-8")
    assert load(tmp_path / "again.json") == load(path)


def test_every_key_is_shown_with_its_default(tmp_path: Path) -> None:
    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

    expected = {key: plain(value) for key, value in DEFAULTS.items() if key != "dual_encoder"}
    path = written(tmp_path, BASE)
    assert leaves(read_yaml(shown(path))) == expected
    assert leaves(json.loads(shown(path, "--json"))) == expected
    lines = shown(path).splitlines()
    assert lines[:4] == ["root: .", "seed: 0", "checkpoint: m.safetensors", "splits:"]
    assert "    mean: [0.485, 0.456, 0.406]" in lines


def test_the_configs_own_values_stand_before_defaults() -> None:
    tree = read_yaml(shown(REPOSITORY / "configs" / "daquar.yaml"))
    assert (tree["train"]["epochs"], tree["train"]["gradient_clip"]) == (16, 10.0)
    assert tree["model"]["backbone"] == {
        "architecture": "squeezenet1_0", "node": "features.12.cat", "weights": "IMAGENET1K_V1"
    }  # fmt: skip


def test_overrides_are_applied(tmp_path: Path) -> None:
    path = REPOSITORY / "configs" / "scenes.yaml"
    settings = ["seed=7", "explain.heatmap={size: 56}", "splits.val.limit=5", "train.validation=null"]
    given = [part for setting in settings for part in ("--set", setting)]
    tree = read_yaml(shown(path, *given))
    assert (tree["seed"], tree["splits"]["val"]["limit"], tree["train"]["validation"]) == (7, 5, None)
    assert tree["explain"]["heatmap"] == {"size": 56, "dtype": "float16"}
    assert parse(tree, "shown") == load(path, settings)
    assert json.loads(shown(path, *given, "--json")) == tree


def test_the_presets_of_a_form_are_shown(tmp_path: Path) -> None:
    path = written(tmp_path, {"checkpoint": "m", "model": {"form": "vqa-pytorch", "glimpses": 3}})
    model = read_yaml(shown(path))["model"]
    assert (model["form"], model["glimpses"], model["product_activation"]) == ("vqa-pytorch", 3, "tanh")
    assert (model["encoder"]["tokenizer"], model["encoder"]["max_tokens"]) == ("mcb", 26)


def test_a_dual_encoder_is_shown_under_model_and_has_no_checkpoint() -> None:
    tree = read_yaml(shown(REPOSITORY / "configs" / "clip_coco.yaml"))
    assert tree["model"] == {"network": "open_clip", "name": "RN50-quickgelu", "pretrained": "openai"}
    assert "checkpoint" not in tree and "dual_encoder" not in tree


def test_paths_stay_as_given(tmp_path: Path) -> None:
    split = {"questions": "$DATA/q.json", "images": ["~/a", "/b"], "labels": "labels.txt"}
    path = written(tmp_path, {"root": "~/vqa", "checkpoint": "m.safetensors", "splits": {"val": split}})
    tree = read_yaml(shown(path))
    assert (tree["root"], tree["checkpoint"]) == ("~/vqa", "m.safetensors")
    assert split.items() <= tree["splits"]["val"].items()


# Texts that are hard to write


HARD = [
    "0o17", "0x1F", "010", "1e3", "1E+3", ".5", "5.", "-7", "1:30", "1_000", ".inf", ".nan", "yes", "null",
    "~", "", " a", "a ", "a: b", "a # b", "- a", "<<", "=", "@a", "a\nb", "a\tb", "2001-02-03", "é", "这",
    "\x00", "\x1b[31m", "\x85", "\u2028", "\u202e", "\ufeff", "\U000e0001", "😀", "\ud800", "'", '"',
    "a" * 300, "a " * 200, "{image_id}", "!!int 3", "&a", "*a", "%", "`", "|", ">",
]  # fmt: skip


def test_a_text_is_read_as_it_was(tmp_path: Path) -> None:
    split = {"questions": "q.json", "images": "images", "labels": [f"{text}x" for text in HARD]}
    # A lone surrogate as a split's name is more than pydantic bears.
    splits: dict[str, Any] = {text.replace("\ud800", "s"): split | {"format": text} for text in HARD}
    path = tmp_path / "config.yaml"
    path.write_text(write_yaml({"checkpoint": "m", "splits": splits}, unicode=False))
    for text, read in ((shown(path), read_yaml), (shown(path, "--json"), json.loads)):
        assert "\x1b" not in text and "\u202e" not in text
        config = parse(read(text), "shown")
        assert config == parse({"checkpoint": "m", "splits": splits}, "given")
        assert [own.format for own in config.splits.values()] == HARD


def test_letters_beyond_ascii_are_shown_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, {"checkpoint": "données/模型.safetensors"})
    assert "checkpoint: données/模型.safetensors\n" in shown(path)
    assert '"checkpoint": "données/模型.safetensors"' in shown(path, "--json")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_output_without_these_letters_gets_escapes_that_are_read(tmp_path: Path, more: list[str]) -> None:
    path = written(tmp_path, {"checkpoint": "données/½.safetensors"})
    command = [sys.executable, "-m", "hvx", "config", "show", str(path), *more]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    text = done.stdout.decode("ascii")
    assert (json.loads(text) if more else read_yaml(text))["checkpoint"] == "données/½.safetensors"


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text()


@given(st.recursive(PLAIN, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=12))
def test_plain_values_are_written_as_yaml_and_read_again(value: Any) -> None:
    for unicode in (True, False):
        text = write_yaml(value, unicode)
        assert read_yaml(text) == value
        assert unicode or text.isascii()


def test_a_text_that_is_a_number_in_either_yaml_is_quoted() -> None:
    for text in ("010", "1:30", "1_000", "0o17", "1e3", "0x1F", "7"):
        assert write_yaml({"a": text}) == f"a: '{text}'\n"
        assert yaml.safe_load(write_yaml({"a": text})) == {"a": text}


def test_lists_of_plain_values_take_one_line_and_nothing_is_an_alias() -> None:
    shared = [1, 2]
    assert write_yaml({"a": shared, "b": [shared], "c": [], "d": {}}) == (
        "a: [1, 2]\nb:\n- [1, 2]\nc: []\nd: {}\n"
    )


# What is refused


def test_a_wrong_config_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, BASE)
    unknown = f"{path}: unknown key 'train.epoch' (did you mean 'epochs'?); known here: "
    assert error_of(path, "--set", "train.epoch=3").startswith(unknown)
    assert error_of(path, "--set", "seed=many") == f"{path}: seed: expected a whole number, not 'many'"
    assert error_of(path, "--set", "seed").startswith("--set seed: expected key=value")
    assert error_of(written(tmp_path, {"seed": 3})) == f"{path}: key 'checkpoint' is missing"
    path.write_text("checkpoint: [", encoding="utf-8")
    assert error_of(path).startswith(f"{path}: not valid YAML on line 1: ")
    assert error_of(tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: no such config file"
