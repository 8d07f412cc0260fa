"""MRN of the author's Torch7 code, files built here byte by byte, against a forward pass written out here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_import_torch7 import (
    ANSWERS,
    BACKBONE,
    CHANNELS,
    EMBEDDING,
    HIDDEN,
    JOINT,
    WORDS,
    number,
    table,
    tensor,
    text,
)
from test_import_torch7 import _tree as prepro_tree
from torch import Tensor

from hvx.errors import HvxError
from hvx.explain.hadamard import head_gradients
from hvx.importers.torch7_mrn import PUBLISHED, Widths, import_torch7_mrn
from hvx.importers.torch7_parts import count, gru_shapes
from hvx.models.checkpoint import VQAModel, load_checkpoint, save_checkpoint

INNER = 9
SMALL = Widths(EMBEDDING, HIDDEN, JOINT, INNER, CHANNELS, image=64)
TABLE, ENCODER, BLOCKS = "embedding_w_q", "encoder_w_q", "multimodal_w"
GRU = [
    ("Wr", (HIDDEN, EMBEDDING)), ("br", (HIDDEN,)), ("Wz", (HIDDEN, EMBEDDING)), ("bz", (HIDDEN,)),
    ("Ur", (HIDDEN, HIDDEN)), ("Uz", (HIDDEN, HIDDEN)),
    ("Wh", (HIDDEN, EMBEDDING)), ("bh", (HIDDEN,)), ("Uh", (HIDDEN, HIDDEN)),
]  # fmt: skip


def layout(blocks: int, shortcuts: bool) -> list[tuple[str, tuple[int, ...]]]:
    """``multimodal_w`` in its order, by names of this test's own."""
    order: list[tuple[str, tuple[int, ...]]] = []
    for block in range(blocks):
        width = JOINT if block else HIDDEN
        order += [(f"Q{block}", (JOINT, width)), (f"q{block}", (JOINT,))]
        order += [(f"I{block}", (INNER, CHANNELS)), (f"i{block}", (INNER,))]
        order += [(f"O{block}", (JOINT, INNER)), (f"o{block}", (JOINT,))]
        if shortcuts:
            order += [(f"S{block}", (JOINT, width)), (f"s{block}", (JOINT,))]
    return [*order, ("C", (len(ANSWERS), JOINT)), ("c", (len(ANSWERS),))]


def vectors(blocks: int, shortcuts: bool) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(8)
    lengths = {
        TABLE: (len(WORDS) + 1) * EMBEDDING,
        ENCODER: sum(int(np.prod(shape)) for _, shape in GRU),
        BLOCKS: sum(int(np.prod(shape)) for _, shape in layout(blocks, shortcuts)),
    }
    return {name: (generator.standard_normal(n) * 0.4).astype(np.float32) for name, n in lengths.items()}


def write(folder: Path, held: dict[str, np.ndarray]) -> tuple[Path, Path]:
    entries = [text(b"epoch"), number(40)]
    for place, (name, values) in enumerate(held.items()):
        entries += [text(name.encode()), tensor(values, index=10 + 2 * place)]
    (folder / "mrn.t7").write_bytes(table(1, *entries))
    (folder / "data_prepro.json").write_text(json.dumps(prepro_tree(WORDS, ANSWERS)))
    return folder / "mrn.t7", folder / "data_prepro.json"


def imported(folder: Path, held: dict[str, np.ndarray], blocks: int | None = None) -> VQAModel:
    return import_torch7_mrn(*write(folder, held), BACKBONE, blocks, widths=SMALL)


