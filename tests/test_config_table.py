"""Every key of the config: its default, the bounds of its numbers, the kinds of value it rejects."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hvx.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Config,
    DANConfig,
    ExplainConfig,
    MRNConfig,
    PickConfig,
    SplitConfig,
    TrainConfig,
    parse,
)
from hvx.errors import HvxError

SPLIT = {"questions": "questions.json", "images": "images"}
BASE = {
    "checkpoint": "m.safetensors",
    "splits": {"val": SPLIT},
    "explain": {"run": "run", "pick": [{"question": "what?"}]},
}

DEFAULTS = {
    "root": Path(),
    "seed": 0,
    "checkpoint": Path("m.safetensors"),
    "splits.val.questions": Path("questions.json"),
    "splits.val.annotations": None,
    "splits.val.images": Path("images"),
    "splits.val.format": None,
    "splits.val.image_name": None,
    "splits.val.accuracy": "vqa",
    "splits.val.objects": None,
    "splits.val.limit": None,
    "splits.val.exif_orientation": False,
    "splits.val.labels": None,
    "splits.val.template": "a photo of a {}",
    "dual_encoder": None,
    "model.network": "mlb",
    "model.form": "paper",
    "model.image.size": 448,
    "model.image.interpolation": "bicubic",
    "model.image.mean": (0.485, 0.456, 0.406),
    "model.image.std": (0.229, 0.224, 0.225),
    "model.backbone.architecture": "resnet152",
    "model.backbone.node": "layer4",
    "model.backbone.weights": None,
    "model.encoder.tokenizer": "nltk",
    "model.encoder.sentences": False,
    "model.encoder.max_tokens": None,
    "model.encoder.embedding": 620,
    "model.encoder.hidden": 2400,
    "model.encoder.candidate": "reset_before",
    "model.encoder.integration": "additive",
    "model.glimpses": 2,
    "model.joint": 1200,
    "model.visual_projection": "joint",
    "model.attention_visual_activation": "tanh",
    "model.attention_textual_activation": "tanh",
    "model.attention_product_activation": "none",
    "model.visual_activation": "tanh",
    "model.textual_activation": "tanh",
    "model.product_activation": "none",
    "model.mrn.blocks": 3,
    "model.mrn.pool": "mean",
    "model.mrn.inner": None,
    "model.mrn.shortcuts": True,
    "model.mrn.unit_length": False,
    "model.mutan.visual": 620,
    "model.mutan.textual": 310,
    "model.mutan.rank": 5,
    "model.mutan.attention_visual": 310,
    "model.mutan.attention_textual": 310,
    "model.mutan.attention_joint": 510,
    "model.mutan.attention_rank": 5,
    "model.mutan.visual_part_activation": "none",
    "model.mutan.textual_part_activation": "none",
    "model.mutan.attention_visual_part_activation": "none",
    "model.mutan.attention_textual_part_activation": "none",
    "model.mutan.sum_activation": "none",
    "model.mcb.attention": 512,
    "model.dan.steps": 2,
    "model.mi.pool": "mean",
    "model.mi.attention": False,
    "train.split": "train",
    "train.validation": "val",
    "train.answers": 2000,
    "train.min_word_count": 1,
    "train.start": None,
    "train.epochs": 20,
    "train.batch": 256,
    "train.rate": 1e-3,
    "train.dropout": 0.5,
    "train.weight_decay": 0.0,
    "train.gradient_clip": 10.0,
    "train.feature_cache": None,
    "train.workers": 1,
    "train.save_minutes": 10.0,
    "train.backbone_epochs": 0,
    "train.backbone_batch": 64,
    "train.backbone_rate": 2e-3,
    "explain.split": "val",
    "explain.run": Path("run"),
    "explain.batch_images": None,
    "explain.workers": None,
    "explain.precision": "float32",
    "explain.compile": False,
    "explain.product": "constant",
    "explain.cotangent": "joint",
    "explain.pick.0.question": "what?",
    "explain.pick.0.ground_truth": None,
    "explain.pick.0.question_id": None,
    "explain.pick.0.figure": "figure",
    "explain.pick.0.printed_tokens": (),
    "explain.pick.0.printed_z": (),
    "explain.heatmap.size": None,
    "explain.heatmap.dtype": "float16",
    "explain.gradient": False,
    "explain.shard_questions": 256,
    "explain.on_error": "skip",
}

TINY = math.ulp(0.0)
BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "splits.val.limit": (1, 10**9),
    "model.image.size": (1, 4096),
    "model.encoder.max_tokens": (1, 10_000),
    "explain.heatmap.size": (1, 4096),
    "model.image.mean.0": (-1000.0, 1000.0),
    "model.image.mean.1": (-1000.0, 1000.0),
    "model.image.mean.2": (-1000.0, 1000.0),
    "model.image.std.0": (1e-3, 1000.0),
    "model.image.std.1": (1e-3, 1000.0),
    "model.image.std.2": (1e-3, 1000.0),
    "model.encoder.embedding": (1, 65_536),
    "model.encoder.hidden": (1, 65_536),
    "model.glimpses": (0, 64),
    "model.joint": (1, 65_536),
    "model.mrn.blocks": (1, 64),
    "model.mrn.inner": (1, 65_536),
    "model.mutan.visual": (1, 65_536),
    "model.mutan.textual": (1, 65_536),
    "model.mutan.rank": (1, 64),
    "model.mutan.attention_visual": (1, 65_536),
    "model.mutan.attention_textual": (1, 65_536),
    "model.mutan.attention_joint": (1, 65_536),
    "model.mutan.attention_rank": (1, 64),
    "model.mcb.attention": (1, 65_536),
    "model.dan.steps": (1, 64),
    "train.answers": (1, 10**9),
    "train.min_word_count": (1, 10**9),
    "train.epochs": (1, 100_000),
    "train.batch": (1, 65_536),
    "train.rate": (TINY, 100.0),
    "train.dropout": (0.0, math.nextafter(1.0, 0.0)),
    "train.weight_decay": (0.0, 100.0),
    "train.gradient_clip": (TINY, 1e9),
    "train.workers": (0, 256),
    "train.save_minutes": (0.0, 1e6),
    "train.backbone_epochs": (0, 100_000),
    "train.backbone_batch": (1, 65_536),
    "train.backbone_rate": (TINY, 100.0),
    "explain.batch_images": (1, 65_536),
    "explain.workers": (0, 256),
    "explain.pick.0.printed_z.0": (-1e6, 1e6),
    "explain.shard_questions": (1, 10**9),
}


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Key → value of all below ``value``."""
    if isinstance(value, BaseModel):
        parts = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        parts = [(str(number), item) for number, item in enumerate(value)]
    else:
        return {key: value}
    return {k: v for name, part in parts for k, v in leaves(part, f"{key}.{name}".lstrip(".")).items()}


