"""Dual encoders of open_clip and transformers against a second version, and against ``explain_product``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_encoders import CONVNEXT, RESNET, VIT, clip_folder, folder_of, siglip_folder
from torch import Tensor, nn
from torch.nn import functional

import hvx
from hvx.adapters.dual import huggingface, open_clip_model
from hvx.adapters.dual.encoder import DualEncoder, image_branch
from hvx.adapters.dual.equations import Cotangent, Pairs, explain_pairs
from hvx.adapters.dual.labels import Labels
from hvx.errors import HvxError

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
CAPTIONS = ["a red star", "a photo of the dog's skateboarding", "star"]
IMAGES = [0, 1, 0]
TOWERS: dict[str, dict[str, Any]] = {"resnet": RESNET, "vit": VIT, "convnext": CONVNEXT}


def loaded(folder: Path) -> DualEncoder:
    return open_clip_model.load(open_clip_model.find(str(folder), None, Path()), 0, CPU)


@pytest.fixture(scope="module", params=TOWERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    return loaded(folder_of(tmp_path_factory.mktemp("open_clip") / "model", TOWERS[request.param]))


@pytest.fixture(scope="module", params=[clip_folder, siglip_folder])
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    folder = request.param(tmp_path_factory.mktemp("hf") / "model")
    return huggingface.load(huggingface.find(str(folder), Path()), CPU)


def pixels(encoder: DualEncoder, count: int = 2) -> Tensor:
    size = encoder.image.size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def explained(encoder: DualEncoder, cotangent: Cotangent, **more: Any) -> Pairs:
    branch = image_branch(encoder, pixels(encoder))
    return explain_pairs(encoder, branch, IMAGES, CAPTIONS, cotangent, **more)


# A second version, one pair at a time


@contextmanager
def clamped(network: nn.Module) -> Iterator[None]:
    """Guided backpropagation by hooks on what the ReLU modules put out."""

    def positive(module: nn.Module, given: Any, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient.clamp(min=0))

    handles = [
        module.register_forward_hook(positive) for module in network.modules() if isinstance(module, nn.ReLU)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def slowly(encoder: DualEncoder, pixel: Tensor, text: str, cotangent: Cotangent) -> tuple[Tensor, Tensor]:
    """H and |∇q| summed over D, of one image (C, H, W) and one text."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Tensor) -> Tensor:
            kept[name] = out.detach().requires_grad_()
            return kept[name] * 1

        return hook

    handles = [encoder.embeddings.register_forward_hook(keep("words"))]
    if encoder.patches is not None:
        handles.append(encoder.patches.register_forward_hook(keep("image")))
    kept["image"] = pixel[None].clone().requires_grad_()
    given = kept["image"]
    with clamped(encoder.network):
        v = encoder.image_tower(given)
        v = v / v.norm(dim=1, keepdim=True)
        t = encoder.text_tower(encoder.tokenizer([text]).ids)
        t = t / t.norm(dim=1, keepdim=True)
        for handle in handles:
            handle.remove()
        f = (v * t).detach()
        to_v, to_t = (t.detach(), v.detach()) if cotangent == "score" else (v.detach() - f, t.detach() - f)
        at_image = torch.autograd.grad((v * to_v).sum(), kept["image"])[0]
        at_words = torch.autograd.grad((t * to_t).sum(), kept["words"])[0]
    z = (at_image - at_image.mean((2, 3), keepdim=True)) / at_image.std((2, 3), keepdim=True)
    return z.abs().sum(1)[0], at_words.abs().sum(2)[0]


def check_against_slow(encoder: DualEncoder, cotangent: Cotangent) -> None:
    found, images = explained(encoder, cotangent), pixels(encoder)
    for row, (image, text) in enumerate(zip(IMAGES, CAPTIONS, strict=True)):
        heatmap, words = slowly(encoder, images[image], text, cotangent)
        assert torch.allclose(found.heatmap[row], heatmap, rtol=2e-3, atol=2e-4)
        own = torch.stack([words[list(word.positions)].sum() for word in found.words[row]])
        assert torch.allclose(found.saliency[row, : len(own)], own, rtol=1e-3, atol=1e-7)
        z = torch.zeros(1) if len(own) == 1 else (own - own.mean()) / own.std()
        assert torch.allclose(found.z[row, : len(own)], z, atol=1e-3)
        assert found.z[row, len(own) :].isnan().all()


@pytest.mark.parametrize("cotangent", ["joint", "score"])
def test_open_clip_as_a_slow_version_has_it(encoder: DualEncoder, cotangent: Cotangent) -> None:
    check_against_slow(encoder, cotangent)


@pytest.mark.parametrize("cotangent", ["joint", "score"])
def test_transformers_as_a_slow_version_has_it(foreign: DualEncoder, cotangent: Cotangent) -> None:
    check_against_slow(foreign, cotangent)


