"""`--json` of info, ask, explain and measure: one JSON object on stdout, with the numbers that are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Tiny, hvx

import hvx as package
from hvx.store.reader import RunReader


def printed(*arguments: object, status: int = 0) -> dict[str, Any]:
    done = hvx(*arguments, "--json")
    assert done.returncode == status, done.stderr

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(done.stdout, parse_constant=refuse)
    return found


def test_info_of_a_run_has_its_numbers(finished_run: Path) -> None:
    found = printed("info", finished_run)
    with RunReader(finished_run) as reader:
        assert found["explanations"] == len(reader)
        assert found["tokens"] == reader.column("length").sum()
        assert found["unknown_tokens"] == (reader.column("unknown") != 0).sum()
        assert tuple(found["heatmap_size"]) == reader.heatmap_size
        assert found["identity"] == reader.about["identity"]
    assert (found["run"], found["zero_image_gradients"], found["glimpses"]) == (str(finished_run), 0, 2)


def test_info_of_a_checkpoint_has_its_config_and_counts(tiny: Tiny) -> None:
    found = printed("info", tiny.root / "model.safetensors")
    model = package.load_model(tiny.root / "model.safetensors", "cpu")
    assert found["model"] == model.config.model_dump(mode="json")
    assert (found["words"], found["answers"]) == (len(model.vocabulary), len(model.answers))
    assert found["parameters"] == sum(own.numel() for own in model.head.parameters())


def test_info_verify_counts_shards(finished_run: Path) -> None:
    found = printed("info", finished_run, "--verify")
    assert (found["shards_absent"], found["damaged"], found["finished"]) == (0, [], True)
    assert found["shards_whole"] == len(list((finished_run / "shards").glob("*.h5")))


def test_ask_has_answers_and_tokens(tiny: Tiny, tmp_path: Path) -> None:
    photo = sorted((tiny.root / "scenes" / "images").glob("SCENES_val_*"))[0]
    out = tmp_path / "why.png"
    asked = "what color is the zeppelin?"
    found = printed("ask", tiny.root / "model.safetensors", photo, asked, "-o", out, "--device", "cpu")
    why = package.Explainer(package.load_model(tiny.root / "model.safetensors", "cpu")).explain(photo, asked)
    assert (found["question"], found["image"], found["figure"]) == (asked, str(photo), str(out))
    assert out.exists() and found["answers"][0]["answer"] == why.answer
    assert [own["token"] for own in found["tokens"]] == why.tokens
    assert [own["unknown"] for own in found["tokens"]] == why.unknown
    assert [own["z"] for own in found["tokens"]] == pytest.approx(why.z.tolist(), abs=1e-5)


def test_explain_says_what_the_run_holds(tiny: Tiny, tmp_path: Path) -> None:
    settings = [part for setting in tiny.settings(tmp_path / "run") for part in ("--set", setting)]
    found = printed("explain", tiny.config, *settings, "--device", "cpu")
    with RunReader(tmp_path / "run") as reader:
        assert (found["explained"], found["failed"], found["left"]) == (len(reader), 0, 0)
    assert found["run"] == str(tmp_path / "run")


def test_measure_prints_what_it_writes(finished_run: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(finished_run, run)  # it keeps its maps there
    found = printed("measure", run, "--methods", "attention", "--sample", 12, "--curves", 0,
                    "--sanity", 0, "-o", out, "--device", "cpu")  # fmt: skip
    assert found == json.loads((out / "measure.json").read_text())
    assert found["claims"] and found["image_use"]


def test_a_wrong_method_is_told_in_a_line_before_pytorch_is_loaded(finished_run: Path) -> None:
    done = hvx("measure", finished_run, "--methods", "nonsense", "--json")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert "nonsense" in done.stderr


def test_figures_of_one_explanation_take_styles_and_methods(
    tiny: Tiny, finished_run: Path, tmp_path: Path
) -> None:
    item = package.open_run(finished_run)[0]
    color, paper = (np.asarray(item.figure(900, style).resize((90, 40))) for style in ("color", "paper"))

    def hue(picture: np.ndarray) -> float:
        """How much the channels differ in the map's column, the last picture."""
        return float(np.ptp(picture[:, 50:60].astype(int), axis=2).mean())

    assert hue(color) != hue(paper)
    several = item.figure(900, methods=["attention", "proposed", "gradient"])
    fewer = item.figure(900, methods=["proposed"])
    assert several.size != fewer.size and several.width == fewer.width
    outlined, plain = (np.asarray(item.figure(900, outline=own)) for own in (True, False))
    assert outlined.shape[0] > plain.shape[0]  # the legend has a line about the outline
    with RunReader(finished_run) as reader:
        path = reader.image_folders[0] / item.image_path
    model = package.load_model(tiny.root / "model.safetensors", "cpu")
    why = package.Explainer(model).explain(path, item.question)
    assert (np.asarray(why.figure(900, methods=["proposed", "gradient"])) != 255).any()
    assert repr(why).startswith(f"Explanation({item.question!r} → ") and len(repr(why)) < 200
    assert repr(model).startswith("VQAModel(mlb, ") and len(repr(package.Explainer(model))) < 200
    with pytest.raises(package.HvxError, match="nonsense"):
        why.figure(methods=["nonsense"])
