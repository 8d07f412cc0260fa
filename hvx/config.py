"""The YAML tree, typed; the one place that knows a default.

One file describes a model, its splits, its training and its explanation, so that ``hvx train`` and
``hvx explain`` read the same file. Every key is checked: an unknown one is an error that names it.
"""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    StrictBool,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hvx.errors import HvxError, did_you_mean, shown
from hvx.strict_yaml import read_yaml, read_yaml_file

Activation = Literal["none", "tanh", "relu", "sigmoid"]
Model = TypeVar("Model", bound=BaseModel)


Flag = StrictBool
Positive = Annotated[int, Field(strict=True, ge=1, le=10**9)]
NotNegative = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Pixels = Annotated[int, Field(strict=True, ge=1, le=4096)]
Width = Annotated[int, Field(strict=True, ge=1, le=65_536)]
"""Of a layer."""
Steps = Annotated[int, Field(strict=True, ge=1, le=64)]
Glimpses = Annotated[int, Field(strict=True, ge=0, le=64)]
Batch = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Epochs = Annotated[int, Field(strict=True, ge=0, le=100_000)]
Processes = Annotated[int, Field(strict=True, ge=0, le=256)]
Rate = Annotated[float, Field(strict=True, gt=0, le=100)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
Mean = Annotated[float, Field(strict=True, ge=-1000, le=1000)]
Deviation = Annotated[float, Field(strict=True, ge=1e-3, le=1000)]
Decay = Annotated[float, Field(strict=True, ge=0, le=100)]
Norm = Annotated[float, Field(strict=True, gt=0, le=1e9)]
Minutes = Annotated[float, Field(strict=True, ge=0, le=1e6)]
Score = Annotated[float, Field(strict=True, ge=-1e6, le=1e6)]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


_SOME_IDS: tuple[tuple[int | str, ...], ...] = ((1, 10, -1, 2**62), ("a", "ab", "b", "ba"))
"""Ids that a pattern of image names must distinguish: integers, or else texts."""
_FIGURE = re.compile(r"\w[\w -]{0,39}")
"""Names of figures; each becomes a file's."""
_LIKE_A_NUMBER = re.compile(r"[-+]?\d[\d_:.]*")
"""Text that a reader may take for a number."""
_WIDE = re.compile(r"\d{4}|\{")
"""In a pattern's format: a width that would fill memory, or one that the id itself gives."""
_PLAINLY = {
    "path_type": "expected a path",
    "model_type": "expected a section of keys",
    "dict_type": "expected a section of keys",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "finite_number": "expected a finite number",
}
"""Pydantic's kind of error → what to say in place of its own words, which speak of Python classes."""
_QUOTABLE = {"path_type", "string_type"}
"""Kinds of error where a value in quotes would be right."""

# What the JSON schema says where a function of this module checks the value.
_PATH_SCHEMA: dict[str, Any] = {"type": "string", "format": "path"}
_LABELS_SCHEMA = {
    "type": "array",
    "items": {"type": "string", "pattern": r"\S"},
    "minItems": 2,
    "uniqueItems": True,
}
_ID_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": -(2**63), "exclusiveMaximum": 2**63},
        {"type": "string", "minLength": 1},
    ]
}
_ONE_PLACE = r"^(?![\s\S]*\{\}[\s\S]*\{\})[\s\S]*\{\}"
"""A text with exactly one {}."""
_FIGURE_PATTERN = r"^[^\x00-/:-@\[-^`{-\x7f][^\x00-\x1f!-,./:-@\[-^`{-\x7f]{0,39}$"
"""``_FIGURE`` for readers whose \\w is ASCII only: all but the ASCII characters that it excludes."""


class Section(BaseModel):
    """A part of the tree: frozen, and closed to keys it does not know."""

    # The docstring below a field is its description. ``config_schema`` reads it from the source; pydantic
    # would do so at each start of hvx. Validators are built when a section is first used.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def _question_id(value: Any) -> int | str:
    """An id as the file of questions has it: an integer or a text."""
    if type(value) not in (int, str) or value == "":
        raise PydanticCustomError("id", "expected an integer or a text")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PydanticCustomError("id", "expected an integer of 64 bits; put a longer id in quotes")
    return value