class Score(nn.Module):
    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.network, self.encoder = encoder.network, encoder

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        v = functional.normalize(self.encoder.image_tower(images), dim=-1)
        return (v * functional.normalize(self.encoder.text_tower(ids), dim=-1)).sum(1)


@pytest.mark.parametrize("cotangent", ["joint", "score"])
def test_what_explain_product_finds(encoder: DualEncoder, foreign: DualEncoder, cotangent: Cotangent) -> None:
    for one in (encoder, foreign):
        found, images = explained(one, cotangent), pixels(one)[IMAGES]
        ids = one.tokenizer(CAPTIONS).ids
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, words in enumerate(found.words):
            mask[row, [place for word in words for place in word.positions]] = True
        other = hvx.explain_product(
            Score(one), (images, ids), image=images if one.patches is None else one.patches, words=ids,
            mask=mask, rule=one.rule, cotangent=cotangent,
        )  # fmt: skip
        assert other.heatmap is not None and other.saliency is not None
        assert torch.allclose(found.heatmap, other.heatmap, rtol=1e-3, atol=1e-4)
        assert torch.allclose(found.cosine, other.product.sum(1), atol=1e-6)
        per_token = (other.saliency * mask).sum(1)
        assert torch.allclose(found.saliency.sum(1), per_token, rtol=1e-4)


def test_f_may_move_with_the_image(encoder: DualEncoder) -> None:
    free = explained(encoder, "joint", free=True).heatmap
    branch = image_branch(encoder, pixels(encoder))
    t = functional.normalize(encoder.text_tower(encoder.tokenizer(CAPTIONS[1:2]).ids), dim=-1)
    if encoder.patches is not None:  # the true gradient of ½‖V − F‖²
        loss = (branch.vectors[1] - branch.vectors[1] * t[0]).square().sum() / 2
        raw = torch.autograd.grad(loss, branch.source)[0][1]
        z = (raw - raw.mean((1, 2), keepdim=True)) / raw.std((1, 2), keepdim=True)
        assert torch.allclose(free[1], z.abs().sum(0), rtol=2e-3, atol=2e-4)
    assert not torch.allclose(free, explained(encoder, "joint").heatmap)


def test_what_a_tower_is_decides_the_rule(tmp_path: Path, encoder: DualEncoder) -> None:
    size = encoder.image.size
    cells = {64: (64, 64), 32: (4, 4)}[size] if encoder.rule == "guided" or size == 32 else (16, 16)
    assert explained(encoder, "joint").heatmap.shape == (3, *cells)
    plain = explained(replace(encoder, guided=False), "joint")
    assert (encoder.rule == "guided") != torch.equal(plain.heatmap, explained(encoder, "joint").heatmap)


# Words


def test_pieces_are_joined_to_words_and_marks_left_out(encoder: DualEncoder) -> None:
    texts = encoder.tokenizer([CAPTIONS[1], "Café!!", ""])
    assert [word.text for word in texts.words[0]] == ["a", "photo", "of", "the", "dog", "'s", "skateboarding"]
    assert [word.text for word in texts.words[1]] == ["café", "!!"] and texts.words[2] == []
    places = [place for word in texts.words[0] for place in word.positions]
    assert places == list(range(1, len(places) + 1))
    ids = texts.ids[0].tolist()
    assert ids[0] == 49406 and ids[len(places) + 1] == 49407


def test_words_of_transformers(foreign: DualEncoder) -> None:
    texts = foreign.tokenizer(["Red star", "a dog"])
    assert [[word.text for word in own] for own in texts.words] == [["red", "star"], ["a", "dog"]]
    assert [len(word.positions) for own in texts.words for word in own] == [1, 1, 1, 3]


def test_a_text_is_cut_to_what_the_tower_reads(encoder: DualEncoder) -> None:
    texts = encoder.tokenizer(["star " * 100])
    assert texts.ids.shape == (1, 24) and len(texts.words[0]) == 22


def test_words_of_sentencepiece() -> None:
    pieces = ["</s>", "▁a", "▁", "star", "fish", "▁is", "<unk>"]
    from hvx.adapters.dual.words import TextTokenizer

    tokenizer = TextTokenizer(
        encode=lambda texts: torch.tensor([[1, 2, 3, 4, 6, 5, 0, 0]] * len(texts)),
        piece=lambda each: pieces[each],
        decode=lambda ids: "".join(pieces[each] for each in ids).replace("▁", " "),
        start=None, ends=frozenset({0}), unknown=6,
    )  # fmt: skip
    (words,) = tokenizer(["a starfish"]).words
    assert [(word.text, word.positions, word.unknown) for word in words] == [
        ("a", (0,), False), ("starfish<unk>", (1, 2, 3, 4), True), ("is", (5,), False),
    ]  # fmt: skip


# Labels