def cut(vector: np.ndarray, order: list[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    found, start = {}, 0
    for name, shape in order:
        size = int(np.prod(shape))
        found[name] = torch.from_numpy(vector[start : start + size].astype(np.float64)).reshape(shape)
        start += size
    assert start == len(vector)
    return found


def forward(
    held: dict[str, np.ndarray], blocks: int, shortcuts: bool, features: Tensor, rows: list[int]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """(V_l, Q_l) of each block, the logits and the word embeddings, in float64; features (M, S, S)."""
    p = cut(held[ENCODER], GRU) | cut(held[BLOCKS], layout(blocks, shortcuts))
    lookup = torch.from_numpy(held[TABLE].astype(np.float64)).reshape(-1, EMBEDDING)
    words = lookup[rows].requires_grad_()
    h = torch.zeros(HIDDEN, dtype=torch.float64)
    for x in words:
        r = torch.sigmoid(p["Wr"] @ x + p["br"] + p["Ur"] @ h)
        z = torch.sigmoid(p["Wz"] @ x + p["bz"] + p["Uz"] @ h)
        h = (1 - z) * torch.tanh(p["Wh"] @ x + p["bh"] + p["Uh"] @ (r * h)) + z * h
    pooled = features.flatten(1).mean(1)
    pooled = pooled / pooled.square().sum().sqrt()
    factors = []
    for block in range(blocks):
        inner = torch.tanh(p[f"I{block}"] @ pooled + p[f"i{block}"])
        visual = torch.tanh(p[f"O{block}"] @ inner + p[f"o{block}"])
        textual = torch.tanh(p[f"Q{block}"] @ h + p[f"q{block}"])
        factors.append((visual, textual))
        shortcut = p[f"S{block}"] @ h + p[f"s{block}"] if shortcuts else 0
        h = shortcut + visual * textual
    return factors, p["C"] @ h + p["c"], words


@pytest.mark.parametrize(("blocks", "given", "shortcuts"), [(3, None, True), (1, 1, True), (2, None, False)])
def test_the_import_computes_what_the_torch7_network_computes(
    tmp_path: Path, blocks: int, given: int | None, shortcuts: bool
) -> None:
    held = vectors(blocks, shortcuts)
    save_checkpoint(tmp_path / "m.safetensors", imported(tmp_path, held, given))
    model = load_checkpoint(tmp_path / "m.safetensors")
    assert (model.config.mrn.blocks, model.config.mrn.shortcuts) == (blocks, shortcuts)
    model.head.double()
    features = torch.randn(2, CHANNELS, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows, lengths = torch.tensor([[5, 2, 3, 7], [1, 6, 0, 0]]), torch.tensor([4, 2])
    found = head_gradients(model.head, features, torch.tensor([1, 0]), rows, lengths)
    close = {"atol": 1e-9, "rtol": 1e-9}
    for n, (image, question) in enumerate(((1, [5, 2, 3, 7]), (0, [1, 6]))):
        own = features[image].clone().requires_grad_()
        factors, logits, words = forward(held, blocks, shortcuts, own, question)
        torch.testing.assert_close(found.joint.logits[n], logits, **close)
        assert len(factors) == len(found.joint.blocks)
        for block, (visual, textual) in enumerate(factors):
            torch.testing.assert_close(found.joint.blocks[block].visual[n], visual, **close)
            torch.testing.assert_close(found.joint.blocks[block].textual[n], textual, **close)
            cotangent = (visual - visual * textual).detach()
            to_image = torch.autograd.grad(visual, own, cotangent, retain_graph=True)[0]
            torch.testing.assert_close(found.features[block][n], to_image, **close)
        visual, textual = factors[-1]
        cotangent = (textual - visual * textual).detach()
        to_words = torch.autograd.grad(textual, words, cotangent)[0]
        torch.testing.assert_close(found.embeddings[n, : len(question)], to_words, **close)


def test_the_model_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    model = imported(tmp_path, vectors(3, True))
    config = model.config
    assert (config.network, config.joint, config.mrn.inner, config.mrn.unit_length) == (
        "mrn",
        JOINT,
        INNER,
        True,
    )
    assert (config.image.size, config.image.interpolation) == (64, "bicubic")
    assert (config.encoder.sentences, config.encoder.max_tokens) == (True, 26)
    assert (list(model.vocabulary.words), model.answers) == (WORDS, ANSWERS)
    assert (model.training["imported_from"], model.training["file"]) == ("torch7-mrn", "mrn.t7")


def test_the_sizes_of_the_published_file_are_those_that_its_format_says() -> None:
    assert PUBLISHED.image == 224
    assert count(gru_shapes(PUBLISHED.embedding, PUBLISHED.hidden)) == 21_751_200
    assert count(PUBLISHED.blocks(3, True, 2000)) == 33_894_656
    assert count(PUBLISHED.blocks(3, False, 2000)) == 28_131_056


def test_vectors_of_another_length_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    held = vectors(2, True)
    cases = [
        (TABLE, rf"'{TABLE}' has 47 parameters; expected 48, since data_prepro\.json has 7 words"),
        (ENCODER, rf"'{ENCODER}' has \d+ parameters; expected \d+, since a GRU of 6 → 7"),
        (
            BLOCKS,
            rf"'{BLOCKS}' has [\d,]+ parameters; .* 5 answers, which with 3 blocks make [\d,]+, or [\d,]+ ",
        ),
    ]
    for name, message in cases:
        with pytest.raises(HvxError, match=message):
            imported(tmp_path, held | {name: held[name][:-1]})
    with pytest.raises(HvxError, match="which with 3 blocks make"):
        imported(tmp_path, held, 3)
    with pytest.raises(HvxError, match="blocks: expected 1 to 8, not 9"):
        imported(tmp_path, held, 9)
    held[BLOCKS][3] = np.inf
    with pytest.raises(HvxError, match=r"mrn\.t7: not all parameters are finite"):
        imported(tmp_path, held)


def test_a_file_of_other_content_is_refused(tmp_path: Path) -> None:
    held = vectors(1, True)
    with pytest.raises(
        HvxError, match=rf"expected a table with a vector '{ENCODER}'; .*'{TABLE}', '{BLOCKS}'"
    ):
        imported(tmp_path, {name: held[name] for name in (TABLE, BLOCKS)})
    parameters, prepro = write(tmp_path, held)
    parameters.write_bytes(tensor(held[TABLE]))
    with pytest.raises(
        HvxError, match=rf"expected a table with a vector '{TABLE}'; vectors with names: none"
    ):
        import_torch7_mrn(parameters, prepro, BACKBONE, widths=SMALL)
    name = text(TABLE.encode())
    parameters.write_bytes(table(1, name, tensor([1.0], index=2), name, tensor([2.0], index=5)))
    with pytest.raises(
        HvxError, match=r"at byte [\d,]+: expected a name that stands once, found 'embedding_w_q'"
    ):
        import_torch7_mrn(parameters, prepro, BACKBONE, widths=SMALL)