def tree_with(key: str, value: Any) -> dict[str, Any]:
    """A small config whose ``key`` has this value."""
    tree: dict[str, Any] = {
        "checkpoint": "m.safetensors",
        "splits": {"val": dict(SPLIT)},
        "model": {"image": {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}},
        "explain": {"run": "run", "pick": [{"question": "what?"}]},
    }
    if value == "hiecoatt":
        tree["model"]["encoder"] = {"embedding": 8, "hidden": 8}
    if "printed_z" in key:
        tree["explain"]["pick"][0] |= {"printed_tokens": ["what"], "printed_z": [0.0]}
    at: Any = tree
    *path, last = key.split(".")
    for part in path:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    at[int(last) if isinstance(at, list) else last] = value
    return tree


def at(config: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(config, (tuple, dict)):
            config = config[int(part)] if isinstance(config, tuple) else config[part]
        else:
            config = getattr(config, part)
    return config


def error_of(key: str, value: Any) -> str:
    with pytest.raises(HvxError) as raised:
        parse(tree_with(key, value), "c.yaml")
    said = str(raised.value)
    assert said.startswith(f"c.yaml: {key}: "), said
    return said.removeprefix(f"c.yaml: {key}: ")


def test_every_default_is_the_one_of_this_table() -> None:
    found = leaves(parse(BASE, "c.yaml"))
    assert found == DEFAULTS
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in DEFAULTS.items()
    }


