"""vqa.pytorch's MUTAN and its other encoders, against a forward pass written out from the definition."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_import_vqa_pytorch import (
    ANSWERS,
    BACKBONE,
    CHANNELS,
    EMBEDDING,
    HIDDEN,
    LATTICE,
    QUESTIONS,
    WORDS,
    activation,
    att_options,
    write_folder,
)
from torch import Tensor, nn

from hvx.data.tokenize import TOKENIZERS, padded
from hvx.errors import HvxError
from hvx.explain.hadamard import head_gradients
from hvx.importers.vqa_pytorch import import_vqa_pytorch
from hvx.models.checkpoint import VQAModel, load_checkpoint, save_checkpoint

A_HV, A_HQ, A_MM, A_R = 6, 5, 7, 3
HV, HQ, MM, R = 8, 6, 9, 2


def options_of(arch: str, glimpses: int = 2, gru: str = "BayesianUniSkip") -> dict[str, Any]:
    options = att_options(glimpses)
    own: dict[str, Any] = {
        "arch": arch,
        "seq2vec": {"arch": "skipthoughts", "type": gru},
        "fusion": {"dim_hv": HV, "dim_hq": HQ, "dim_mm": MM, "R": R, "dropout_hv": 0,
                   "activation_v": "tanh", "activation_q": "tanh"},
        "classif": {"dropout": 0.5},
    }  # fmt: skip
    if arch == "MutanAtt":
        own |= {"dim_v": CHANNELS, "dim_q": HIDDEN}
        own["attention"] = {
            "nb_glimpses": glimpses, "dim_hv": A_HV, "dim_hq": A_HQ, "dim_mm": A_MM, "R": A_R,
            "activation_v": "tanh", "activation_q": "tanh",
        }  # fmt: skip
    else:
        own["fusion"] |= {"dim_v": CHANNELS, "dim_q": HIDDEN}
    return options | {"model": own}


def state_of(options: dict[str, Any]) -> dict[str, Tensor]:
    """A random state dict of MutanAtt or MutanNoAtt."""
    said = options["model"]
    generator = torch.Generator().manual_seed(4)

    def matrix(out: int, *into: int) -> Tensor:
        return torch.randn(out, *into, generator=generator) * (1.5 / (into[0] if into else 9) ** 0.5)

    def linear(name: str, out: int, into: int, *kernel: int, bias: bool = True) -> dict[str, Tensor]:
        own = {f"{name}.weight": matrix(out, into, *kernel)}
        return own | ({f"{name}.bias": matrix(out)} if bias else {})

    table = matrix(len(WORDS) + 1, EMBEDDING)
    table[0] = 0
    state = {"seq2vec.embedding.weight": table}
    kind = said["seq2vec"]["type"]
    if kind == "BayesianUniSkip":
        for gate in "rin":
            state |= linear(f"seq2vec.rnn.gru_cell.weight_i{gate}", HIDDEN, EMBEDDING)
            state |= linear(f"seq2vec.rnn.gru_cell.weight_h{gate}", HIDDEN, HIDDEN, bias=False)
    else:
        layer = "_l0" if kind == "UniSkip" else ""
        for side, into in (("ih", EMBEDDING), ("hh", HIDDEN)):
            state[f"seq2vec.rnn.weight_{side}{layer}"] = matrix(3 * HIDDEN, into)
            state[f"seq2vec.rnn.bias_{side}{layer}"] = matrix(3 * HIDDEN)
    state |= linear("linear_classif", len(ANSWERS), MM)
    fusion = "fusion"
    if said["arch"] == "MutanAtt":
        fusion, glimpses = "fusion_classif", said["attention"]["nb_glimpses"]
        state |= linear("conv_v_att", A_HV, CHANNELS, 1, 1) | linear("linear_q_att", A_HQ, HIDDEN)
        for r in range(A_R):
            state |= linear(f"fusion_att.list_linear_hv.{r}", A_MM, A_HV)
            state |= linear(f"fusion_att.list_linear_hq.{r}", A_MM, A_HQ)
        state |= linear("conv_att", glimpses, A_MM, 1, 1) | linear("linear_q_fusion", HQ, HIDDEN)
        for g in range(glimpses):
            state |= linear(f"list_linear_v_fusion.{g}", HV // glimpses, CHANNELS)
    else:
        state |= linear("fusion.linear_v", HV, CHANNELS) | linear("fusion.linear_q", HQ, HIDDEN)
    for r in range(R):
        state |= linear(f"{fusion}.list_linear_hv.{r}", MM, HV)
        state |= linear(f"{fusion}.list_linear_hq.{r}", MM, HQ)
    return state


class Written:
    """The network of one folder in float64, a question on an image at a time."""

    def __init__(self, options: dict[str, Any], state: dict[str, Tensor]) -> None:
        self.options, self.said = options, options["model"]
        self.state = {
            name: tensor.double().flatten(1) if tensor.ndim > 1 else tensor.double()
            for name, tensor in state.items()
        }

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.state[f"{name}.weight"] @ x + self.state.get(f"{name}.bias", 0)

    def question(self, embedded: Tensor) -> Tensor:
        kind = self.said["seq2vec"]["type"]
        if kind != "BayesianUniSkip":
            gru = nn.GRU(EMBEDDING, HIDDEN, batch_first=True).double()
            layer = "_l0" if kind == "UniSkip" else ""
            gru.load_state_dict(
                {f"{name}_l0": self.state[f"seq2vec.rnn.{name}{layer}"]
                 for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            )  # fmt: skip
            out: Tensor = gru(embedded.unsqueeze(0))[0][0, -1]
            return out
        h, cell = torch.zeros(HIDDEN, dtype=torch.float64), "seq2vec.rnn.gru_cell.weight_"
        for x in embedded:
            r = torch.sigmoid(self.linear(cell + "ir", x) + self.linear(cell + "hr", h))
            i = torch.sigmoid(self.linear(cell + "ii", x) + self.linear(cell + "hi", h))
            n = torch.tanh(self.linear(cell + "in", x) + r * self.linear(cell + "hn", h))
            h = (1 - i) * n + i * h
        return h

    def parts(
        self, section: str, layers: str, rank: int, x: Tensor, y: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        hv = activation(self.options, section, "activation_hv")
        hq = activation(self.options, section, "activation_hq")
        return (
            [hv(self.linear(f"{layers}.list_linear_hv.{r}", x)) for r in range(rank)],
            [hq(self.linear(f"{layers}.list_linear_hq.{r}", y)) for r in range(rank)],
        )

    def attend(self, cells: list[Tensor], q: Tensor) -> list[Tensor]:
        act = {key: activation(self.options, "attention", f"activation_{key}") for key in ("v", "q", "mm")}
        y = act["q"](self.linear("linear_q_att", q))
        scores = []
        for cell in cells:
            seen = act["v"](self.linear("conv_v_att", cell))
            visual, textual = self.parts("attention", "fusion_att", A_R, seen, y)
            summed = sum((a * b for a, b in zip(visual, textual, strict=True)), torch.zeros(A_MM))
            scores.append(self.linear("conv_att", act["mm"](act["mm"](summed))))
        return [torch.softmax(torch.stack([s[g] for s in scores]), 0) for g in range(len(scores[0]))]

    def forward(self, features: Tensor, embedded: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Logits, α for each glimpse, V and Q, of features (M, S, S) and embeddings (T, E)."""
        q = self.question(embedded)
        cells = [features[:, row, column] for row in range(LATTICE) for column in range(LATTICE)]
        act = {key: activation(self.options, "fusion", f"activation_{key}") for key in ("v", "q", "mm")}
        attention: list[Tensor] = []
        if self.said["arch"] == "MutanAtt":
            attention = self.attend(cells, q)
            pooled = [sum(w * c for w, c in zip(alpha, cells, strict=True)) for alpha in attention]
            x = torch.cat(
                [act["v"](self.linear(f"list_linear_v_fusion.{g}", p)) for g, p in enumerate(pooled)]
            )
            y, layers = act["q"](self.linear("linear_q_fusion", q)), "fusion_classif"
        else:
            x = act["v"](self.linear("fusion.linear_v", torch.stack(cells).mean(0)))
            y, layers = act["q"](self.linear("fusion.linear_q", q)), "fusion"
        visual, textual = self.parts("fusion", layers, R, x, y)
        summed = act["mm"](sum((a * b for a, b in zip(visual, textual, strict=True)), torch.zeros(MM)))
        summed = activation(self.options, "classif", "activation")(summed)
        return self.linear("linear_classif", summed), attention, torch.cat(visual), torch.cat(textual)


