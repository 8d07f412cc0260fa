"""Reads the files of a vqa.pytorch folder: options, pickled vocabularies, and a checkpoint's state dict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from hvx.config import Positive, checked
from hvx.errors import HvxError, shown
from hvx.importers.pickles import Plain, read_plain_pickle
from hvx.models.weights import read_state_dict
from hvx.strict_yaml import read_yaml_file

_ENDING = "_model.pth.tar"
_STANDARD = ("best", "ckpt")
_EPOCH = re.compile(r"epoch,(?P<epoch>[0-9]{1,6})")
"""Names of checkpoints that `train.py --save_all_from` writes."""

Torch = Literal["tanh", "relu", "sigmoid"]
"""Names of activations in the options; if a key is absent, no activation is applied."""


class Fusion(BaseModel):
    """A fusion of image and question: ``dim_h`` is MLB's width; the other sizes are MUTAN's."""

    dim_v: Positive | None = None
    dim_q: Positive | None = None
    dim_h: Positive | None = None
    dim_hv: Positive | None = None
    dim_hq: Positive | None = None
    dim_mm: Positive | None = None
    R: Positive | None = None
    activation_v: Torch | None = None
    activation_q: Torch | None = None
    activation_mm: Torch | None = None
    activation_hv: Torch | None = None
    activation_hq: Torch | None = None


class _Attention(Fusion):
    nb_glimpses: Positive


class _Classifier(BaseModel):
    activation: Torch | None = None


class _QuestionEncoder(BaseModel):
    arch: Literal["skipthoughts"] = "skipthoughts"
    type: Literal["BayesianUniSkip", "UniSkip", "DropUniSkip"] = "BayesianUniSkip"


class ModelOptions(BaseModel):
    """The section ``model``; without attention the sizes are under ``fusion``."""

    arch: Literal["MLBAtt", "MLBNoAtt", "MutanAtt", "MutanNoAtt"]
    dim_v: Positive | None = None
    dim_q: Positive | None = None
    seq2vec: _QuestionEncoder = _QuestionEncoder()
    attention: _Attention | None = None
    fusion: Fusion = Fusion()
    classif: _Classifier = _Classifier()

    @property
    def attends(self) -> bool:
        """Whether the network has attention; its section is then required."""
        return not self.arch.endswith("NoAtt")

    @property
    def is_mutan(self) -> bool:
        return self.arch.startswith("Mutan")


class _Questions(BaseModel):
    nlp: Literal["mcb", "nltk"] = "mcb"
    maxlength: Annotated[int, Field(ge=1, le=10_000)] = 26
    pad: Literal["right"] = "right"


class _Images(BaseModel):
    arch: str = ""
    size: Positive = 448


class Options(BaseModel):
    """The keys of a vqa.pytorch options file that determine the network."""

    model: ModelOptions
    vqa: _Questions = _Questions()
    coco: _Images = _Images()


def options_in(folder: Path) -> Path:
    """The folder's options file; ``args.yaml`` next to it has the command-line arguments and is skipped."""
    default = folder / "options.yaml"
    paths = [default] if default.is_file() else sorted(folder.glob("*.yaml"))
    paths = [path for path in paths if path.name != "args.yaml"]
    if len(paths) != 1:
        several = f"{len(paths)} .yaml files ({paths[0].name}, …)" if paths else "no .yaml file"
        raise HvxError(f"{folder}: {several} and no options.yaml; give the options' file")
    return paths[0]


def read_options(path: Path) -> Options:
    """Read an options file.

    Raises:
        HvxError: no such file, not YAML, or options of a network other than MLB or MUTAN with skip-thoughts.
    """
    tree = read_yaml_file(path, "file of vqa.pytorch's options")
    if not isinstance(tree, dict):
        raise HvxError(f"{path}: expected options of vqa.pytorch, with a section 'model'")
    options = checked(Options, tree, str(path))
    if options.model.attends and options.model.attention is None:
        raise HvxError(
            f"{path}: key 'model.attention' is missing; {options.model.arch} has one with nb_glimpses"
        )
    return options


def check_which(which: str) -> None:
    """Refuse an invalid name of a checkpoint.

    Raises:
        HvxError: neither ``best`` nor ``ckpt`` nor ``epoch,N``.
    """
    if which not in _STANDARD and not _EPOCH.fullmatch(which):
        raise HvxError(f"checkpoint: expected 'best', 'ckpt' or 'epoch,N', not {shown(which)}")


def checkpoint_in(folder: Path, which: str) -> Path:
    """The path of the ``best``, the last (``ckpt``) or an epoch's (``epoch,7``) state dict."""
    path = folder / f"{'' if which in _STANDARD else 'ckpt_'}{which}{_ENDING}"
    if not path.is_file():
        saved = _checkpoints(folder)
        listing = f"; it has {', '.join(saved[:5])}" if saved else ""
        advice = f": ask for '{saved[0].removesuffix(_ENDING).removeprefix('ckpt_')}'" if saved else ""
        raise HvxError(f"{folder}: no {path.name}{listing}{advice}")
    return path


def _checkpoints(folder: Path) -> list[str]:
    """Names of a folder's checkpoints, ``best`` and ``ckpt`` first."""
    numbered = {
        int(match["epoch"]): path.name
        for path in folder.glob(f"ckpt_epoch,*{_ENDING}")
        if (match := _EPOCH.fullmatch(path.name.removesuffix(_ENDING).removeprefix("ckpt_")))
    }
    standard = [f"{name}{_ENDING}" for name in _STANDARD if (folder / f"{name}{_ENDING}").is_file()]
    return standard + [numbered[epoch] for epoch in sorted(numbered)]