def test_what_a_config_leaves_out() -> None:
    config = Config(checkpoint=Path("a"))
    assert (config.splits, config.explain, config.train) == ({}, None, TrainConfig())
    assert ExplainConfig(run=Path("a")).pick == ()
    assert (MRNConfig().blocks, DANConfig().steps) == (3, 2)


def test_every_number_has_bounds_in_the_table() -> None:
    numbers = {key for key, value in DEFAULTS.items() if type(value) in {int, float}}
    optional = {
        "splits.val.limit", "explain.batch_images", "explain.workers",
        "model.encoder.max_tokens", "explain.heatmap.size", "model.mrn.inner",
    }  # fmt: skip
    lists = {f"model.image.{name}.{place}" for name in ("mean", "std") for place in range(3)}
    assert set(BOUNDS) == numbers | optional | lists | {"explain.pick.0.printed_z.0"}


@pytest.mark.parametrize("key", BOUNDS)
def test_a_number_is_accepted_up_to_its_bounds(key: str) -> None:
    low, high = BOUNDS[key]
    for value in (low, high):
        assert at(parse(tree_with(key, value), "c.yaml"), key) == value
    whole = type(low) is int
    below = low - 1 if whole else math.nextafter(low, -math.inf)
    above = high + 1 if whole else math.nextafter(high, math.inf)
    for value in (below, above):
        said = error_of(key, value)
        assert said.startswith("expected a number ")
        assert said.endswith(f", not {value}")


@pytest.mark.parametrize("key", BOUNDS)
def test_a_number_is_no_boolean_no_text_and_finite(key: str) -> None:
    whole = type(BOUNDS[key][0]) is int
    kind = "a whole number" if whole else "a number"
    for value in (True, False):
        assert error_of(key, value) == f"expected {kind}, not {value}"
    assert error_of(key, "word") == f"expected {kind}, not 'word'"
    assert error_of(key, [1]) == f"expected {kind}, not [1]"
    for text in ("5", "010", "1:30", "1_000"):
        hint = "written without quotes, leading zeros, ':' and '_'"
        assert error_of(key, text) == f"expected {kind}, {hint}, not '{text}'"
    for value in (math.inf, -math.inf, math.nan):
        error = error_of(key, value)
        assert error == f"expected a {'whole' if whole else 'finite'} number, not {value}"
    if whole:
        assert error_of(key, 1.5) == "expected a whole number, not 1.5"
        assert error_of(key, 2.0) == "expected a whole number, not 2.0"
    else:
        value = 1 if key != "train.dropout" else 0
        assert at(parse(tree_with(key, value), "c.yaml"), key) == value


def test_a_number_beyond_all_printing_is_rejected() -> None:
    assert error_of("seed", 10**23).endswith(f", not {10**23}")
    assert error_of("seed", 1 << 100_000).endswith(", not a number of 100,001 bits")


@pytest.mark.parametrize("key", [key for key, value in DEFAULTS.items() if isinstance(value, bool)])
def test_a_flag_is_a_boolean_alone(key: str) -> None:
    for value in (True, False):
        assert at(parse(tree_with(key, value), "c.yaml"), key) is value
    for wrong in (0, 1, 1.0, "true", "yes", None):
        assert error_of(key, wrong).startswith("expected true or false, not ")