def _one_or_several_paths(value: Any) -> Path | tuple[Path, ...]:
    if isinstance(value, (str, Path)):
        return Path(value)
    if not isinstance(value, (list, tuple)):
        raise PydanticCustomError("path_type", "expected a path")
    if not value or not all(isinstance(path, (str, Path)) for path in value):
        raise PydanticCustomError("paths", "expected a path or a list of paths")
    return tuple(map(Path, value))


def _labels(value: Any) -> tuple[str, ...] | Path | None:
    if value is None or isinstance(value, Path):
        return value
    if isinstance(value, str):
        return Path(value)
    if not isinstance(value, (list, tuple)):
        raise PydanticCustomError("labels", "expected a list of texts, or a file with one a line")
    for label in value:
        if not isinstance(label, str) or not label.strip():
            raise PydanticCustomError("labels", "expected texts")
    if len(value) < 2 or len(set(value)) < len(value):
        raise PydanticCustomError("labels", "expected two labels or more, no two of them alike")
    return tuple(value)


def _labels_plain(labels: tuple[str, ...] | Path | None) -> list[str] | str | None:
    """Labels as JSON and YAML have them."""
    return list(labels) if isinstance(labels, tuple) else None if labels is None else str(labels)


def _path_texts(images: Path | tuple[Path, ...]) -> str | list[str]:
    """Folders of images as JSON and YAML have them."""
    return list(map(str, images)) if isinstance(images, tuple) else str(images)