def test_probabilities_of_labels(encoder: DualEncoder, foreign: DualEncoder) -> None:
    for one in (encoder, foreign):
        labels = Labels.of(one, ("dog", "red star"), "a photo of a {}")
        v = image_branch(one, pixels(one)).vectors.detach()
        found = labels.probabilities(one, v)
        network, ids = one.network, one.tokenizer(list(labels.texts)).ids
        if hasattr(network, "get_image_features"):
            logits = network(input_ids=ids, pixel_values=pixels(one)).logits_per_image
        else:
            vectors = network.encode_image(pixels(one), normalize=True)
            logits = network.logit_scale.exp() * vectors @ network.encode_text(ids, normalize=True).t()
        assert labels.texts[1] == "a photo of a red star"
        assert torch.allclose(found, logits.softmax(1), atol=1e-5)


# What is refused


def refused(name: str, pretrained: str | None, root: Path = Path()) -> str:
    with pytest.raises(HvxError) as raised:
        open_clip_model.load(open_clip_model.find(name, pretrained, root), 0, CPU)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_wrong_name_or_tag_is_refused(tmp_path: Path) -> None:
    assert "open_clip has no model 'RN51' (did you mean 'RN50'?)" in refused("RN51", "random")
    said = refused("RN50", "opnai", tmp_path)
    assert said == (
        "model.pretrained: 'opnai' is no tag of RN50 (did you mean 'openai'?) and no file; "
        "expected a file, 'random', or a tag of RN50: openai, yfcc15m, cc12m"
    )
    assert refused("RN50", None).startswith("model.pretrained is missing: expected a file, 'random', or")
    assert refused("RN50", "openai") == (
        "model.name: the weights 'openai' were trained with QuickGELU, which RN50 does not have; "
        "expected 'RN50-quickgelu'"
    )


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "vit", VIT)
    wide = folder_of(tmp_path / "wide", VIT | {"width": 48})
    (wide / "open_clip_pytorch_model.bin").replace(folder / "open_clip_pytorch_model.bin")
    said = refused(str(folder), None)
    assert said.startswith(f"{folder / 'open_clip_pytorch_model.bin'}: not the weights of {folder}: 'visual.")
    assert "is (48,), expected (32,)" in said
    larger = folder_of(tmp_path / "larger", VIT | {"image_size": 40})
    (larger / "open_clip_pytorch_model.bin").replace(folder / "open_clip_pytorch_model.bin")
    assert "of a network for images of another size: 26 positions" in refused(str(folder), None)


def test_weights_of_a_known_network_are_recognized() -> None:
    with torch.device("meta"):
        state = open_clip.create_model("RN101", load_weights=False, device="meta").state_dict()
    said = open_clip_model._fitting(open_clip, state)
    assert said == "; its sizes are those of RN101, RN101-quickgelu"
    assert "transformers reads its folder" in open_clip_model._fitting(
        open_clip, {"vision_model.a": torch.ones(1)}
    )


def test_weights_are_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("unpickled",)

    folder = folder_of(tmp_path / "vit", VIT)
    torch.save({"state_dict": Evil()}, folder / "open_clip_pytorch_model.bin")
    assert "not a state dict of tensors that can be read safely" in refused(str(folder), None)


def test_a_folder_without_weights_or_with_others_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "vit", VIT)
    assert "leave it out, or say 'random'" in refused(str(folder), "openai")
    (folder / "open_clip_pytorch_model.bin").unlink()
    assert refused(str(folder), None).startswith(
        f"{folder}: no weights; expected open_clip_model.safetensors"
    )
    (folder / open_clip_model.CONFIG).write_text("{")
    assert refused(str(folder), None).startswith(f"{folder / open_clip_model.CONFIG}: not a configuration of")


def test_random_weights_are_those_of_the_seed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "vit", VIT)
    source = open_clip_model.find(str(folder), "random", Path())
    one, same, other = (open_clip_model.load(source, seed, CPU).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["visual.conv1.weight"], other["visual.conv1.weight"])


def refused_folder(folder: Path | str) -> str:
    with pytest.raises(HvxError) as raised:
        huggingface.load(huggingface.find(str(folder), Path()), CPU)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_folders_of_transformers_that_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = clip_folder(tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    assert "1 tensors are missing or misshapen, such as text_projection.weight" in refused_folder(folder)
    (folder / "model.safetensors").unlink()
    assert refused_folder(folder) == f"{folder}: no weights; expected model.safetensors"
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"model_type": "bert"}))
    assert (
        refused_folder(folder) == f"{folder / 'config.json'}: model_type 'bert'; hvx explains clip and siglip"
    )
    assert "is no folder and no id such as" in refused_folder(tmp_path / "absent" / "x" / "y")


@pytest.mark.parametrize("module", ["open_clip", "transformers"])
def test_the_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    said = refused("RN50", "random") if module == "open_clip" else refused_folder("a/b")
    package = "open_clip_torch" if module == "open_clip" else module
    assert said == f"model.network: this dual encoder needs {package}: pip install 'hvx[clip]'"


def test_no_warnings_of_other_packages_are_heard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path / "vit", VIT)
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(folder)
    assert not caplog.records