TEXTS = {
    "splits.val.format", "splits.val.image_name", "splits.val.template",
    "model.backbone.architecture", "model.backbone.node", "model.backbone.weights",
    "train.split", "train.validation", "explain.split", "explain.pick.0.question",
    "explain.pick.0.ground_truth", "explain.pick.0.figure",
}  # fmt: skip
PATHS = {
    "root", "checkpoint", "splits.val.questions", "splits.val.annotations", "splits.val.images",
    "splits.val.objects", "train.start", "train.feature_cache", "explain.run",
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(TEXTS | PATHS))
def test_a_text_that_yaml_reads_as_something_else_is_to_be_quoted(key: str) -> None:
    expected = "expected a path" if key in PATHS else "expected text"
    why = "YAML reads yes, no, on, off, true and false as booleans; put the value in quotes"
    assert error_of(key, True) == f"{expected}, not true: {why}"
    assert error_of(key, False) == f"{expected}, not false: {why}"
    assert error_of(key, 3) == f"{expected}, not the number 3: put it in quotes"
    assert error_of(key, 1.5) == f"{expected}, not the number 1.5: put it in quotes"
    assert error_of(key, date(2001, 2, 3)) == f"{expected}, not the date 2001-02-03: put it in quotes"
    if key == "splits.val.images":  # the one that may be a list
        assert at(parse(tree_with(key, ["a", "b"]), "c.yaml"), key) == (Path("a"), Path("b"))
        for wrong in ([], [3], ["a", None], [["a"]]):
            assert error_of(key, wrong) == f"expected a path or a list of paths, not {wrong}"
    else:
        assert error_of(key, ["a"]) == f"{expected}, not ['a']"


def test_the_id_of_a_pick_is_an_integer_or_a_text() -> None:
    key = "explain.pick.0.question_id"
    for value in (-(2**63), 2**63 - 1, "05515938", "n1"):
        assert at(parse(tree_with(key, value), "c.yaml"), key) == value
    for wrong in (True, 1.5, "", [1]):
        assert error_of(key, wrong).startswith("expected an integer or a text, not ")
    assert error_of(key, 2**63).startswith("expected an integer of 64 bits; put a longer id in quotes, not ")


def test_printed_tokens_are_texts() -> None:
    tree = tree_with("explain.pick.0.printed_z", [1.0, 2.0])
    tree["explain"]["pick"][0]["printed_tokens"] = ["how", 2]
    with pytest.raises(HvxError) as raised:
        parse(tree, "c.yaml")
    assert str(raised.value) == (
        "c.yaml: explain.pick.0.printed_tokens.1: expected text, not the number 2: put it in quotes"
    )


CHOICES = {
    "model.network": ["mlb", "mrn", "mutan", "mcb", "gated", "dan", "mi", "hiecoatt"],
    "model.form": ["paper", "torch7", "vqa-pytorch"],
    "model.image.interpolation": ["bilinear", "bicubic"],
    "model.encoder.tokenizer": ["nltk", "mcb"],
    "splits.val.accuracy": ["vqa", "evalai"],
    "explain.heatmap.dtype": ["float16", "uint8"],
    "model.encoder.candidate": ["reset_before", "reset_after", "reset_after_bias"],
    "model.encoder.integration": ["additive", "multiplicative"],
    "model.mi.pool": ["mean", "max"],
    "model.visual_projection": ["joint", "per_glimpse"],
    **{
        f"model.{place}_activation": ["none", "tanh", "relu", "sigmoid"]
        for place in (
            "attention_visual",
            "attention_textual",
            "attention_product",
            "visual",
            "textual",
            "product",
        )
    },
    "model.mrn.pool": ["mean", "max"],
    **{
        f"model.mutan.{place}_activation": ["none", "tanh", "relu", "sigmoid"]
        for place in (
            "visual_part",
            "textual_part",
            "attention_visual_part",
            "attention_textual_part",
            "sum",
        )
    },
    "explain.precision": ["float32", "bfloat16"],
    "explain.product": ["constant", "free"],
    "explain.cotangent": ["joint", "score"],
    "explain.on_error": ["skip", "stop"],
}


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_names_all_that_it_accepts(key: str) -> None:
    for value in CHOICES[key]:
        assert at(parse(tree_with(key, value), "c.yaml"), key) == value
    *most, last = (f"'{choice}'" for choice in CHOICES[key])
    more = "; a dual encoder is 'open_clip' or 'transformers'" if key == "model.network" else ""
    assert error_of(key, "other") == f"expected {', '.join(most)} or {last}, not 'other'{more}"


