"""Whole runs by dual encoders, through the commands: captions, labels, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Tiny, hvx
from made_encoders import RESNET, VIT, folder_of, siglip_folder
from PIL import Image

from hvx.adapters.dual.encoder import image_branch
from hvx.adapters.dual.equations import explain_pairs
from hvx.adapters.dual.source import DualSource
from hvx.config import load
from hvx.data.images import load_input
from hvx.store.reader import RunReader

CAPTIONS = [("a.png", "a red star"), ("b.png", "the dog"), ("a.png", "two cats")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, captions, labels, three encoders and a config."""
    root = tmp_path_factory.mktemp("dual")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(root / name)
    rows = [{"image": image, "caption": caption} for image, caption in CAPTIONS]
    (root / "captions.json").write_text(json.dumps(rows))
    labels = [
        {"image": "a.png", "label": "dog"},
        {"image": "b.png", "label": 1},
        {"image": "c.png", "label": 0},
    ]
    (root / "labels.json").write_text(json.dumps(labels))
    folder_of(root / "resnet", RESNET)
    folder_of(root / "vit", VIT)
    siglip_folder(root / "siglip")
    own = {"images": str(root)}
    tree = {
        "root": str(root),
        "splits": {
            "val": {"questions": "captions.json", **own},
            "labels": {"questions": "labels.json", "labels": ["cat", "dog", "star"], **own},
        },
        "model": {"network": "open_clip", "name": "resnet"},
        "explain": {"split": "val", "run": "run", "cotangent": "score", "workers": 0, "shard_questions": 1},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(tree))
    return root


def explain(root: Path, **settings: Any) -> Any:
    values = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    return hvx("explain", root / "config.yaml", *(word for value in values for word in ("--set", value)))


@pytest.fixture(scope="module")
def run(root: Path) -> RunReader:
    done = explain(root)
    assert (done.returncode, done.stderr) == (0, "")
    return RunReader(root / "run")


def test_a_run_of_captions_holds_what_the_equations_give(root: Path, run: RunReader) -> None:
    config = load(root / "config.yaml")
    encoder = DualSource(config).encoder(torch.device("cpu"))
    for number, item in enumerate(run[place] for place in range(len(run))):
        name, caption = [CAPTIONS[0], CAPTIONS[2], CAPTIONS[1]][number]
        assert (item.image_path, item.question) == (name, caption)
        pixels = load_input(root / name, encoder.image)[None]
        found = explain_pairs(encoder, image_branch(encoder, pixels), [0], [caption], "score")
        assert np.allclose(item.heatmap, found.heatmap[0].numpy(), rtol=2e-3, atol=2e-3)
        assert item.tokens == [word.text for word in found.words[0]]
        assert np.allclose(item.token_z, found.z[0].numpy(), atol=1e-4)
        score = float(found.cosine[0])
        assert item.answer == f"cosine {score:.3f}" and np.isnan(item.probability)
        assert run.column("score")[number] == pytest.approx(score, abs=1e-6)
    assert run.about["identity"]["cotangent"] == "score"
    assert set(run.about["identity"]["weights"]) == {"open_clip_config.json", "open_clip_pytorch_model.bin"}
    assert "open_clip_torch" in run.about["versions"]


def test_a_run_is_continued_and_comes_out_the_same(root: Path) -> None:
    assert explain(root, explain__run="again").returncode == 0
    shards = sorted((root / "again" / "shards").iterdir())
    before = [path.read_bytes() for path in shards]
    for path in shards[1:]:
        path.unlink()
    done = explain(root, explain__run="again")
    assert done.returncode == 0 and "1 shards were done before" in done.stdout
    assert [path.read_bytes() for path in shards] == before


def test_labels_are_answers(root: Path) -> None:
    model = "{network: open_clip, name: vit}"
    assert explain(root, explain__split="labels", explain__run="labels", model=model).returncode == 0
    reader = RunReader(root / "labels")
    config = load(root / "config.yaml", [f"model={model}", "explain.split=labels"])
    encoder = DualSource(config).encoder(torch.device("cpu"))
    texts = [f"a photo of a {name}" for name in ("cat", "dog", "star")]
    for number, truth in enumerate(("dog", "dog", "cat")):
        item = reader[number]
        with torch.no_grad():
            v = encoder.network.encode_image(
                load_input(root / item.image_path, encoder.image)[None], normalize=True
            )
            t = encoder.network.encode_text(encoder.tokenizer(texts).ids, normalize=True)
        shares = (encoder.network.logit_scale.exp() * v @ t.t()).softmax(1)[0]
        best = int(shares.argmax())
        assert (item.answer, item.ground_truth) == (("cat", "dog", "star")[best], truth)
        assert item.probability == pytest.approx(float(shares[best]), abs=1e-5)
        assert item.tokens == texts[best].split() and item.question == "a photo of a {}"
        assert item.heatmap.shape == (4, 4)
        top = dict(item.top_answers)
        assert {name: top[name] for name in ("cat", "dog", "star")} == pytest.approx(
            dict(zip(("cat", "dog", "star"), shares.tolist(), strict=True)), abs=1e-5
        )