def read_vocabularies(folder: Path) -> tuple[list[str], list[str]]:
    """Words in the order of their ids 1 … V, and answers in the order of their ids 0 … O − 1."""
    if not (folder / "wid_to_word.pickle").is_file():
        raise HvxError(
            f"{folder}: no wid_to_word.pickle; give the folder of the vocabularies, in vqa.pytorch "
            "data/vqa/processed/nans,…"
        )
    return _texts(folder, "wid_to_word", "word_to_wid", 1), _texts(folder, "aid_to_ans", "ans_to_aid", 0)


def _texts(folder: Path, name: str, inverse: str, first: int) -> list[str]:
    """The strings of a vocabulary, checked against the file with the inverse mapping.

    vqa.pytorch pickles ``aid_to_ans`` as a list.
    """
    path = folder / f"{name}.pickle"
    texts = _in_order(read_plain_pickle(path, or_list=name == "aid_to_ans"), first, path)
    numbers = {text: number for number, text in enumerate(texts, first)}
    if len(numbers) < len(texts):
        raise HvxError(f"{path}: holds the same text twice")
    inverse_path = folder / f"{inverse}.pickle"
    if read_plain_pickle(inverse_path) != numbers:
        raise HvxError(f"{inverse_path}: is not the inverse of {path.name}; take both from one vocabulary")
    return texts


def _in_order(entries: Plain, first: int, path: Path) -> list[str]:
    """The strings numbered consecutively from ``first`` on."""
    by_number = dict(enumerate(entries, first)) if isinstance(entries, list) else entries
    texts = []
    for number in range(first, first + len(by_number)):
        text = by_number.get(number)
        if text is None:
            raise HvxError(
                f"{path}: expected the {len(by_number):,} numbers from {first} on; {number} is none"
            )
        if not isinstance(text, str) or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise HvxError(f"{path}: {number} is no text, but {text!r:.40}")
        texts.append(text)
    if not texts:
        raise HvxError(f"{path}: is empty")
    return texts


@dataclass(frozen=True)
class Size:
    """The length of an axis, and its source."""

    value: int
    source: str


class State:
    """The state dict of a checkpoint; tensors are taken from it one by one, with a check of their shapes."""

    def __init__(self, path: Path, options: Path) -> None:
        self.path, self.options = path, options
        tensors = read_state_dict(path)
        if tensors and all(name.startswith("module.") for name in tensors):
            tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        self.tensors = tensors
        for name, tensor in tensors.items():
            if (
                not tensor.is_floating_point()
                or tensor.layout != torch.strided
                or tensor.device.type != "cpu"
            ):
                raise HvxError(f"{path}: '{name}' is not a plain tensor of real numbers")
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > path.stat().st_size:
            raise HvxError(f"{path}: its tensors claim more numbers than the file holds")

    def size(self, name: str, axis: int, option: int | None = None, key: str = "") -> Size:
        """The length of an axis: ``option``, the options' value under ``key``, or else the tensor's."""
        if option is not None:
            return Size(option, f"{self.options.name}: {key}")
        shape = self._tensor(name).shape
        if len(shape) <= axis or not shape[axis]:
            raise HvxError(f"{self.path}: tensor '{name}' has shape {tuple(shape)}")
        return Size(shape[axis], f"tensor '{name}'")

    def take(self, name: str, *sizes: Size) -> Tensor:
        """The tensor with this name and these sizes, as float32; a 1×1 convolution as a matrix."""
        tensor = self._tensor(name)
        shape = tuple(tensor.shape)
        flat = shape[: len(sizes)] if all(length == 1 for length in shape[len(sizes) :]) else shape
        if len(flat) != len(sizes):
            raise HvxError(f"{self.path}: tensor '{name}' has shape {shape}; expected {len(sizes)} axes")
        for actual, size in zip(flat, sizes, strict=True):
            if actual != size.value:
                raise HvxError(
                    f"{self.path}: tensor '{name}' has shape {shape}, with {actual:,} where {size.source} "
                    f"says {size.value:,}"
                )
        taken = self.tensors.pop(name).reshape(flat).float()
        if not torch.isfinite(taken).all():
            raise HvxError(f"{self.path}: tensor '{name}' holds values that are not finite")
        return taken

    def linear(self, native: str, name: str, out: Size, into: Size) -> dict[str, Tensor]:
        """Weight (out × in) and bias of the layer ``name``, under the native name ``native``."""
        weight, bias = self.take(f"{name}.weight", out, into), self.take(f"{name}.bias", out)
        return {f"{native}.weight": weight, f"{native}.bias": bias}

    def _tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise HvxError(f"{self.path}: tensor '{name}' is missing")
        return self.tensors[name]

    def stacked(self, native: str, name: str, count: int, out: Size, into: Size) -> dict[str, Tensor]:
        """The layers ``name.0`` … ``name.{count − 1}``, concatenated to one layer ``native``."""
        layers = [self.linear("", f"{name}.{r}", out, into) for r in range(count)]
        return {
            f"{native}.{key}": torch.cat([layer[f".{key}"] for layer in layers]) for key in ("weight", "bias")
        }

    def finish(self) -> None:
        """Refuse remaining tensors: a network with more layers computes something else."""
        if self.tensors:
            raise HvxError(f"{self.path}: unexpected tensor '{min(self.tensors)}'")