def test_the_table_has_every_key_of_every_kind() -> None:
    tuples = {key for key, value in DEFAULTS.items() if isinstance(value, tuple)}
    flags = {key for key, value in DEFAULTS.items() if isinstance(value, bool)}
    numbers = {key for key in BOUNDS if key in DEFAULTS} | {"explain.pick.0.question_id"}
    kinds = TEXTS | PATHS | set(CHOICES) | flags | numbers | tuples
    assert kinds | {"splits.val.labels", "dual_encoder"} == set(DEFAULTS)


# Dual encoders


DUAL = {key: value for key, value in BASE.items() if key != "checkpoint"}


def test_a_dual_encoder_is_described_under_model() -> None:
    model = {"network": "open_clip", "name": "RN50", "pretrained": "openai"}
    config = parse(DUAL | {"model": model}, "c.yaml")
    assert config.dual_encoder is not None and config.dual_encoder.pretrained == "openai"
    dumped = config.model_dump(mode="json")
    assert dumped["model"] == model and "dual_encoder" not in dumped
    assert parse(dumped, "run.json") == config
    assert parse(DUAL | {"model": model}, "c.yaml", ["model.name=b"]).dual_encoder.name == "b"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"network": "open_clip"}, "c.yaml: key 'model.name' is missing"),
        (
            {"network": "open_clip", "nam": "a"},
            "c.yaml: unknown key 'model.nam' (did you mean 'name'?); known here: name, network, pretrained",
        ),
        (
            {"network": "transformers", "name": "a", "pretrained": "b"},
            "c.yaml: model: pretrained is for network: open_clip; of transformers `name` says it all",
        ),
        ({"network": "open_clip", "name": 3}, "c.yaml: model.name: expected text, not the number 3"),
    ],
)
def test_a_dual_encoder_that_is_none_is_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(HvxError) as raised:
        parse(DUAL | {"model": model}, "c.yaml")
    assert str(raised.value).startswith(said)
    with pytest.raises(
        HvxError, match="unknown key 'dual_encoder'; a dual encoder is described under 'model'"
    ):
        parse(BASE | {"dual_encoder": model}, "c.yaml")


def test_labels_are_texts_that_differ_or_a_file() -> None:
    key = "splits.val.labels"
    assert at(parse(tree_with(key, ["a", "b"]), "c.yaml"), key) == ("a", "b")
    config = parse(tree_with(key, "labels.txt") | {"root": "r"}, "c.yaml")
    assert config.split("val").labels == Path("r/labels.txt")
    assert parse(config.model_dump(mode="json"), "run.json") == config
    for wrong in (["a"], ["a", "a"]):
        assert error_of(key, wrong).startswith("expected two labels or more, no two of them alike, not ")
    assert error_of(key, 3) == "expected a list of texts, or a file with one a line, not 3"
    assert error_of(key, ["a", 3]).startswith("expected texts")
    for template in ("a photo", "{} and {}", "a photo of a {name}"):
        assert error_of("splits.val.template", template).startswith("expected a text with one {}, such as ")


# Values that would hang or flood what shows them


def test_a_value_of_the_wrong_kind_is_shown_in_short_however_large_it_is() -> None:
    value: Any = [1]
    for _ in range(60):
        value = [value] * 10
    said = error_of("seed", value)
    assert said == "expected a whole number, not [[[[...], [...], [...], [...], [...], [...], ...], [[...]..."
    loop: list[Any] = []
    loop.append(loop)
    assert error_of("seed", loop) == "expected a whole number, not [[[[...]]]]"
    assert error_of("seed", {"a": {"b": {"c": {"d": 1}}}}).endswith("not {'a': {'b': {'c': {...}}}}")


