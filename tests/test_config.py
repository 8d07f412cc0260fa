"""The config tree: its defaults, its overrides, and errors that name the key and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hvx.config import Config, ModelConfig, SplitConfig, expanded, load, parse
from hvx.errors import HvxError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SPLIT = {"questions": "questions.json", "images": "images"}
SMALL = {
    "checkpoint": "model.safetensors",
    "splits": {"val": SPLIT},
    "explain": {"run": "run"},
}


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(tree: Any) -> str:
    """What is said of a tree that is refused."""
    with pytest.raises(HvxError) as raised:
        parse(tree, "config.yaml")
    message = str(raised.value)
    assert message.startswith("config.yaml: ")
    assert "\n" not in message
    return message


def load_error(path: Path, *overrides: str) -> str:
    with pytest.raises(HvxError) as raised:
        load(path, list(overrides))
    return str(raised.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_of_the_project_loads(path: Path) -> None:
    config = load(path)
    assert config.explain is not None
    for name in {*config.splits, config.explain.split}:
        assert config.split(name).questions.suffix == ".json"


def test_the_project_has_configs() -> None:
    assert CONFIGS


def test_defaults_are_the_papers() -> None:
    config = parse({"checkpoint": "model.safetensors"}, "config.yaml")
    model = config.model
    assert (model.image.size, model.encoder.embedding, model.encoder.hidden) == (448, 620, 2400)
    assert (model.glimpses, model.joint, config.train.answers) == (2, 1200, 2000)
    assert model.backbone.architecture == "resnet152"
    assert config.root == Path()
    assert config.explain is None
    assert config.splits == {}


def test_a_file_is_read(tmp_path: Path) -> None:
    config = load(written(tmp_path, yaml.safe_dump(SMALL)))
    assert config == parse(SMALL, "elsewhere")
    assert config.splits["val"].questions == Path("questions.json")


def test_a_config_cannot_be_changed() -> None:
    config = parse(SMALL, "config.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


# Overrides


def test_an_override_wins_over_the_file_and_is_read_as_yaml(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump({**SMALL, "seed": 1}))
    config = load(
        path, ["seed=2", "explain.gradient=true", "splits.val.limit=5", "train.validation=null",
               "model.image.mean=[0.1, 0.2, 0.3]", "checkpoint=a=b"],
    )  # fmt: skip
    assert config.seed == 2
    assert config.explain is not None and config.explain.gradient is True
    assert config.splits["val"].limit == 5
    assert config.train.validation is None
    assert config.model.image.mean == (0.1, 0.2, 0.3)
    assert config.checkpoint == Path("a=b")


def test_overrides_make_the_sections_they_name_and_the_last_one_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "checkpoint: model.safetensors")
    config = load(path, ["explain.run=here", "train.epochs=3", "explain.run=there"])
    assert config.explain is not None and config.explain.run == Path("there")
    assert config.train.epochs == 3


def test_an_override_leaves_the_keys_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(SMALL))
    config = load(path, ["splits.val.limit=5"])
    assert config.splits["val"].questions == Path("questions.json")


@pytest.mark.parametrize("override", ["seed", "=3", "", ".=3", "a..b=3", "explain.=3", ".seed=3"])
def test_an_override_that_is_no_assignment_shows_one(tmp_path: Path, override: str) -> None:
    said = load_error(written(tmp_path, yaml.safe_dump(SMALL)), override)
    assert said == f"--set {override}: expected key=value, such as explain.batch_images=4"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[", " on line 1: expected the node content, but found '<stream end>'"),
        ("{a: 1, a: 2}", " on line 1: duplicate key 'a', first on line 1"),
        ("!!int 010", " on line 1: '010' is not a number"),
        ("2001-99-99", ": month must be in 1..12"),
        ("!!bool a", ": 'a'"),
        ("[" * 100, " on line 1: nested more than 50 deep"),
        ("\0", ": unacceptable character #x0000: special characters are not allowed"),
        ("3\n---\n4", " on line 2: but found another document"),
    ],
)
def test_an_override_whose_value_is_not_yaml_is_refused(tmp_path: Path, value: str, reason: str) -> None:
    said = load_error(written(tmp_path, yaml.safe_dump(SMALL)), f"seed={value}")
    assert said == f"--set seed={value}: not a YAML value{reason}"


def test_an_override_that_would_run_code_is_refused(tmp_path: Path) -> None:
    said = load_error(
        written(tmp_path, yaml.safe_dump(SMALL)), "seed=!!python/object/apply:os.system ['exit']"
    )
    assert "could not determine a constructor for the tag" in said


def test_a_long_override_is_shortened_in_its_error(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(SMALL))
    assert (
        load_error(path, "x" * 200)
        == f"--set {'x' * 200}: expected key=value, such as explain.batch_images=4"
    )
    assert load_error(path, "x" * 201).startswith(f"--set {'x' * 197}...: expected")
    assert load_error(path, f"{'x' * 300}=3").startswith(
        f"{path}: unknown key '{'x' * 197}...'; known here: "
    )


def test_an_override_below_a_value_names_the_value(tmp_path: Path) -> None:
    said = load_error(written(tmp_path, yaml.safe_dump(SMALL)), "explain.run.deep.er=3")
    assert said == "--set explain.run.deep.er=3: 'explain.run' is a value, not a section"


@pytest.mark.parametrize(
    ("override", "key", "meant"),
    [
        ("model.encoder.hiden=3", "model.encoder.hiden", "hidden"),
        ("splits.val.questons=a", "splits.val.questons", "questions"),
        ("sed=3", "sed", "seed"),
    ],
)
def test_a_misspelled_override_is_an_unknown_key(tmp_path: Path, override: str, key: str, meant: str) -> None:
    path = written(tmp_path, yaml.safe_dump(SMALL))
    assert load_error(path, override).startswith(f"{path}: unknown key '{key}' (did you mean '{meant}'?)")


def test_an_override_of_the_wrong_kind_names_key_and_value(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(SMALL))
    said = load_error(path, "explain.batch_images=four")
    assert said.startswith(f"{path}: explain.batch_images: ")
    assert said.endswith("not 'four'")


# Keys


@pytest.mark.parametrize(
    ("tree", "key", "meant"),
    [
        ({"epxlain": {"run": "run"}}, "epxlain", "explain"),
        ({"checkpont": "a"}, "checkpont", "checkpoint"),
        ({"splits": {"val": {"questons": "a", "images": "b"}}}, "splits.val.questons", "questions"),
        ({"splits": {"val": {"questions": "a", "images": "b", "limt": 3}}}, "splits.val.limt", "limit"),
        ({"model": {"encoder": {"hiden": 3}}}, "model.encoder.hiden", "hidden"),
        ({"model": {"form": "vqa-pytorch", "encoder": {"hiden": 3}}}, "model.encoder.hiden", "hidden"),
        ({"model": {"glimpse": 3}}, "model.glimpse", "glimpses"),
        ({"train": {"epoch": 3}}, "train.epoch", "epochs"),
        ({"explain": {"run": "run", "worker": 3}}, "explain.worker", "workers"),
        ({"explain": {"runn": "run"}}, "explain.runn", "run"),
    ],
)
def test_a_misspelled_key_is_named_and_the_right_one_suggested(
    tree: dict[str, Any], key: str, meant: str
) -> None:
    said = error_of({"checkpoint": "model.safetensors", **tree})
    assert said.startswith(f"config.yaml: unknown key '{key}' (did you mean '{meant}'?); known here: ")
    assert meant in said.partition("known here: ")[2].split(", ")


def test_a_misspelled_required_key_is_shown_rather_than_the_one_it_leaves_missing() -> None:
    said = error_of({"chekpoint": "model.safetensors"})
    assert said.startswith("config.yaml: unknown key 'chekpoint' (did you mean 'checkpoint'?)")


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    said = error_of({**SMALL, "explain": {"run": "run", "zzz": 1}})
    assert "did you mean" not in said
    known = (
        "batch_images, compile, cotangent, gradient, heatmap, on_error, pick, precision, product, run, "
        "shard_questions, split"
    )
    assert said.endswith(f"known here: {known}, workers")


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({}, "checkpoint"),
        ({"checkpoint": "a", "explain": {}}, "explain.run"),
        ({"checkpoint": "a", "splits": {"val": {"images": "b"}}}, "splits.val.questions"),
    ],
)
def test_a_missing_key_is_named(tree: dict[str, Any], key: str) -> None:
    assert error_of(tree) == f"config.yaml: key '{key}' is missing"


# Values


@pytest.mark.parametrize(
    ("tree", "key", "value"),
    [
        ({"checkpoint": None}, "checkpoint", "null"),
        ({"seed": -1}, "seed", "-1"),
        ({"seed": "many"}, "seed", "'many'"),
        ({"splits": []}, "splits", "[]"),
        ({"splits": {"val": 3}}, "splits.val", "3"),
        ({"splits": {"val": {"questions": "a", "images": "b", "limit": 0}}}, "splits.val.limit", "0"),
        ({"model": 3}, "model", "3"),
        ({"model": {"form": "author's"}}, "model.form", '"author\'s"'),
        ({"model": {"form": ["paper"]}}, "model.form", "['paper']"),
        ({"model": {"form": {"a": 1}}}, "model.form", "{'a': 1}"),
        ({"model": {"form": "vqa-pytorch", "encoder": None}}, "model.encoder", "null"),
        ({"model": {"glimpses": 1.5}}, "model.glimpses", "1.5"),
        ({"model": {"image": {"interpolation": "nearest"}}}, "model.image.interpolation", "'nearest'"),
        ({"model": {"image": {"std": [1, 0, 1]}}}, "model.image.std.1", "0"),
        ({"model": {"image": {"mean": [0, 0, float("nan")]}}}, "model.image.mean.2", "nan"),
        ({"train": {"rate": float("inf")}}, "train.rate", "inf"),
        ({"train": {"dropout": 1}}, "train.dropout", "1"),
        ({"explain": {"run": "run", "workers": -1}}, "explain.workers", "-1"),
        ({"explain": {"run": "run", "on_error": "ignore"}}, "explain.on_error", "'ignore'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(tree: dict[str, Any], key: str, value: str) -> None:
    said = error_of({"checkpoint": "model.safetensors", **tree})
    assert said.startswith(f"config.yaml: {key}: ")
    assert said.endswith(f", not {value}")
    assert "Config" not in said and "pathlib" not in said


def test_a_long_value_is_shortened() -> None:
    said = error_of({**SMALL, "seed": "x" * 1000})
    assert said == f"config.yaml: seed: expected a whole number, not '{'x' * 27}...{'x' * 28}'"


@pytest.mark.parametrize(
    "name",
    ["image.jpg", "", "{}", "{0}.jpg", "{image}.jpg", "{image_id", "{image_id}}", "{image_id:5000s}.jpg",
     "{image_id.nothing}", "{image_id[0]}", "{image_id:c}.jpg", "{image_id:.0}.jpg", "{image_id!r:.1}.jpg"],
)  # fmt: skip
def test_a_pattern_that_names_no_image_of_each_id_is_refused(name: str) -> None:
    said = error_of(
        {"checkpoint": "a", "splits": {"val": {"questions": "a", "images": "b", "image_name": name}}}
    )
    assert said.startswith("config.yaml: splits.val.image_name: ")
    assert "{image_id" in said
    assert said.endswith(f"not {name!r}")


@pytest.mark.parametrize(
    "name",
    ["{image_id}.jpg", "a/b/{image_id:06d}/x.png", "{image_id:x}", "{image_id:s}.jpg", "{{{image_id}}}"],
)
def test_a_pattern_with_the_image_id_is_taken(name: str) -> None:
    assert SplitConfig(questions=Path("a"), images=Path("b"), image_name=name).image_name == name


# Files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert load_error(path) == f"{path}: no such config file"


def test_what_is_not_a_text_file_is_refused_by_name(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\x89PNG\r\n\xff")
    for path in (tmp_path, binary, binary / "below", tmp_path / ("n" * 300)):
        assert load_error(path).startswith(f"{path}: cannot be read (config file): ")


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "checkpoint: a\nsplits:\n\tval: 3", "\0", "a: 2001-99-99", "a: !!timestamp b",
     "a: !!bool b", "a: " + "[" * 5000, "? {a: b}\n: 3", "a: 1\n---\nb: 2", "a: *nothing"],
)  # fmt: skip
def test_what_is_not_yaml_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    said = load_error(path)
    assert said.startswith(f"{path}: not valid YAML")
    assert "\n" not in said


def test_the_line_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "checkpoint: a\nseed: 3\nsplits: b: c\n")
    assert load_error(path).startswith(f"{path}: not valid YAML on line 3: ")


@pytest.mark.parametrize("text", ["", "# nothing", "- a\n- b", "word", "3"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert load_error(path).startswith(f"{path}: expected a mapping of keys such as 'checkpoint'")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system"])
def test_yaml_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, tag: str) -> None:
    trace = tmp_path / "trace"
    attack = f"{tag} ['touch {trace}']"
    path = written(tmp_path, f"checkpoint: {attack}")
    assert load_error(path).startswith(f"{path}: not valid YAML on line 1: ")
    load_error(written(tmp_path, yaml.safe_dump(SMALL)), f"checkpoint={attack}")
    assert not trace.exists()


# The three forms of MLB


def test_the_papers_form_joins_the_glimpses_and_adds_no_activation() -> None:
    model = ModelConfig()
    assert model == ModelConfig(form="paper")
    assert (model.visual_projection, model.glimpses) == ("joint", 2)
    assert (model.attention_product_activation, model.product_activation) == ("none", "none")
    assert (model.encoder.candidate, model.encoder.tokenizer) == ("reset_before", "nltk")


def test_the_authors_form_projects_each_glimpse_by_itself() -> None:
    assert ModelConfig(form="torch7").visual_projection == "per_glimpse"
    encoder = {"sentences": False, "max_tokens": None}
    own = ModelConfig.model_validate({"form": "torch7", "visual_projection": "joint", "encoder": encoder})
    assert own == ModelConfig().model_copy(update={"form": "torch7"})


def test_the_published_forms_read_questions_as_their_code_does() -> None:
    encoder = ModelConfig.model_validate({"form": "torch7", "encoder": {"tokenizer": "nltk"}}).encoder
    assert (encoder.sentences, encoder.max_tokens) == (True, 26)
    encoder = ModelConfig(form="vqa-pytorch").encoder
    assert (encoder.sentences, encoder.max_tokens) == (False, 26)
    assert (ModelConfig().encoder.sentences, ModelConfig().encoder.max_tokens) == (False, None)


def test_the_ports_form_has_its_own_options() -> None:
    model = ModelConfig(form="vqa-pytorch")
    assert (model.visual_projection, model.glimpses) == ("per_glimpse", 4)
    assert (model.attention_product_activation, model.product_activation) == ("tanh", "tanh")
    assert (model.encoder.candidate, model.encoder.tokenizer) == ("reset_after", "mcb")
    assert (model.encoder.embedding, model.encoder.hidden) == (620, 2400)


def test_keys_that_are_written_win_over_the_form() -> None:
    tree = {
        "form": "vqa-pytorch",
        "glimpses": 2,
        "product_activation": "none",
        "encoder": {"tokenizer": "nltk"},
    }
    model = parse({**SMALL, "model": tree}, "config.yaml").model
    assert (model.glimpses, model.product_activation, model.encoder.tokenizer) == (2, "none", "nltk")
    assert (model.attention_product_activation, model.encoder.candidate) == ("tanh", "reset_after")


def test_an_override_of_the_form_changes_what_the_file_leaves_open(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump({**SMALL, "model": {"glimpses": 3}}))
    model = load(path, ["model.form=vqa-pytorch"]).model
    assert (model.glimpses, model.product_activation) == (3, "tanh")


@pytest.mark.parametrize("form", ["paper", "torch7", "vqa-pytorch"])
def test_a_model_config_survives_json(form: str) -> None:
    tree = {
        "form": form,
        "glimpses": 3,
        "encoder": {"hidden": 7, "tokenizer": "nltk"},
        "visual_activation": "relu",
    }
    model = ModelConfig.model_validate(tree)
    assert ModelConfig.model_validate_json(model.model_dump_json()) == model


# Paths


def with_paths(root: str, questions: str) -> Config:
    split = {"questions": questions, "images": "images", "annotations": "a.json", "objects": "o.json"}
    return parse({"root": root, "checkpoint": "model", "splits": {"val": split}}, "config.yaml")


def test_paths_start_from_the_root_unless_absolute() -> None:
    split = with_paths("data", "/elsewhere/q.json").split("val")
    assert split.questions == Path("/elsewhere/q.json")
    assert split.images == Path("data/images")
    assert split.annotations == Path("data/a.json")
    assert split.objects == Path("data/o.json")


def test_files_that_a_split_does_not_name_stay_unnamed() -> None:
    split = parse(SMALL, "config.yaml").split("val")
    assert (split.annotations, split.objects) == (None, None)


def test_the_users_home_and_variables_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("HVX_DATA", "/data")
    assert with_paths("~/vqa", "q.json").split("val").questions == Path("/home/someone/vqa/q.json")
    assert with_paths("$HVX_DATA", "q.json").path(Path("m")) == Path("/data/m")
    assert with_paths("root", "${HVX_DATA}/q.json").split("val").questions == Path("/data/q.json")
    assert with_paths("root", "~/q.json").split("val").questions == Path("/home/someone/q.json")


def test_a_variable_that_is_not_set_is_left_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HVX_DATA", raising=False)
    assert expanded(Path("$HVX_DATA/q.json")) == Path("$HVX_DATA/q.json")


def test_a_path_that_leads_nowhere_is_refused_by_name() -> None:
    with pytest.raises(HvxError, match=r"^~no-such-user-here/x: no home folder"):
        with_paths("~no-such-user-here/x", "q.json").split("val")
    with pytest.raises(HvxError, match=r"^'q\\x00.json': a path cannot hold the character NUL"):
        with_paths("root", "q\0.json").split("val")


def test_a_split_that_is_not_there_is_named_with_those_that_are() -> None:
    tree = {**SMALL, "splits": dict.fromkeys(("val", "train"), SPLIT)}
    with pytest.raises(HvxError) as raised:
        parse(tree, "config.yaml").split("vale")
    assert str(raised.value) == "splits: no split 'vale' (did you mean 'val'?); the config has: train, val"
    with pytest.raises(HvxError, match="no split 'val'; the config has: none"):
        parse({"checkpoint": "a"}, "config.yaml").split("val")
