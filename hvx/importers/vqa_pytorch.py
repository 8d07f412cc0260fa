"""Imports MLB and MUTAN from vqa.pytorch: a folder with options, a state dict, and pickled vocabularies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvx.config import BackboneConfig, EncoderConfig, ImageConfig, ModelConfig, MutanConfig
from hvx.errors import HvxError
from hvx.files import sha256
from hvx.importers.common import AHEAD_OF_LAST_RELU, BEHIND_LAST_RELU, assemble, at_node
from hvx.importers.vqa_pytorch_files import (
    ModelOptions,
    Options,
    Size,
    State,
    check_which,
    checkpoint_in,
    options_in,
    read_options,
    read_vocabularies,
)
from hvx.importers.vqa_pytorch_mutan import mutan_config, mutan_joint
from hvx.models.checkpoint import VQAModel

_RNN = "seq2vec.rnn."
_CELL = f"{_RNN}gru_cell."
_TORCH7_FEATURES = "fbresnet152torch"
"""Features from Torch7: images scaled bicubically, features taken before the last ReLU. The port's extraction
scales bilinearly and includes that ReLU."""


def import_vqa_pytorch(
    folder: Path,
    backbone: BackboneConfig,
    *,
    which: str = "best",
    options: Path | None = None,
    vocabulary: Path | None = None,
) -> VQAModel:
    """A model of vqa.pytorch, ``MLBAtt`` or ``MLBNoAtt``.

    Args:
        folder: of the training, with its options and ``best_model.pth.tar`` or ``ckpt_model.pth.tar``.
        backbone: of the features; without a node, the node of the features named in the options.
        which: ``best``, ``ckpt`` or ``epoch,N``.
        options: the options' YAML file; ``options.yaml`` or the folder's only YAML file if None.
        vocabulary: folder of the four pickled vocabularies; ``folder`` if None.

    Raises:
        HvxError: a file is missing or invalid, the options are of another network, or options, tensors and
            vocabularies do not match.
    """
    check_which(which)
    if not folder.is_dir():
        raise HvxError(f"{folder}: no such folder (options and checkpoint of vqa.pytorch)")
    options_path = options or options_in(folder)
    parsed = read_options(options_path)
    checkpoint = checkpoint_in(folder, which)
    words, answers = read_vocabularies(vocabulary or folder)
    state = State(checkpoint, options_path)
    question = _question_size(state, parsed.model)
    joint = mutan_joint if parsed.model.is_mutan else _joint
    head = _encoder(state, parsed.model, len(words)) | joint(state, parsed.model, question, len(answers))
    state.finish()
    model = assemble(_config(parsed, backbone, head), head, words, answers, str(checkpoint))
    model.training = {
        "imported_from": "vqa-pytorch",
        "checkpoint": checkpoint.name,
        "sha256": sha256(checkpoint),
        "options": options_path.name,
        "features": parsed.coco.arch or "not said",
    }
    return model


def _encoder(state: State, model: ModelOptions, words: int) -> dict[str, Tensor]:
    """The word table and the GRU; gates r, i, n are r, z, h̃ in hvx."""
    embedding = state.size("seq2vec.embedding.weight", 1)
    table = state.take("seq2vec.embedding.weight", Size(words + 1, "the vocabulary with padding"), embedding)
    hidden = _question_size(state, model)
    gru = _cell if model.seq2vec.type == "BayesianUniSkip" else _pytorch_gru
    return {"encoder.table.weight": table} | {
        f"encoder.gru.{name}": tensor for name, tensor in gru(state, model, hidden, embedding).items()
    }


def _cell(state: State, model: ModelOptions, hidden: Size, embedding: Size) -> dict[str, Tensor]:
    """The GRU of Bayesian skip-thoughts: a layer for each gate; the recurrent layers have no bias."""
    del model
    inputs = [state.linear(gate, f"{_CELL}weight_i{gate}", hidden, embedding) for gate in "rin"]
    states = {gate: state.take(f"{_CELL}weight_h{gate}.weight", hidden, hidden) for gate in "rin"}
    gates = {name: tensor for linear in inputs for name, tensor in linear.items()}
    return {
        "input.weight": torch.cat([gates[f"{gate}.weight"] for gate in "rin"]),
        "input.bias": torch.cat([gates[f"{gate}.bias"] for gate in "rin"]),
        "gates.weight": torch.cat([states["r"], states["i"]]),
        "state.weight": states["n"],
    }


def _pytorch_gru(state: State, model: ModelOptions, hidden: Size, embedding: Size) -> dict[str, Tensor]:
    """PyTorch's GRU, rows [r | z | n]: a gate's two biases are added, the candidate's stay separate."""
    layer = "_l0" if model.seq2vec.type == "UniSkip" else ""
    gate_rows = Size(3 * hidden.value, f"three times {hidden.source}")
    inputs = state.take(f"{_RNN}weight_ih{layer}", gate_rows, embedding)
    recurrent = state.take(f"{_RNN}weight_hh{layer}", gate_rows, hidden)
    bias, recurrent_bias = (state.take(f"{_RNN}bias_{side}{layer}", gate_rows) for side in ("ih", "hh"))
    two_gates = 2 * hidden.value
    return {
        "input.weight": inputs,
        "input.bias": torch.cat([bias[:two_gates] + recurrent_bias[:two_gates], bias[two_gates:]]),
        "gates.weight": recurrent[:two_gates],
        "state.weight": recurrent[two_gates:],
        "state.bias": recurrent_bias[two_gates:],
    }