@pytest.mark.parametrize(
    ("key", "kind"),
    [("model", "a section of keys"), ("splits", "a section of keys"), ("splits.val", "a section of keys"),
     ("train", "a section of keys"), ("explain.pick", "a list"), ("model.image.mean", "a list")],
)  # fmt: skip
def test_what_has_parts_is_no_plain_value(key: str, kind: str) -> None:
    assert error_of(key, 3) == f"expected {kind}, not 3"


def test_mean_and_deviation_have_three_parts() -> None:
    for key in ("model.image.mean", "model.image.std"):
        for wrong in ([0.5] * 2, [0.5] * 4):
            with pytest.raises(HvxError, match=key):
                parse(tree_with(key, wrong), "c.yaml")


# Checks of several values together


@pytest.mark.parametrize(("tokens", "scores"), [(0, 1), (1, 0), (2, 1), (1, 2)])
def test_printed_scores_are_one_for_each_token(tokens: int, scores: int) -> None:
    pick = {"question": "what?", "printed_tokens": ["a"] * tokens, "printed_z": [1.0] * scores}
    with pytest.raises(HvxError) as raised:
        parse({**BASE, "explain": {"run": "run", "pick": [pick]}}, "c.yaml")
    given = f"{scores} printed_z and {tokens} printed_tokens"
    said = f"c.yaml: explain.pick.0: expected one printed_z for each of printed_tokens; there are {given}"
    assert str(raised.value) == said


@pytest.mark.parametrize("name", ["a", "Figure 3", "a-b_c 1", "é", "a" * 40, "3"])
def test_a_figure_has_a_name_that_a_file_can_have(name: str) -> None:
    assert PickConfig(question="what?", figure=name).figure == name


@pytest.mark.parametrize("name", ["", " a", "-a", "a/b", "..", "a.png", "a\n", "a" * 41])
def test_a_figure_whose_name_no_file_should_have_is_rejected(name: str) -> None:
    said = error_of("explain.pick.0.figure", name)
    assert said.startswith("expected at most 40 letters, digits, '-', '_' and spaces, no space ahead, not ")


@pytest.mark.parametrize("width", ["03d", "012d", "x", "999d"])
def test_a_pattern_pads_with_at_most_three_digits(width: str) -> None:
    name = f"a{{image_id:{width}}}.jpg"
    assert SplitConfig(questions=Path("a"), images=Path("b"), image_name=name).image_name == name


def test_a_pattern_that_pads_more_is_rejected() -> None:
    error_of("splits.val.image_name", "a{image_id:1000d}.jpg")
    error_of("splits.val.image_name", "a{image_id:{image_id}d}.jpg")


def test_the_width_is_of_all_glimpses() -> None:
    tree = tree_with("model.joint", 7)
    for glimpses, width in ((0, 7), (1, 7), (3, 21)):
        tree["model"]["glimpses"] = glimpses
        assert parse(tree, "c.yaml").model.width == width


def test_the_glimpses_of_mutan_share_its_visual_width() -> None:
    model = {"network": "mutan", "glimpses": 3, "mutan": {"visual": 8}}
    with pytest.raises(HvxError, match=r"model: mutan\.visual: 8 is no multiple of the 3 glimpses"):
        parse({**BASE, "model": model}, "c.yaml")
    parse({**BASE, "model": model | {"network": "mlb"}}, "c.yaml")
    parse({**BASE, "model": model | {"glimpses": 0}}, "c.yaml")


def test_unit_length_is_of_the_mean() -> None:
    with pytest.raises(
        HvxError, match=r"model\.mrn: mrn\.unit_length is of the features' mean; pool is 'max'"
    ):
        parse({**BASE, "model": {"mrn": {"unit_length": True, "pool": "max"}}}, "c.yaml")