def test_siglip_says_how_likely_a_pair_is(root: Path) -> None:
    model = "{network: transformers, name: siglip}"
    done = explain(root, explain__run="siglip-run", model=model)
    assert (done.returncode, done.stderr) == (0, "")
    reader = RunReader(root / "siglip-run")
    encoder = DualSource(load(root / "config.yaml", [f"model={model}"])).encoder(torch.device("cpu"))
    item = reader[0]
    with torch.no_grad():
        logit = encoder.network(
            pixel_values=load_input(root / item.image_path, encoder.image)[None],
            input_ids=encoder.tokenizer([item.question]).ids,
        ).logits_per_image[0, 0]
    assert item.probability == pytest.approx(float(logit.sigmoid()), abs=1e-5)
    assert item.answer == f"probability {item.probability:.3f}"


def test_the_commands_take_such_runs(root: Path, run: RunReader, tmp_path: Path) -> None:
    said = hvx("info", root / "run").stdout
    assert "open_clip resnet, cotangent score" in said and "open_clip_pytorch_model.bin sha256 " in said
    assert hvx("figure", root / "run", "-o", tmp_path / "f.png").returncode == 0
    assert hvx("gallery", root / "run", "-o", tmp_path / "gallery").returncode == 0
    checked = json.loads(hvx("check", root / "config.yaml", "--json").stdout)
    assert checked["model"]["name"] == "resnet" and checked["problems"] == []
    done = hvx("measure", root / "run")
    assert done.returncode == 2
    assert f"{root / 'run'}: a run of a dual encoder (open_clip resnet); this measures" in done.stderr


def test_random_weights_are_said_to_be_so(root: Path) -> None:
    done = explain(root, model="{network: open_clip, name: vit, pretrained: random}", explain__run="random")
    assert done.returncode == 0
    assert done.stderr == "model.pretrained: vit has random weights: its explanations say nothing\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"explain__cotangent": "joint"}, "another cotangent ('score', now 'joint')"),
        ({"model__name": "vit"}, "another name ('resnet', now 'vit')"),
        ({"explain__precision": "bfloat16"}, "explain.precision: a dual encoder is explained in float32"),
        ({"explain__compile": "true"}, "explain.compile: for hvx's own networks"),
        ({"explain__product": "free"}, "explain.product: free moves F in V − F"),
        (
            {"explain__heatmap": "{size: 30}"},
            "explain.heatmap.size: expected a divisor of 64, the side of open_clip",
        ),
        (
            {"model__name": "vit", "explain__run": "x", "explain__gradient": "true"},
            "is explained at its patches, which have no color channels",
        ),
        ({"checkpoint": "m.safetensors"}, "checkpoint is for hvx's own networks"),
        ({"model__name": "absent"}, "model.name: open_clip has no model 'absent'"),
    ],
)
def test_what_cannot_be_done_is_refused(
    root: Path, run: RunReader, settings: dict[str, str], said: str
) -> None:
    done = explain(root, **settings)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (root / "x").exists()


def test_weights_that_were_replaced_are_refused(root: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "own", VIT)
    own = {"model": f"{{network: open_clip, name: {folder}}}", "explain__run": tmp_path / "run"}
    assert explain(root, **own).returncode == 0
    folder_of(tmp_path / "other", VIT, seed=1)
    (tmp_path / "other" / "open_clip_pytorch_model.bin").replace(folder / "open_clip_pytorch_model.bin")
    done = explain(root, **own)
    assert done.returncode == 2 and "holds a run with another weights" in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"explain__cotangent": "score"},
            "explain.cotangent: 'score' is for dual encoders, whose score is ΣF",
        ),
        ({"splits__val__labels": "[a, b]"}, "splits.val.labels: for dual encoders"),
    ],
)
def test_what_is_for_dual_encoders_alone(
    tiny: Tiny, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    values = tiny.settings(tmp_path / "run", **settings)
    if "splits__val__labels" in settings:  # rows without the questions of scenes
        (tmp_path / "rows.json").write_text('[{"image": "x.png"}]')
        values += [f"splits.val.questions={tmp_path / 'rows.json'}", "splits.val.annotations=null"]
        Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
        values += [f"splits.val.images={tmp_path}"]
    done = hvx("explain", tiny.config, *(word for value in values for word in ("--set", value)))
    assert done.returncode == 2 and said in done.stderr and not (tmp_path / "run").exists()
