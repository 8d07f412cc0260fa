"""vqa.pytorch's MUTAN: all layers after the question encoder, and their config."""

from __future__ import annotations

from torch import Tensor

from hvx.config import MutanConfig
from hvx.errors import HvxError
from hvx.importers.vqa_pytorch_files import Fusion, ModelOptions, Size, State


def mutan_joint(state: State, model: ModelOptions, question: Size, answers: int) -> dict[str, Tensor]:
    """The tensors under the names of ``Mutan``'s state dict; the layers of the R products are stacked.

    Raises:
        HvxError: a tensor is missing or has a wrong shape, or the visual width is not divided evenly among
            the glimpses.
    """
    if model.attention is None or not model.attends:
        channels = state.size("fusion.linear_v.weight", 1, model.fusion.dim_v, "model.fusion.dim_v")
        visual = state.size("fusion.linear_v.weight", 0, model.fusion.dim_hv, "model.fusion.dim_hv")
        return state.linear("visual.0", "fusion.linear_v", visual, channels) | _sum(
            state, model, "fusion", visual, question, answers
        )
    channels = state.size("conv_v_att.weight", 1, model.dim_v, "model.dim_v")
    glimpses = state.size("conv_att.weight", 0, model.attention.nb_glimpses, "model.attention.nb_glimpses")
    head = _attention(state, model.attention, channels, question, glimpses)
    part = state.size("list_linear_v_fusion.0.weight", 0)
    visual = Size(part.value * glimpses.value, f"{part.source} for each of the {glimpses.value} glimpses")
    if model.fusion.dim_hv is not None and model.fusion.dim_hv != visual.value:
        raise HvxError(
            f"{state.path}: {visual.source} make {visual.value} features, where {state.options.name}: "
            f"model.fusion.dim_hv says {model.fusion.dim_hv}"
        )
    for g in range(glimpses.value):
        head |= state.linear(f"visual.{g}", f"list_linear_v_fusion.{g}", part, channels)
    return head | _sum(state, model, "fusion_classif", visual, question, answers)


def _attention(
    state: State, fusion: Fusion, channels: Size, question: Size, glimpses: Size
) -> dict[str, Tensor]:
    visual = state.size("conv_v_att.weight", 0, fusion.dim_hv, "model.attention.dim_hv")
    textual = state.size("linear_q_att.weight", 0, fusion.dim_hq, "model.attention.dim_hq")
    joint = state.size("conv_att.weight", 1, fusion.dim_mm, "model.attention.dim_mm")
    rank = _rank(state, fusion, "fusion_att", "model.attention.R")
    return (
        state.linear("attention_visual", "conv_v_att", visual, channels)
        | state.linear("attention_textual", "linear_q_att", textual, question)
        | state.stacked("attention_visual_parts", "fusion_att.list_linear_hv", rank, joint, visual)
        | state.stacked("attention_textual_parts", "fusion_att.list_linear_hq", rank, joint, textual)
        | state.linear("attention_output", "conv_att", glimpses, joint)
    )


def _sum(
    state: State, model: ModelOptions, layers: str, visual: Size, question: Size, answers: int
) -> dict[str, Tensor]:
    """The sum of products after the attention, and the classifier."""
    projection = "linear_q_fusion" if model.attends else "fusion.linear_q"
    textual = state.size(f"{projection}.weight", 0, model.fusion.dim_hq, "model.fusion.dim_hq")
    joint = state.size("linear_classif.weight", 1, model.fusion.dim_mm, "model.fusion.dim_mm")
    rank = _rank(state, model.fusion, layers, "model.fusion.R")
    return (
        state.linear("textual", projection, textual, question)
        | state.stacked("visual_parts", f"{layers}.list_linear_hv", rank, joint, visual)
        | state.stacked("textual_parts", f"{layers}.list_linear_hq", rank, joint, textual)
        | state.linear("classifier", "linear_classif", Size(answers, "the vocabulary of answers"), joint)
    )


def _rank(state: State, fusion: Fusion, layers: str, key: str) -> int:
    """R, the number of the checkpoint's layers; the options must not contradict it."""
    rank = sum(f"{layers}.list_linear_hv.{r}.weight" in state.tensors for r in range(len(state.tensors)))
    if fusion.R is not None and rank != fusion.R:
        raise HvxError(
            f"{state.path}: has {rank} layers '{layers}.list_linear_hv', where {state.options.name}: {key} "
            f"says {fusion.R}"
        )
    if not rank:
        raise HvxError(f"{state.path}: tensor '{layers}.list_linear_hv.0.weight' is missing")
    return rank


def mutan_config(model: ModelOptions, head: dict[str, Tensor]) -> MutanConfig:
    """The part of the config for MUTAN, with sizes from the tensors."""
    fusion, attention = model.fusion, model.attention if model.attends else None
    sizes = {
        "visual": head["visual_parts.weight"].shape[1],
        "textual": head["textual_parts.weight"].shape[1],
        "rank": len(head["visual_parts.weight"]) // head["classifier.weight"].shape[1],
    }
    activations = {
        "visual_part_activation": fusion.activation_hv,
        "textual_part_activation": fusion.activation_hq,
        "sum_activation": fusion.activation_mm,
    }
    if attention is not None:
        joint = head["attention_output.weight"].shape[1]
        sizes |= {
            "attention_visual": head["attention_visual.weight"].shape[0],
            "attention_textual": head["attention_textual.weight"].shape[0],
            "attention_joint": joint,
            "attention_rank": len(head["attention_visual_parts.weight"]) // joint,
        }
        activations |= {
            "attention_visual_part_activation": attention.activation_hv,
            "attention_textual_part_activation": attention.activation_hq,
        }
    named = {field: activation or "none" for field, activation in activations.items()}
    return MutanConfig.model_validate(sizes | named)