def assert_computes_the_same(model: VQAModel, options: dict[str, Any], state: dict[str, Tensor]) -> None:
    rows = [[WORDS.index(t if t in WORDS else "UNK") + 1 for t in TOKENIZERS["mcb"](q)] for q in QUESTIONS]
    features = torch.randn(2, CHANNELS, LATTICE, LATTICE, generator=torch.Generator().manual_seed(5))
    images = torch.tensor([0, 1, 1, 0])
    matrix, lengths = padded(rows)
    head = copy.deepcopy(model.head).double()  # so that only the equations can differ
    indices, length = torch.from_numpy(matrix), torch.from_numpy(lengths)
    found = head_gradients(head, features.double(), images, indices, length)
    written = Written(options, state)
    # PyTorch's GRU has two biases for a gate; their sum is stored in float32.
    limit = 1e-9 if options["model"]["seq2vec"]["type"] == "BayesianUniSkip" else 1e-6
    close = {"atol": limit, "rtol": limit}
    for n, question in enumerate(rows):
        seen = features[images[n]].double().requires_grad_()
        embedded = state["seq2vec.embedding.weight"].double()[question].requires_grad_()
        logits, attention, visual, textual = written.forward(seen, embedded)
        product = (visual * textual).detach()
        to_image = torch.autograd.grad(visual, seen, visual.detach() - product, retain_graph=True)[0]
        to_words = torch.autograd.grad(textual, embedded, textual.detach() - product)[0]
        torch.testing.assert_close(found.joint.logits[n], logits, **close)
        torch.testing.assert_close(found.joint.visual[n], visual, **close)
        torch.testing.assert_close(found.joint.product[n].double(), product, **close)
        torch.testing.assert_close(found.features[0][n].double(), to_image, **close)
        torch.testing.assert_close(found.embeddings[n, : len(question)].double(), to_words, **close)
        if attention:
            assert found.joint.attention is not None
            ours = found.joint.attention[n].flatten(1).double()
            torch.testing.assert_close(ours, torch.stack(attention), **close)
        else:
            assert found.joint.attention is None