def _question_size(state: State, model: ModelOptions) -> Size:
    """The size of the question vector q."""
    if not model.attends:
        return state.size("fusion.linear_q.weight", 1, model.fusion.dim_q, "model.fusion.dim_q")
    return state.size("linear_q_att.weight", 1, model.dim_q, "model.dim_q")


def _joint(state: State, model: ModelOptions, question: Size, answers: int) -> dict[str, Tensor]:
    """All layers after the encoder, under the names of ``MLB``'s state dict."""
    out = Size(answers, "the vocabulary of answers")
    if model.attention is None or not model.attends:
        channels = state.size("fusion.linear_v.weight", 1, model.fusion.dim_v, "model.fusion.dim_v")
        joint = state.size("fusion.linear_v.weight", 0, model.fusion.dim_h, "model.fusion.dim_h")
        return (
            state.linear("visual.0", "fusion.linear_v", joint, channels)
            | state.linear("textual", "fusion.linear_q", joint, question)
            | state.linear("classifier", "linear_classif", out, joint)
        )
    channels = state.size("conv_v_att.weight", 1, model.dim_v, "model.dim_v")
    inner = state.size("conv_v_att.weight", 0, model.attention.dim_h, "model.attention.dim_h")
    glimpses = state.size("conv_att.weight", 0, model.attention.nb_glimpses, "model.attention.nb_glimpses")
    joint = state.size("list_linear_v_fusion.0.weight", 0, model.fusion.dim_h, "model.fusion.dim_h")
    if inner.value != joint.value:
        raise HvxError(
            f"{state.path}: the attention's joint is {inner.value} wide, the other {joint.value}; "
            "expected one dim_h for both, as MLB has"
        )
    width = Size(joint.value * glimpses.value, f"{joint.source} for each of the {glimpses.value} glimpses")
    head = (
        state.linear("attention_visual", "conv_v_att", inner, channels)
        | state.linear("attention_textual", "linear_q_att", inner, question)
        | state.linear("attention_output", "conv_att", glimpses, inner)
        | state.linear("textual", "linear_q_fusion", width, question)
        | state.linear("classifier", "linear_classif", out, width)
    )
    for g in range(glimpses.value):
        head |= state.linear(f"visual.{g}", f"list_linear_v_fusion.{g}", joint, channels)
    return head


def _config(options: Options, backbone: BackboneConfig, head: dict[str, Tensor]) -> ModelConfig:
    """The native config, with sizes from the tensors."""
    model = options.model
    attention = model.attention if model.attends else None
    activations: dict[str, Any] = {
        "attention_visual_activation": attention and attention.activation_v,
        "attention_textual_activation": attention and attention.activation_q,
        "attention_product_activation": attention and attention.activation_mm,
        "visual_activation": model.fusion.activation_v,
        "textual_activation": model.fusion.activation_q,
        "product_activation": model.classif.activation,
    }
    named: dict[str, Any] = {field: activation or "none" for field, activation in activations.items()}
    by_torch7 = options.coco.arch == _TORCH7_FEATURES
    joint = head["classifier.weight"].shape[1] if model.is_mutan else head["visual.0.weight"].shape[0]
    return ModelConfig(
        network="mutan" if model.is_mutan else "mlb",
        form="vqa-pytorch",
        image=ImageConfig(size=options.coco.size, interpolation="bicubic" if by_torch7 else "bilinear"),
        backbone=at_node(backbone, AHEAD_OF_LAST_RELU if by_torch7 else BEHIND_LAST_RELU),
        encoder=EncoderConfig(
            tokenizer=options.vqa.nlp,
            sentences=options.vqa.nlp == "nltk",
            max_tokens=options.vqa.maxlength,
            embedding=head["encoder.table.weight"].shape[1],
            hidden=head["encoder.gru.state.weight"].shape[0],
            candidate="reset_after" if model.seq2vec.type == "BayesianUniSkip" else "reset_after_bias",
        ),
        glimpses=attention.nb_glimpses if attention else 0,
        joint=joint,
        visual_projection="per_glimpse",
        mutan=mutan_config(model, head) if model.is_mutan else MutanConfig(),
        **named,
    )
