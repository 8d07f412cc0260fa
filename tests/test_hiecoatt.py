"""Hierarchical co-attention (Lu et al. 2016) against loops in numpy, and what commands do with a run of it,
which has no heat maps and no z-scores."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import REPOSITORY, Tiny
from PIL import Image
from pydantic import ValidationError
from scipy.stats import spearmanr
from slow_heads import SlowHead, agree

import hvx
from hvx.cli import main
from hvx.config import ModelConfig
from hvx.measure.metrics.words import FAMILIES
from hvx.measure.report.words import run_tokens, word_means
from hvx.models.base import Head
from hvx.models.networks import new_head
from hvx.store.reader import RunReader

sys.path.insert(0, str(REPOSITORY / "scripts"))
from measure_textual import main as compare_readings

SIZES = {"network": "hiecoatt", "encoder": {"embedding": 4, "hidden": 4}, "joint": 5}
CHANNELS, LATTICE, WORDS, ANSWERS = 3, (2, 3), 6, 4
IMAGES, LENGTHS = [1, 0, 1], [4, 1, 2]
ROWS = [[2, 1, 3, 6], [4, 0, 0, 0], [3, 3, 0, 0]]


def _head() -> Head:
    torch.manual_seed(3)
    head = new_head(ModelConfig.model_validate(SIZES), CHANNELS, WORDS, ANSWERS).double().eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return head


def _softmax(x: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.exp(x) / np.exp(x).sum()
    return shares


class SlowHieCoAtt(SlowHead):
    """The network for one question on one image: words (T, d), features (M, S, S)."""

    def phrases(self, words: np.ndarray) -> np.ndarray:
        found = []
        for t in range(len(words)):
            windows = []
            for n in (1, 2, 3):
                own = [words[s] if s < len(words) else np.zeros(words.shape[1]) for s in range(t, t + n)]
                windows.append(np.tanh(self.linear(f"phrases.{n - 1}", np.concatenate(own))))
            found.append([max(window[i] for window in windows) for i in range(words.shape[1])])
        return np.array(found)

    def attend(self, level: int, cells: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = {name: self.p[f"attend.{level}.{name}.weight"] for name in (
            "affinity", "visual", "textual", "output_visual", "output_textual",
        )}  # fmt: skip
        affinity = np.array([[np.tanh(q @ p["affinity"] @ v) for v in cells] for q in words])
        seen, said = [], []
        for s, v in enumerate(cells):
            total = p["visual"] @ v + sum(p["textual"] @ q * affinity[t, s] for t, q in enumerate(words))
            seen.append(p["output_visual"][0] @ np.tanh(total))
        for t, q in enumerate(words):
            total = p["textual"] @ q + sum(p["visual"] @ v * affinity[t, s] for s, v in enumerate(cells))
            said.append(p["output_textual"][0] @ np.tanh(total))
        return _softmax(np.array(seen)), _softmax(np.array(said))

    def forward(self, features: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, Any, Any]:
        cells = np.array([np.tanh(self.linear("visual", f)) for f in features.reshape(CHANNELS, -1).T])
        phrases = self.phrases(words)
        levels = [words, phrases, np.array(self.states("encoder.gru", phrases))]
        attention, h = [], np.zeros(0)
        for level, own in enumerate(levels):
            seen, said = self.attend(level, cells, own)
            attention.append((seen, said))
            joined = sum(a * v for a, v in zip(seen, cells, strict=True))
            joined = joined + sum(a * q for a, q in zip(said, own, strict=True))
            h = np.tanh(self.linear(f"levels.{level}", np.concatenate([joined, h])))
        return self.linear("classifier", h), *zip(*attention, strict=True)


def test_forward_is_that_of_the_equations_written_out() -> None:
    head = _head()
    slow = SlowHieCoAtt(head)
    torch.manual_seed(4)
    features = torch.randn(2, CHANNELS, *LATTICE, dtype=torch.float64)
    embeddings = head.encoder.embed(torch.tensor(ROWS)).detach()
    lengths = torch.tensor(LENGTHS)
    # Whatever stands in the padding must not count.
    padded = torch.where((torch.arange(4) < lengths.unsqueeze(1)).unsqueeze(2), embeddings, 9.0)
    joint = head(features, head.image_terms(features), torch.tensor(IMAGES), padded, lengths).detach()
    assert joint.blocks == ()
    assert joint.attention is not None and joint.attention.shape == (3, 3, *LATTICE)
    assert joint.textual_attention is not None and joint.earlier_attention is not None
    for n, length in enumerate(LENGTHS):
        words = embeddings[n, :length].numpy()
        logits, seen, said = slow.forward(features[IMAGES[n]].numpy(), words)
        agree(joint.logits[n], logits)
        agree(joint.attention[n].flatten(1), np.array(seen))
        agree(joint.earlier_attention[n, :, :length], np.array(said[:2]))
        agree(joint.textual_attention[n, :length], np.array(said[2]))
        assert not joint.textual_attention[n, length:].any()
        assert not joint.earlier_attention[n, :, length:].any()


def test_a_question_without_tokens_has_an_answer_and_finite_gradients() -> None:
    head = _head().train()
    features = torch.randn(1, CHANNELS, *LATTICE, dtype=torch.float64)
    for width in (0, 2):
        embeddings = head.encoder.embed(torch.zeros(1, width, dtype=torch.long))
        empty = torch.tensor([0])
        joint = head(features, head.image_terms(features), empty, embeddings, empty)
        joint.logits.sum().backward()
        assert joint.logits.isfinite().all()
        assert joint.textual_attention is not None and not joint.textual_attention.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_learns_to_answer_by_a_word_and_a_cell() -> None:
    """Whether the cell that is marked holds what the word names: neither image nor question alone says it."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate(SIZES | {"encoder": {"embedding": 16, "hidden": 16}, "joint": 16})
    head = new_head(config, 3, 2, 2)
    features, images, rows, truths = [], [], [], []
    for n in range(200):
        kind, word = int(torch.randint(2, ())), int(torch.randint(2, ()))
        map = 0.1 * torch.randn(3, 2, 2)
        map[:, int(torch.randint(2, ())), int(torch.randint(2, ()))] += torch.eye(3)[kind] * 3
        features.append(map)
        images.append(n)
        rows.append([word + 1])
        truths.append(int(kind == word))
    inputs, asked, wanted = torch.stack(features), torch.tensor(rows), torch.tensor(truths)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(150):
        joint = head(
            inputs, head.image_terms(inputs), torch.tensor(images), head.encoder.embed(asked),
            torch.ones(200, dtype=torch.long),
        )  # fmt: skip
        loss = torch.nn.functional.cross_entropy(joint.logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert all(p.grad is not None for name, p in head.named_parameters() if "attend.0.output_t" not in name)


def test_scale_of_the_features_is_absorbed() -> None:
    head = _head()
    features = torch.randn(2, CHANNELS, *LATTICE, dtype=torch.float64)
    before = head.image_terms(2.5 * features)
    head.fold_feature_scale(2.5)
    torch.testing.assert_close(head.image_terms(features), before)


def test_embeddings_must_be_as_wide_as_states() -> None:
    with pytest.raises(ValidationError, match=r"hiecoatt needs that of encoder\.hidden, 6, not 4"):
        ModelConfig.model_validate({"network": "hiecoatt", "encoder": {"embedding": 4, "hidden": 6}})


@dataclass
class Levels:
    """A run of the network on the small split, its checkpoint, and the settings that made both."""

    run: Path
    checkpoint: Path
    tiny: Tiny
    photo: Path

    def settings(self, *more: str, run: Path | None = None) -> list[str]:
        given = self.tiny.settings(run or self.run, checkpoint=self.checkpoint, train__workers=0)
        sizes = ["model.network=hiecoatt", "model.encoder.embedding=12", "train.backbone_epochs=0"]
        return [str(self.tiny.config), *(a for s in [*given, *sizes, *more] for a in ("--set", s))]


@pytest.fixture(scope="module")
def levels(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Levels:
    root = tmp_path_factory.mktemp("levels")
    photo = sorted((tiny.root / "scenes" / "images").glob("*val*"))[0]
    made = Levels(root / "run", root / "m.safetensors", tiny, photo)
    _hvx("train", *made.settings(), "--device", "cpu")
    said = _hvx("explain", *made.settings(), "--device", "cpu").output
    assert "m.safetensors: hiecoatt has no Hadamard product: no heat maps, no z-scores" in said
    return made


def _hvx(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    return done


def test_a_run_has_answers_and_attention_of_three_levels_and_nothing_of_eqs_2_and_3(levels: Levels) -> None:
    with h5py.File(levels.run / "explanations.h5") as file:
        assert not {"heatmap", "heatmap_scale", "token_z", "token_saliency", "zero_gradient"} & set(file)
        assert file.attrs["method"] == "none: no Hadamard product; answers and attention"
        lengths = file["length"][:]
        assert file["attention"].shape[1] == 3
        np.testing.assert_allclose(file["attention"][:].sum((2, 3)), 1, atol=1e-5)
        said = [file[name][:] for name in ("word_attention", "phrase_attention", "textual_attention")]
        for own in said:
            np.testing.assert_allclose(np.nansum(own, 1), 1, atol=1e-5)
            assert (np.isnan(own) == (np.arange(own.shape[1]) >= lengths[:, None])).all()
        assert not np.allclose(np.nan_to_num(said[0]), np.nan_to_num(said[2]))


def test_a_run_holds_what_the_network_gives_for_each_question_alone(levels: Levels) -> None:
    """Also of later questions on an image, whose place in a batch is another one."""
    why = hvx.Explainer(hvx.load_model(levels.checkpoint, "cpu"))
    with hvx.open_run(levels.run) as run:
        for item in list(run)[:7]:
            alone = why.explain(levels.photo.parent / item.image_path, item.question)
            assert (alone.answer, alone.tokens) == (item.answer, item.tokens)
            assert item.attention is not None and item.textual_attention is not None
            assert item.word_attention is not None and item.phrase_attention is not None
            assert alone.attention is not None and alone.textual_attention is not None
            assert alone.earlier_attention is not None
            np.testing.assert_allclose(item.attention, alone.attention, atol=1e-5)
            np.testing.assert_allclose(item.textual_attention, alone.textual_attention, atol=1e-5)
            np.testing.assert_allclose(item.word_attention, alone.earlier_attention[0], atol=1e-5)
            np.testing.assert_allclose(item.phrase_attention, alone.earlier_attention[1], atol=1e-5)


def test_a_run_resumes_and_is_packed(levels: Levels, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _hvx("explain", *levels.settings(run=run), "--device", "cpu")
    with RunReader(run) as reader:
        before = [reader.column(name) for name in ("question_id", "attention", "word_attention", "answer")]
    sorted((run / "shards").iterdir())[1].unlink()
    _hvx("explain", *levels.settings(run=run), "--device", "cpu", "--pack")
    with RunReader(run) as reader:
        for name, own in zip(("question_id", "attention", "word_attention", "answer"), before, strict=True):
            np.testing.assert_array_equal(reader.column(name), own)
        assert (reader.has_heatmaps, reader.heatmap_size, reader.stores_scaled_heatmaps) == (
            False,
            (0, 0),
            False,
        )
    assert "whole" in _hvx("info", str(run), "--verify").output


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("explain.gradient=true", "gradient"),
        ("explain.product=free", "product"),
        ("explain.heatmap.dtype=uint8", "heatmap"),
        ("explain.heatmap.size=32", "heatmap"),
    ],
)
def test_what_is_said_of_heat_maps_is_refused(setting: str, key: str, levels: Levels, tmp_path: Path) -> None:
    said = _hvx("explain", *levels.settings(setting, run=tmp_path / "run"), "--device", "cpu", code=2).output
    assert f"explain.{key}: the network hiecoatt has no Hadamard product, and no heat maps" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["measure", "RUN"],
        ["figure", "RUN", "-o", "f.png", "--methods", "proposed,attention"],
        ["figure", "RUN", "-o", "f.png", "--by", "agreement"],
        ["gallery", "RUN", "-o", "g", "--methods", "grad-cam"],
    ],
)
def test_what_needs_heat_maps_says_that_there_are_none(
    command: list[str], levels: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = _hvx(*(str(levels.run) if part == "RUN" else part for part in command), code=2).output
    assert f"{levels.run}: no heat maps, no z-scores: its network has no Hadamard product" in said
    assert not list(tmp_path.iterdir())


def test_check_and_info_say_what_there_is(levels: Levels, tmp_path: Path) -> None:
    said = _hvx("check", *levels.settings(run=tmp_path / "run"), "--no-timing", "--json").output
    facts = json.loads(said)
    assert facts["run"]["heat maps"] == "none"
    assert any("no Hadamard product" in note for note in facts["notes"])
    said = _hvx("info", str(levels.run)).output
    assert re.search(r"heat maps: +none, and no z-scores: the network has no Hadamard product", said)
    assert "no gradient" not in said
    facts = json.loads(_hvx("info", str(levels.run), "--json").output)
    assert (facts["heatmap_size"], facts["glimpses"], facts["zero_image_gradients"]) == (None, 3, 0)
    said = _hvx("info", str(levels.checkpoint)).output
    assert (
        "hierarchical co-attention (Lu et al. 2016), parallel, 12 wide, attentions 10 wide; no Hadamard"
        in said
    )


def test_ask_draws_the_answer_and_what_is_attended_to(levels: Levels, tmp_path: Path) -> None:
    given = [
        str(levels.checkpoint),
        str(levels.photo),
        "what color is the star?",
        "-o",
        str(tmp_path / "f.png"),
    ]
    said = _hvx("ask", *given, "--device", "cpu").output
    assert "the network has no Hadamard product: there are no heat map and no z-scores" in said
    assert re.search(r"^what  color  is  the  star  \?$", said, re.MULTILINE)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > picture.height
    facts = json.loads(_hvx("ask", *given, "--device", "cpu", "--json").output)
    assert {token["z"] for token in facts["tokens"]} == {None}


def test_from_python(levels: Levels) -> None:
    why = hvx.Explainer(hvx.load_model(levels.checkpoint, "cpu")).explain(levels.photo, "is there a star?")
    assert (why.z, why.saliency, why.heatmap, why.gradient, why.word_heatmaps) == (None,) * 5
    assert "no heat map" in repr(why)
    assert why.figure(width=900).width == 900
    with pytest.raises(hvx.HvxError, match="methods: no heat maps: the network has no Hadamard product"):
        why.figure(methods=["grad-cam"])
    with hvx.open_run(levels.run) as run:
        item = run[0]
        assert (item.token_z, item.heatmap, item.zero_gradient) == (None, None, 0)
        assert "no heat map" in repr(item)
        assert item.figure(width=900).width == 900
        frame = run.to_dataframe()
        assert {"z", "zero_gradient"}.isdisjoint(frame.columns) and frame["tokens"][0] == item.tokens


def test_compares_answers_and_attention_with_a_run_that_has_heat_maps(
    levels: Levels, finished_run: Path, tmp_path: Path
) -> None:
    said = _hvx("compare", str(finished_run), str(levels.run), "--json").output
    pair = json.loads(said)["pairs"][0]["rank_correlation"]
    assert pair["heatmap"]["none"] == pair["token_z"]["none"] == "B without a Hadamard product"
    assert pair["attention"]["none"] is None


def test_a_run_that_lacks_only_some_of_what_eqs_2_and_3_give_is_damaged(
    finished_run: Path, tmp_path: Path
) -> None:
    with RunReader(finished_run) as reader:
        shapes = dict(reader._shapes)
    from hvx.store.reader import _check_shapes

    count = shapes["question_id"][0]
    for name in ("heatmap", "token_z", "token_saliency", "zero_gradient"):
        with pytest.raises(ValueError, match=f"{name} is missing"):
            _check_shapes({key: shape for key, shape in shapes.items() if key != name}, count)


def test_readings_of_words_are_compared_question_by_question(levels: Levels, finished_run: Path) -> None:
    """Against scipy, one question at a time; the tables have a row for each pair and each reading."""
    with RunReader(finished_run) as one, RunReader(levels.run) as other:
        z, attention, lengths = one.column("token_z"), other.column("phrase_attention"), one.column("length")
        assert one.column("question_id").tolist() == other.column("question_id").tolist()
        expected = np.mean(
            [spearmanr(a[:n], b[:n])[0] for a, b, n in zip(z, attention, lengths, strict=True)]
        )
    done = CliRunner().invoke(compare_readings, [f"mlb={finished_run}", f"levels={levels.run}"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if "|" in line]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    pairs = {(row[0], row[1]): row[2:] for row in rows if len(row) == 4}
    assert len(pairs) == 2 + 6, done.output  # two heads of the table, and four readings with each other
    found = pairs["mlb: z", "levels: attention, phrases"][0].split()[0]
    assert float(found) == pytest.approx(expected, abs=6e-4)
    own = next(row for row in rows if row[0] == "mlb: z" and len(row) > 4)
    with RunReader(finished_run) as reader:
        means = word_means(run_tokens(reader), 0).families
    assert [float(cell.split()[0]) for cell in own[1:-1] if cell != "–"] == [
        pytest.approx(means[family].value, abs=6e-4) for family in FAMILIES if means[family].known
    ]