class SplitConfig(Section):
    """Where a split's questions, annotations and images are."""

    questions: Path
    """The file of questions, as published; ``.gz`` and ``.zip`` are read directly."""
    annotations: Path | None = None
    """The file of answers. ``null`` if there are none, as for a test split, or if they are in the file of
    questions."""
    format: str | None = None
    """The layout of the two files: one of the names in docs/data.md. ``null``: recognized from their rows."""
    images: Annotated[
        Path | tuple[Path, ...],
        PlainValidator(_one_or_several_paths),
        PlainSerializer(_path_texts),
        WithJsonSchema({"anyOf": [_PATH_SCHEMA, {"type": "array", "items": _PATH_SCHEMA, "minItems": 1}]}),
    ]
    """The folder of images, or several: an image is taken from the first folder that has it."""
    image_name: Annotated[str, Field(json_schema_extra={"pattern": r"\{image_id"})] | None = None
    """File name of an image, made from its id, such as ``COCO_val2014_{image_id:012d}.jpg``. Used where the
    rows do not name their image. ``null``: the name that the layout's publisher uses."""
    accuracy: Literal["vqa", "evalai"] = "vqa"
    """How answers are scored: ``vqa`` is the official accuracy of VQA, ``evalai`` that of TextVQA."""
    objects: Path | None = None
    """Table of the objects in the images and of those asked about, for the pointing game and for
    ``train.backbone_epochs``. ``hvx scenes`` writes one."""
    limit: Positive | None = None
    """Use only the first so many questions. ``null``: all of them."""
    exif_orientation: Flag = False
    """Rotate photographs as their EXIF data says. Published checkpoints were trained on photographs that were
    not rotated."""
    labels: Annotated[
        tuple[str, ...] | Path | None,
        PlainValidator(_labels),
        PlainSerializer(_labels_plain),
        WithJsonSchema({"anyOf": [_LABELS_SCHEMA, _PATH_SCHEMA, {"type": "null"}]}),
    ] = None
    """The labels that a dual encoder chooses from for each image: a list of different texts, or a text file
    with one label per line. The rows of the split are then images, with or without a label each."""
    template: Annotated[str, Field(json_schema_extra={"pattern": _ONE_PLACE})] = "a photo of a {}"
    """The text made of a label; ``{}``, exactly once, stands for the label."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of images, in the order in which they are searched."""
        return self.images if isinstance(self.images, tuple) else (self.images,)

    @field_validator("template")
    @classmethod
    def _holds_a_label(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("expected a text with one {}, such as 'a photo of a {}'")
        return template

    @field_validator("image_name")
    @classmethod
    def _names_an_image(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        names = _names_of(pattern, _SOME_IDS[0]) or _names_of(pattern, _SOME_IDS[1])
        if names is None:
            raise ValueError("expected a pattern such as 'COCO_val2014_{image_id:012d}.jpg'")
        if len(names) < len(_SOME_IDS[0]):
            raise ValueError("the pattern must contain {image_id}")
        return pattern


def _names_of(pattern: str, ids: tuple[int | str, ...]) -> set[str] | None:
    """The names that a pattern makes of ids; None if it is no pattern for ids of this kind."""
    try:
        if any(_WIDE.search(spec or "") for _, _, spec, _ in Formatter().parse(pattern)):
            return None
        return {pattern.format(image_id=image_id) for image_id in ids}
    except Exception:  # str.format raises whatever a pattern leads it to
        return None


class ImageConfig(Section):
    """What happens to a photograph before it enters the network."""

    size: Pixels = 448
    """Side, in pixels, of the square that the network sees: the photograph's center square, scaled."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """How the photograph is scaled."""
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN
    """Subtracted from the red, green and blue channel, whose values are 0 to 1; ImageNet's by default."""
    std: tuple[Deviation, Deviation, Deviation] = IMAGENET_STD
    """What the red, green and blue channel are divided by after that; ImageNet's by default."""


class BackboneConfig(Section):
    """Any torchvision CNN, cut at a named node of its graph."""

    architecture: str = "resnet152"
    """torchvision's name of the CNN; ``resnet10``, a small ResNet, is hvx's own."""
    node: str = "layer4"
    """Node of torchvision's feature extraction whose output is the features; ``layer4.2.add`` is ResNet-152
    before its last ReLU."""
    weights: str | None = None
    """A torchvision weights name such as ``IMAGENET1K_V2``, or a file with a state dict. ``null``: random."""


class EncoderConfig(Section):
    """The question encoder: word embeddings and a skip-thought GRU."""

    tokenizer: Literal["nltk", "mcb"] = "nltk"
    """``nltk``: NLTK's words in lower case, the question mark is a token. ``mcb``: the tokens of vqa.pytorch,
    in lower case, without punctuation."""
    sentences: Flag = False
    """Split the text into sentences before words, as the code of the paper's author does: each sentence's
    last period is a token (``nltk`` only)."""
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    """Keep only the first so many tokens of a question. ``null``: all of them."""
    embedding: Width = 620
    """Width of the word embeddings."""
    hidden: Width = 2400
    """Width of the GRU's state, which is the question's vector."""
    candidate: Literal["reset_before", "reset_after", "reset_after_bias"] = "reset_before"
    """The GRU's candidate state. ``reset_before``: tanh(Wx + b + U(r∘h)), as in Torch7; ``reset_after``:
    tanh(Wx + b + r∘(Uh)), as in skip-thoughts; ``reset_after_bias``: tanh(Wx + b + r∘(Uh + c)), as in
    PyTorch."""
    integration: Literal["additive", "multiplicative"] = "additive"
    """How the GRU joins input and state. ``additive``: Wx + Uh + b; ``multiplicative``:
    α∘Wx∘Uh + β₁∘Uh + β₂∘Wx + b (Wu et al. 2016)."""


MLB_FORMS: dict[str, dict[str, Any]] = {
    "paper": {},
    "torch7": {"visual_projection": "per_glimpse", "encoder": {"sentences": True, "max_tokens": 26}},
    "vqa-pytorch": {
        "visual_projection": "per_glimpse",
        "attention_product_activation": "tanh",
        "product_activation": "tanh",
        "glimpses": 4,
        "encoder": {"candidate": "reset_after", "tokenizer": "mcb", "max_tokens": 26},
    },
}
"""The three forms in which MLB exists, as the options in which each differs from the paper's."""


class MRNConfig(Section):
    """What MRN has beyond the sizes of all networks."""

    blocks: Steps = 3
    """L, the number of blocks."""
    pool: Literal["mean", "max"] = "mean"
    """Pooling over the cells of the image. ``mean``: the features' mean, as in Kim et al. (2016); ``max``:
    the maximum of tanh(W_1 v) over the cells, which keeps the features of one place together."""
    inner: Width | None = None
    """Width of W_1's output. ``null``: as ``joint``."""
    shortcuts: Flag = True
    """Whether blocks have a linear shortcut. ``false``: H_l = F_l, the network that the author's code calls
    MN."""
    unit_length: Flag = False
    """Divide the features' mean by its L2 norm, as the author's code does (``pool: mean`` only)."""

    @model_validator(mode="after")
    def _unit_length_of_the_mean(self) -> MRNConfig:
        if self.unit_length and self.pool != "mean":
            raise ValueError(f"mrn.unit_length is of the features' mean; pool is '{self.pool}'")
        return self


class MutanConfig(Section):
    """What MUTAN has beyond the sizes of all networks; defaults are those of vqa.pytorch's MutanAtt.

    The width of the sum after the attention is ``joint``.
    """

    visual: Width = 620
    """Width of x, the projected image features of all glimpses; a multiple of ``glimpses``."""
    textual: Width = 310
    """Width of y, the projected question vector."""
    rank: Steps = 5
    """R, the number of Hadamard products that are summed."""
    attention_visual: Width = 310
    """Width of x in the attention."""
    attention_textual: Width = 310
    """Width of y in the attention."""
    attention_joint: Width = 510
    """Width of the sum in the attention."""
    attention_rank: Steps = 5
    """R in the attention."""
    visual_part_activation: Activation = "none"
    """Activation b of every image factor b(B_r x)."""
    textual_part_activation: Activation = "none"
    """Activation a of every question factor a(A_r y)."""
    attention_visual_part_activation: Activation = "none"
    """Activation of every image factor in the attention."""
    attention_textual_part_activation: Activation = "none"
    """Activation of every question factor in the attention."""
    sum_activation: Activation = "none"
    """Activation of the sum, before ``product_activation``."""


class MCBConfig(Section):
    """What MCB has beyond the sizes of all networks; the width of its sketches, d, is ``joint``."""

    attention: Width = 512
    """Width of the attention's hidden layer, after the fusion in each cell."""


class DANConfig(Section):
    """What r-DAN has beyond the sizes of all networks."""

    steps: Steps = 2
    """K, the number of attention steps after the first product, which is of the means."""


class MIConfig(Section):
    """What the network ``mi`` has beyond the sizes of all networks."""

    pool: Literal["mean", "max"] = "mean"
    """What the initial state is made from. ``mean``: the features' mean over the cells of the image; ``max``:
    the maximum of tanh(W_1 v) over the cells, ``joint`` wide."""
    attention: Flag = False
    """In every step, attend to cells of the image by the words so far; V depends on what is seen there."""


MI_ENCODER = {"integration": "multiplicative", "candidate": "reset_after"}
"""What the network ``mi`` needs of its encoder: V, of all three gates, must not depend on the step's word."""


class ModelConfig(Section):
    """A network that joins image and question, all but ``hiecoatt`` by Hadamard products.

    ``form`` presets the options in which the three known forms of MLB (Eqs 4-8) differ. ``glimpses`` and the
    options after ``joint`` are MLB's, unless they say otherwise; those of another network are under its name.
    """

    network: Literal["mlb", "mrn", "mutan", "mcb", "gated", "dan", "mi", "hiecoatt"] = "mlb"
    """``mlb``: MLB; ``mrn``: MRN (Kim et al. 2016); ``mutan``: MUTAN (Ben-younes et al. 2017); ``mcb``: MCB
    (Fukui et al. 2016); ``gated``: the gated tanh network of Teney et al. (2017); ``dan``: r-DAN (Nam et al.
    2017); ``mi``: a recurrence by multiplicative integration (Wu et al. 2016) whose state begins with the
    image; ``hiecoatt``: hierarchical co-attention (Lu et al. 2016), which has no Hadamard product, so that
    its runs have no heat maps and no z-scores."""
    form: Literal["paper", "torch7", "vqa-pytorch"] = "paper"
    """Which form of MLB: the paper's, that of the author's Torch7 code, or that of vqa.pytorch. Changes the
    defaults of other keys (see the presets in docs/config.md)."""
    image: ImageConfig = ImageConfig()
    backbone: BackboneConfig = BackboneConfig()
    encoder: EncoderConfig = EncoderConfig()
    glimpses: Glimpses = 2
    """G, the number of attention maps (MLB, MUTAN, MCB). 0: no attention; V comes from the features' mean."""
    joint: Width = 1200
    """d, the width of the joint. MLB: per glimpse, so that V, Q and F are ``glimpses`` times as wide; MCB:
    the width of its sketches; ``dan``, ``mi`` and ``hiecoatt``: the width of the attention."""
    visual_projection: Literal["joint", "per_glimpse"] = "joint"
    """How MLB makes V from the attended features. ``joint``: one linear map of all glimpses together;
    ``per_glimpse``: one for each."""
    attention_visual_activation: Activation = "tanh"
    """Activation of the image factor in the attention (MLB, MUTAN)."""
    attention_textual_activation: Activation = "tanh"
    """Activation of the question factor in the attention (MLB, MUTAN)."""
    attention_product_activation: Activation = "none"
    """Activation of the attention's product (MLB, MUTAN)."""
    visual_activation: Activation = "tanh"
    """Activation of V (MUTAN: of x)."""
    textual_activation: Activation = "tanh"
    """Activation of Q (MUTAN: of y)."""
    product_activation: Activation = "none"
    """Activation of F before the classifier (MUTAN: of the sum of products)."""
    mrn: MRNConfig = MRNConfig()
    mutan: MutanConfig = MutanConfig()
    mcb: MCBConfig = MCBConfig()
    dan: DANConfig = DANConfig()
    mi: MIConfig = MIConfig()

    @property
    def has_product(self) -> bool:
        """Whether the network joins by a Hadamard product, which Eqs 2 and 3 explain."""
        return self.network != "hiecoatt"

    @property
    def width(self) -> int:
        """The width of MLB's V, Q and F: d of all glimpses side by side."""
        return self.joint * max(1, self.glimpses)

    @model_validator(mode="after")
    def _glimpses_share_the_width(self) -> ModelConfig:
        if self.network == "mutan" and self.mutan.visual % max(1, self.glimpses):
            raise ValueError(
                f"mutan.visual: {self.mutan.visual} is no multiple of the {self.glimpses} glimpses, which "
                "share it"
            )
        return self

    @model_validator(mode="after")
    def _mi_integrates(self) -> ModelConfig:
        for name, needed in MI_ENCODER.items():
            value = getattr(self.encoder, name)
            if self.network == "mi" and value != needed:
                raise ValueError(f"encoder.{name}: the network mi needs '{needed}', not '{value}'")
        return self

    @model_validator(mode="after")
    def _levels_share_the_width(self) -> ModelConfig:
        encoder = self.encoder
        if self.network == "hiecoatt" and encoder.embedding != encoder.hidden:
            raise ValueError(
                f"encoder.embedding: the network hiecoatt needs that of encoder.hidden, {encoder.hidden}, "
                f"not {encoder.embedding}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _apply_form(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        if tree.get("network") == "mi":
            tree = _merge({"encoder": MI_ENCODER}, tree)
        form = tree.get("form")
        return _merge(MLB_FORMS.get(form, {}) if isinstance(form, str) else {}, tree)


class DualEncoderConfig(Section):
    """A dual encoder, such as CLIP or SigLIP, in place of a network of hvx's own."""

    network: Literal["open_clip", "transformers"]
    """The package that builds the dual encoder."""
    name: str
    """``open_clip``: the name of one of its models, or a folder with ``open_clip_config.json``;
    ``transformers``: a folder in the layout of Hugging Face, or the id of a repository on its hub."""
    pretrained: str | None = None
    """``open_clip`` only: a tag of published weights, a file, or ``random``. ``null`` for a folder, which has
    its own weights."""

    @model_validator(mode="after")
    def _transformers_has_its_own_weights(self) -> DualEncoderConfig:
        if self.network == "transformers" and self.pretrained is not None:
            raise ValueError("pretrained is for network: open_clip; of transformers `name` says it all")
        return self


DUAL_ENCODERS = get_args(DualEncoderConfig.model_fields["network"].annotation)


class TrainConfig(Section):
    """How ``hvx train`` trains the head over a frozen backbone."""

    split: str = "train"
    """Name, under ``splits``, of the split to train on."""
    validation: str | None = "val"
    """Name of the split that is evaluated after each epoch: the checkpoint is that of the best epoch.
    ``null``: none; the last epoch counts as the best."""
    answers: Positive = 2000
    """Keep the most frequent answers, so many; other questions are left out of training."""
    min_word_count: Positive = 1
    """The vocabulary has the words that occur at least so often in the training questions."""
    start: Path | None = None
    """Start file of the question encoder, as ``hvx import skipthoughts`` writes it. ``null``: random."""
    epochs: Annotated[Epochs, Field(ge=1)] = 20
    """Epochs in which the head is trained."""
    batch: Batch = 256
    """Questions per step, about: an image's questions stay together."""
    rate: Rate = 1e-3
    """Highest learning rate of AdamW: it rises over the first tenth of the steps, then falls to 0 as a
    cosine."""
    dropout: Fraction = 0.5
    """Share of values in the head that dropout sets to 0 in training."""
    weight_decay: Decay = 0.0
    """Weight decay of AdamW."""
    gradient_clip: Norm = 10.0
    """The gradient's L2 norm is clipped to this."""
    feature_cache: Path | None = None
    """Folder for the frozen backbone's features. ``null``: the checkpoint's folder."""
    workers: Processes = 1
    """Processes that decode images in advance. 0: the main process decodes them."""
    save_minutes: Minutes = 10.0
    """Save the resume state of the training at least every so many minutes. 0: after every step."""
    backbone_epochs: Epochs = 0
    """Epochs of pre-training in which the backbone learns what is in each cell; needs the split's
    ``objects`` as ``hvx scenes`` writes them. 0: the backbone stays as it is."""
    backbone_batch: Batch = 64
    """Images per step of the pre-training."""
    backbone_rate: Rate = 2e-3
    """Highest learning rate of the pre-training."""


class PickConfig(Section):
    """One question of a split, found by its text, as a row of a figure."""

    question: str
    """Text of the question; case, spaces and punctuation do not matter."""
    ground_truth: str | None = None
    """Its answer, to distinguish questions of the same text on several images. ``null``: any."""
    question_id: Annotated[int | str, PlainValidator(_question_id), WithJsonSchema(_ID_SCHEMA)] | None = None
    """Id of the question, to choose one of several candidates. ``null``: the lowest."""
    figure: Annotated[str, Field(json_schema_extra={"pattern": _FIGURE_PATTERN})] = "figure"
    """Name of the figure that this question is a row of, and of its file: at most 40 letters, digits, ``-``,
    ``_`` and spaces. Rows are in the order of the list."""
    printed_tokens: tuple[str, ...] = ()
    """Tokens that a paper prints for this question."""
    printed_z: tuple[Score, ...] = ()
    """z-scores that a paper prints for this question, one for each of ``printed_tokens``."""

    @field_validator("figure")
    @classmethod
    def _names_a_file(cls, figure: str) -> str:
        if not _FIGURE.fullmatch(figure):
            raise ValueError("expected at most 40 letters, digits, '-', '_' and spaces, no space ahead")
        return figure

    @model_validator(mode="after")
    def _one_for_each_token(self) -> PickConfig:
        if len(self.printed_z) != len(self.printed_tokens):
            counts = f"{len(self.printed_z)} printed_z and {len(self.printed_tokens)} printed_tokens"
            raise ValueError(f"expected one printed_z for each of printed_tokens; there are {counts}")
        return self


class HeatmapConfig(Section):
    """How a run stores its heat maps; docs/formats.md says what smaller ones lose."""

    size: Pixels | None = None
    """Side of a stored map in pixels, a divisor of ``model.image.size``: means over squares. ``null``: as
    large as the network's input."""
    dtype: Literal["float16", "uint8"] = "float16"
    """``float16``: half precision; ``uint8``: 8 bits, with a factor for each map."""


class ExplainConfig(Section):
    """What ``hvx explain`` explains, and how."""

    split: str = "val"
    """Name, under ``splits``, of the split to explain."""
    run: Path
    """The run folder: where the results are written."""
    batch_images: Batch | None = None
    """Images that are explained at once. ``null``: as many as fit in memory and are of use."""
    workers: Processes | None = None
    """Processes that decode images in advance. 0: the main process decodes them; ``null``: one, or more for
    a GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the backbone's numbers. Heat maps of ``bfloat16`` are near those of ``float32``, not
    equal."""
    compile: Flag = False
    """Have PyTorch compile the backbone's passes; takes a minute or more, and a C++ compiler on the CPU."""
    product: Literal["constant", "free"] = "constant"
    """F in Eq. 2. ``constant``: held constant, as in the paper; ``free``: it changes with the image, for the
    gradient of ½‖V − F‖²."""
    cotangent: Literal["joint", "score"] = "joint"
    """What is propagated back. ``joint``: V − F and Q − F, as in Eqs 2 and 3; ``score``, for a dual encoder
    or a module of your own: Q and V, for the gradients of the score ΣF."""
    pick: tuple[PickConfig, ...] = ()
    """Explain only these questions of the split. Empty: all of them."""
    heatmap: HeatmapConfig = HeatmapConfig()
    gradient: Flag = False
    """Also store the standardized gradient itself, one plane per color channel for each question."""
    shard_questions: Positive = 256
    """Questions per shard, about: an image's questions stay together."""
    on_error: Literal["skip", "stop"] = "skip"
    """What to do about an image that cannot be read. ``skip``: list its questions in ``failures.jsonl`` and
    continue; ``stop``: stop."""


class Config(Section):
    """The whole config. Relative paths start from ``root``."""

    root: Path = Path()
    """The folder that all relative paths of the config start from; if relative itself, it starts from the
    current folder. ``~`` and ``$VARIABLES`` are expanded in all paths."""
    seed: Seed = 0
    """Seed of random numbers: initial weights, the order of training, dropout."""
    checkpoint: Path
    """The model's checkpoint: ``hvx train`` writes it, ``hvx explain`` reads it. A config of a
    dual encoder has none; with ``--model`` it may be left out."""
    splits: dict[str, SplitConfig] = {}
    """The splits of the dataset, each under a name of your choice, such as ``train`` and ``val``."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The network: one of hvx's own, which ``hvx train`` trains, or a dual encoder. ``hvx explain`` reads the
    description of hvx's own networks from the checkpoint; the section can then be left out."""
    dual_encoder: DualEncoderConfig | None = Field(None, exclude=True)
    """What ``model`` describes where its network is a dual encoder; a file has it under ``model``."""
    train: TrainConfig = TrainConfig()
    explain: ExplainConfig | None = None
    """What ``hvx explain`` explains, and how. ``null``: the config is for training only."""

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, tree: Any) -> Any:
        """A dual encoder has a section of its own kind."""
        if isinstance(tree, dict) and "dual_encoder" in tree:
            raise ValueError("unknown key 'dual_encoder'; a dual encoder is described under 'model'")
        model = tree.get("model") if isinstance(tree, dict) else None
        if not isinstance(model, dict) or model.get("network") not in DUAL_ENCODERS:
            return tree
        if "checkpoint" in tree:
            raise ValueError("checkpoint is for hvx's own networks; model says what a dual encoder is")
        rest = {key: value for key, value in tree.items() if key != "model"}
        return rest | {"dual_encoder": model, "checkpoint": Path()}

    @model_serializer(mode="wrap")
    def _together(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = dump(self)
        if self.dual_encoder:
            del plain["checkpoint"]
            plain["model"] = self.dual_encoder.model_dump()
        return plain

    def path(self, path: Path) -> Path:
        """``path`` with ``~`` and ``$VARIABLES`` expanded, relative to ``root`` unless absolute."""
        return expanded(self.root) / expanded(path)

    def split(self, name: str) -> SplitConfig:
        """The split called ``name``, with its paths resolved.

        Raises:
            HvxError: no such split in the config.
        """
        if name not in self.splits:
            known = ", ".join(sorted(self.splits)) or "none"
            raise HvxError(
                f"splits: no split '{name}'{did_you_mean(name, self.splits)}; the config has: {known}"
            )
        split = self.splits[name]
        fields = ("questions", "annotations", "objects", "labels")
        resolved = {
            field: self.path(path) for field in fields if isinstance(path := getattr(split, field), Path)
        }
        folders = tuple(map(self.path, split.folders))
        images = folders if isinstance(split.images, tuple) else folders[0]
        return split.model_copy(update=resolved | {"images": images})


def expanded(path: Path) -> Path:
    """``path`` with ``~`` and environment variables replaced.

    Raises:
        HvxError: it names no path, or the home folder of a user who is not there.
    """
    if "\0" in str(path):
        raise HvxError(f"{str(path)!r}: a path cannot hold the character NUL")
    try:
        return Path(os.path.expandvars(path)).expanduser()
    except RuntimeError:
        raise HvxError(f"{path}: no home folder of that name") from None


def load(path: Path, overrides: list[str] | None = None, checkpoint: bool = True) -> Config:
    """Read a config file.

    Args:
        path: the YAML file.
        overrides: ``key.of.the.tree=value`` strings, the value read as YAML.
        checkpoint: whether one must be named.

    Raises:
        HvxError: no such file, no YAML, an unknown key, a value of the wrong kind.
    """
    tree = read_yaml_file(path, "config file")
    if not isinstance(tree, dict):
        raise HvxError(f"{path}: expected a mapping of keys such as 'checkpoint' and 'splits'")
    model = tree.get("model")
    if not checkpoint and not (isinstance(model, dict) and model.get("network") in DUAL_ENCODERS):
        tree.setdefault("checkpoint", "")
    return parse(tree, str(path), overrides)


def parse(tree: dict[str, Any], source: str, overrides: list[str] | None = None) -> Config:
    """Lay ``key=value`` overrides over a tree of plain values, check it and make it a config.

    ``source`` names the tree in errors.
    """
    for override in overrides or []:
        _set(tree, override)
    return checked(Config, tree, source)


def checked(kind: type[Model], tree: Any, source: str) -> Model:
    """``tree`` as a ``kind``, or one line that names the first wrong key and what would be right."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        # A misspelled key that is required is two errors; the unknown one says more than the missing one.
        first = min(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
        # A file has a dual encoder under `model`.
        path = ["model" if part == "dual_encoder" else str(part) for part in first["loc"]]
        key = _brief(".".join(path)) or "(top)"
        if first["type"] == "extra_forbidden":
            known = _keys_beside(kind, first["loc"])
            raise HvxError(
                f"{source}: unknown key '{key}'{did_you_mean(_brief(str(first['loc'][-1])), known)}; "
                f"known here: {', '.join(known)}"
            ) from None
        if first["type"] == "missing":
            raise HvxError(f"{source}: key '{key}' is missing") from None
        reason = _plain(first["type"], first["msg"], first["input"])
        if not path and first["type"] == "value_error":
            raise HvxError(f"{source}: {reason}") from None
        if key == "model.network":
            reason += f"; a dual encoder is {' or '.join(map(repr, DUAL_ENCODERS))}"
        raise HvxError(f"{source}: {key}: {reason}") from None


def _plain(kind: str, message: str, value: Any) -> str:
    """What was expected, and what ``value`` is instead."""
    limit = "Input should be "
    text = message.replace(limit, "expected " if kind == "literal_error" else "expected a number ", 1)
    expected = _PLAINLY.get(kind, text.removeprefix("Value error, "))
    if kind == "value_error" and isinstance(value, dict):  # a section or the whole tree: too long to show
        return expected
    if kind in _QUOTABLE and isinstance(value, bool):
        return (
            f"{expected}, not {str(value).lower()}: YAML reads yes, no, on, off, true and false as booleans; "
            "put the value in quotes"
        )
    if kind in _QUOTABLE and isinstance(value, (int, float, date)):
        actual = "date" if isinstance(value, date) else "number"
        return f"{expected}, not the {actual} {value if actual == 'date' else shown(value)}: put it in quotes"
    if isinstance(value, str) and _LIKE_A_NUMBER.fullmatch(value[:100]):
        return f"{expected}, written without quotes, leading zeros, ':' and '_', not {shown(value)}"
    return f"{expected}, not {'null' if value is None else shown(value)}"


def _keys_beside(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys known where the last part of ``loc`` was found."""
    section: Any = kind
    for part in loc[:-1]:
        if get_origin(section) is dict:
            section = get_args(section)[1]
        elif get_origin(section) is tuple:
            section = get_args(section)[0]
        else:
            section = _section(section.model_fields[str(part)].annotation)
    return sorted(name for name, field in section.model_fields.items() if not field.exclude)


def _section(annotation: Any) -> Any:
    """``annotation`` without an ``| None``."""
    inside = [a for a in get_args(annotation) if a is not type(None)]
    return inside[0] if len(inside) == 1 else annotation


def _set(tree: dict[str, Any], override: str) -> None:
    """Write one ``a.b.c=value`` into ``tree``."""
    key, sign, text = override.partition("=")
    override = _brief(override)
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise HvxError(f"--set {override}: expected key=value, such as explain.batch_images=4")
    try:
        value = read_yaml(text)
    except HvxError as error:
        raise HvxError(f"--set {override}: not a YAML value{error}") from None
    for depth, part in enumerate(parts[:-1]):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise HvxError(f"--set {override}: '{'.'.join(parts[: depth + 1])}' is a value, not a section")
    tree[parts[-1]] = value


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``under``, section by section; values that are sections already win whole."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _brief(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