def changed(options: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Options with other keys: ``section__key=value``."""
    options = copy.deepcopy(options)
    for key, value in keys.items():
        section, name = key.split("__")
        options["model"][section][name] = value
    return options


CASES = {
    "as published": options_of("MutanAtt"),
    "one glimpse": options_of("MutanAtt", 1),
    "no attention": options_of("MutanNoAtt"),
    "factors with activations": changed(
        options_of("MutanAtt"),
        attention__activation_hv="tanh", attention__activation_hq="relu", attention__activation_mm="tanh",
        fusion__activation_hv="sigmoid", fusion__activation_hq="tanh", fusion__activation_mm="tanh",
        fusion__activation_v="relu", classif__activation="sigmoid",
    ),
    "UniSkip": options_of("MutanAtt", gru="UniSkip"),
    "DropUniSkip": options_of("MutanNoAtt", gru="DropUniSkip"),
}  # fmt: skip


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_an_imported_network_computes_what_the_format_defines(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    state = state_of(options)
    model = import_vqa_pytorch(write_folder(tmp_path / "f", options, state), BACKBONE)
    assert model.config.network == "mutan"
    assert_computes_the_same(model, options, state)
    native = tmp_path / "native.safetensors"
    save_checkpoint(native, model)
    assert_computes_the_same(load_checkpoint(native), options, state)


def test_sizes_that_options_leave_out_are_the_tensors_own(tmp_path: Path) -> None:
    options = options_of("MutanAtt")
    state = state_of(options)
    for section in ("attention", "fusion"):
        for key in ("dim_hv", "dim_hq", "dim_mm", "R"):
            del options["model"][section][key]
    model = import_vqa_pytorch(write_folder(tmp_path / "f", options, state), BACKBONE)
    assert_computes_the_same(model, options, state)
    assert (model.config.mutan.rank, model.config.mutan.attention_rank) == (R, A_R)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion__R": 3}, r"has 2 layers 'fusion_classif\.list_linear_hv', where .*model\.fusion\.R says 3"),
        ({"attention__R": 9}, r"has 3 layers 'fusion_att\.list_linear_hv', where .*attention\.R says 9"),
        ({"fusion__dim_hv": 9}, r"glimpses make 8 features, where .*model\.fusion\.dim_hv says 9"),
        ({"fusion__dim_mm": 8}, r"with 9 where options\.yaml: model\.fusion\.dim_mm says 8"),
        ({"attention__dim_hq": 8}, r"with 5 where options\.yaml: model\.attention\.dim_hq says 8"),
        ({"attention__activation_hv": "elu"}, r"model\.attention\.activation_hv: .*not 'elu'"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    options = options_of("MutanAtt")
    folder = write_folder(tmp_path / "f", changed(options, **change), state_of(options))
    with pytest.raises(HvxError, match=message):
        import_vqa_pytorch(folder, BACKBONE)


def test_a_checkpoint_with_layers_left_over_or_missing_is_refused(tmp_path: Path) -> None:
    options = options_of("MutanAtt")
    state = state_of(options)
    cases = [
        ({"fusion_classif.list_linear_hq.2.weight": torch.ones(MM, HQ)}, r"unexpected tensor"),
        ({f"fusion_att.list_linear_hv.{r}.weight": None for r in range(A_R)}, r"hv\.0\.weight' is"),
        ({"fusion_att.list_linear_hq.1.bias": None}, r"'fusion_att\.list_linear_hq\.1\.bias' is missing"),
    ]  # fmt: skip
    del options["model"]["attention"]["R"]
    for changes, message in cases:
        own = {name: tensor for name, tensor in (state | changes).items() if tensor is not None}
        with pytest.raises(HvxError, match=message):
            import_vqa_pytorch(write_folder(tmp_path / "f", options, own), BACKBONE)


def test_a_checkpoint_of_mlb_under_options_of_mutan_is_refused(tmp_path: Path) -> None:
    options = options_of("MutanAtt")
    from test_import_vqa_pytorch import foreign_state

    with pytest.raises(HvxError, match=r"best_model\.pth\.tar: "):
        import_vqa_pytorch(write_folder(tmp_path / "f", options, foreign_state(2)), BACKBONE)
