"""The kinds of files that hvx reads, each small and whole, with the function that reads it."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from hvx import config as configs
from hvx.config import BackboneConfig, ModelConfig, SplitConfig
from hvx.data.images import crop_photo, to_input
from hvx.data.object_masks import ObjectTable
from hvx.data.photos import open_photo
from hvx.data.questions import read_questions
from hvx.data.scenes import write_scenes
from hvx.data.tokenize import Vocabulary
from hvx.importers import common
from hvx.importers.pickles import read_plain_pickle
from hvx.importers.skipthoughts import import_skipthoughts, load_pretrained, save_pretrained
from hvx.importers.torch7 import Sizes, import_torch7
from hvx.importers.vqa_pytorch import import_vqa_pytorch
from hvx.info import describe
from hvx.models import checkpoint
from hvx.models.backbone import Backbone, build_backbone
from hvx.models.mlb import MLB
from hvx.models.weights import read_state_dict
from hvx.store.checksum import open_verified
from hvx.store.reader import RunReader
from hvx.store.schema import FIELDS, run_digest
from hvx.store.writer import write_shard, write_solid, write_view

Kind = Callable[[Path], tuple[list[Path], Callable[[], object]]]
"""In a folder of its own: the files to damage, and what reads them."""

WORDS = ["what", "color", "is", "the", "UNK"]
ANSWERS = ["yes", "no", "two"]
SMALL = BackboneConfig(architecture="resnet10", node="relu")
"""One convolution of 64 channels."""
EMBEDDING, HIDDEN, JOINT, CHANNELS = 4, 5, 6, 64
SPLIT = "OpenEnded_scenes_val_questions.json", "scenes_val_annotations.json", "scenes_val_objects.json"


def _one_backbone() -> None:
    """Build each backbone once: building is most of the time, and no part of reading."""
    built: dict[str, Backbone] = {}

    def build(config: BackboneConfig, root: Path = Path()) -> Backbone:
        key = config.model_dump_json()
        if key not in built:
            built[key] = build_backbone(config, root)
        return built[key]

    for module in (common, checkpoint):
        setattr(module, "build_backbone", build)  # noqa: B010 (mypy knows better)


def _config(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    path = folder / "config.yaml"
    split = {"questions": "q.json", "images": "images", "image_name": "{image_id:012d}.png", "limit": 3}
    model = {"form": "torch7", "image": {"size": 448}, "encoder": {"hidden": 2400}, "glimpses": 2}
    tree = {
        "root": "~/data", "seed": 3, "checkpoint": "m.safetensors", "splits": {"val": split}, "model": model,
        "train": {"rate": 1e-3, "dropout": 0.5}, "explain": {"run": "run", "pick": [{"question": "why?"}]},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree))

    def read() -> None:
        loaded = configs.load(path, ["explain.batch_images=4"])
        loaded.path(loaded.checkpoint)
        for name in loaded.splits:
            loaded.split(name)

    return [path], read


def _scenes(folder: Path) -> SplitConfig:
    write_scenes(folder / "scenes", 1, 3, 32, 0)
    questions, annotations, objects = (folder / "scenes" / name for name in SPLIT)
    return SplitConfig(
        questions=questions,
        annotations=annotations,
        objects=objects,
        images=folder / "scenes" / "images",
        image_name="SCENES_val_{image_id:012d}.png",
    )


def _questions(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    split = _scenes(folder)
    assert split.annotations
    return [split.questions, split.annotations], lambda: read_questions(split)


def _json_lines(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    path = folder / "questions.jsonl"
    row = {"image_id": 5, "question": "why?", "multiple_choice_answer": "no", "answers": [{"answer": "no"}]}
    path.write_text("".join(json.dumps({"question_id": n, **row}) + "\n" for n in range(4)))
    return [path], lambda: read_questions(SplitConfig(questions=path, images=folder))


def _objects(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    split = _scenes(folder)
    assert split.objects
    masks = sorted((folder / "scenes" / "masks").glob("SCENES_val_*"))
    image_ids = [int(path.stem.rpartition("_")[2]) for path in masks]
    return [split.objects, *masks], lambda: [ObjectTable(split).mask(image_id) for image_id in image_ids]


def _torch7(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    path, prepro = folder / "mlb.t7", folder / "data_prepro.json"
    count = Sizes(len(WORDS), len(ANSWERS), 2, EMBEDDING, HIDDEN, JOINT, CHANNELS).count
    values = np.random.default_rng(0).standard_normal(count).astype("<f4")

    def opening(index: int, name: str) -> bytes:
        texts = (struct.pack("<i", len(text)) + text for text in (b"V 1", name.encode()))
        return struct.pack("<ii", 4, index) + b"".join(texts)

    header = opening(1, "torch.FloatTensor") + struct.pack("<iqqq", 1, count, 1, 1)
    storage = opening(2, "torch.FloatStorage") + struct.pack("<q", count) + values.tobytes()
    path.write_bytes(header + storage)
    numbered = {
        key: {str(n): text for n, text in enumerate(texts, 1)}
        for key, texts in (("ix_to_word", WORDS), ("ix_to_ans", ANSWERS))
    }
    prepro.write_text(json.dumps(numbered))
    _one_backbone()
    sizes = {"joint": JOINT, "embedding": EMBEDDING, "hidden": HIDDEN, "channels": CHANNELS}
    return [path, prepro], lambda: import_torch7(path, prepro, SMALL, **sizes)


def _state(glimpses: int) -> dict[str, Tensor]:
    """A state dict of vqa.pytorch's MLBAtt."""
    chance = torch.Generator().manual_seed(0)
    width = JOINT * glimpses
    shapes: dict[str, tuple[int, ...]] = {"seq2vec.embedding.weight": (len(WORDS) + 1, EMBEDDING)}
    linears = {f"seq2vec.rnn.gru_cell.weight_i{gate}": (HIDDEN, EMBEDDING) for gate in "rin"} | {
        "linear_classif": (len(ANSWERS), width), "conv_v_att": (JOINT, CHANNELS),
        "linear_q_att": (JOINT, HIDDEN), "conv_att": (glimpses, JOINT), "linear_q_fusion": (width, HIDDEN),
        **{f"list_linear_v_fusion.{g}": (JOINT, CHANNELS) for g in range(glimpses)},
    }  # fmt: skip
    for name, (out, into) in linears.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    shapes |= {f"seq2vec.rnn.gru_cell.weight_h{gate}.weight": (HIDDEN, HIDDEN) for gate in "rin"}
    return {name: torch.randn(shape, generator=chance) for name, shape in shapes.items()}


def _vqa_pytorch(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    attention = {"nb_glimpses": 2, "dim_h": JOINT, "activation_v": "tanh", "activation_mm": "tanh"}
    model = {
        "arch": "MLBAtt", "dim_v": CHANNELS, "dim_q": HIDDEN, "seq2vec": {"arch": "skipthoughts"},
        "attention": attention, "fusion": {"dim_h": JOINT}, "classif": {"activation": "tanh"},
    }  # fmt: skip
    (folder / "options.yaml").write_text(yaml.safe_dump({"model": model, "coco": {"size": 64}}))
    torch.save(_state(2), folder / "best_model.pth.tar")
    for name, inverse, texts, first in (
        ("wid_to_word", "word_to_wid", WORDS, 1),
        ("aid_to_ans", "ans_to_aid", ANSWERS, 0),
    ):
        numbered = dict(enumerate(texts, first))
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(numbered, 2))
        (folder / f"{inverse}.pickle").write_bytes(pickle.dumps({text: n for n, text in numbered.items()}, 4))
    _one_backbone()
    return sorted(folder.iterdir()), lambda: import_vqa_pytorch(folder, SMALL)


def _pickle(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    paths = [folder / f"{protocol}.pickle" for protocol in range(6)]
    for protocol, path in enumerate(paths):
        path.write_bytes(pickle.dumps(dict(enumerate(WORDS)), protocol))
    return paths, lambda: [read_plain_pickle(path) for path in paths]


def _state_dict(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    """Weights of a backbone, in both of PyTorch's formats."""
    path, old = folder / "weights.pth", folder / "old.pth"
    state = {"conv1.weight": torch.randn(4, 3, 7, 7), "bn1.num_batches_tracked": torch.tensor(3)}
    torch.save(state, path)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return [path, old], lambda: [read_state_dict(file) for file in (path, old)]


def _skipthoughts(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    wide = 2 * HIDDEN
    shapes = {"W": (EMBEDDING, wide), "U": (HIDDEN, wide), "b": (wide,), "Wx": (EMBEDDING, HIDDEN),
              "Ux": (HIDDEN, HIDDEN), "bx": (HIDDEN,)}  # fmt: skip
    arrays: dict[str, Any] = {f"encoder_{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    np.savez_compressed(folder / "uni_skip.npz", **arrays)
    np.save(folder / "utable.npy", np.ones((len(WORDS), EMBEDDING), np.float32))
    (folder / "dictionary.txt").write_text("\n".join(WORDS) + "\n")
    return sorted(folder.iterdir()), lambda: import_skipthoughts(folder)


def _start(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    _skipthoughts(folder)
    path = folder / "start.safetensors"
    save_pretrained(path, import_skipthoughts(folder))
    return [path], lambda: load_pretrained(path)


def _checkpoint(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    path = folder / "model.safetensors"
    config = ModelConfig.model_validate(
        {"backbone": SMALL, "encoder": {"embedding": EMBEDDING, "hidden": HIDDEN}, "joint": JOINT}
    )
    head = MLB(config, CHANNELS, len(WORDS), len(ANSWERS))
    _one_backbone()
    made = checkpoint.VQAModel(
        config, build_backbone(SMALL), head, Vocabulary(tuple(WORDS)), ANSWERS, {"epochs": 2}
    )
    checkpoint.save_checkpoint(path, made)

    def read() -> None:
        describe(path)
        checkpoint.load_checkpoint(path)

    return [path], read


def made_items(seed: int) -> dict[str, np.ndarray]:
    """Two made-up items."""
    chance = np.random.default_rng(seed)
    maps = {"GSR": (2, 3, 3), "HW": (16, 16), "LHW": (3, 16, 16), "CHW": (3, 16, 16)}
    shapes = {"": (), "K": (5,), "L": (3,), "T": (3,), **maps, "THW": (3, 16, 16)}
    made = {}
    for name, field in FIELDS.items():
        numbers = chance.random((2, *shapes[field.axes]))
        made[name] = numbers.astype(str).astype(object) if field.fill == "" else numbers.astype(field.dtype)
    return made | {"length": np.full(2, 2, np.int32)}


_IDENTITY = {"checkpoint_sha256": "0"}


def _run(solid: bool, damaged: str) -> Kind:
    """A run, of which the files are damaged that a pattern names."""

    def kind(folder: Path) -> tuple[list[Path], Callable[[], object]]:
        run = folder / "run"
        shards = [run / "shards" / f"{number:05d}.h5" for number in range(2)]
        for number, path in enumerate(shards):
            label = {"shard": number, "run_digest": run_digest(_IDENTITY)}
            write_shard(path, made_items(number), label, [{"question_id": 7}])
        attributes = {"crop": {"a": 1}, "run_digest": run_digest(_IDENTITY)}
        (write_solid if solid else write_view)(run / "explanations.h5", shards, attributes)
        about = {
            "identity": _IDENTITY,
            "image": {},
            "images": "i",
            "finished": "f",
            "device": "cpu",
        }
        (run / "run.json").write_text(json.dumps(about | {"shards": 2, "packed": solid}))

        def read() -> None:
            describe(run)
            reader = RunReader(run)
            try:
                reader.attribute("crop")
                for name in FIELDS:
                    reader.column(name)
                for number in range(len(reader)):
                    reader[number]
            finally:
                reader.close()
            for path in shards:
                with open_verified(path) as file:
                    json.loads(file.attrs["failures"])

        return sorted(run.glob(damaged)), read

    return kind


def _image(suffix: str) -> Kind:
    def kind(folder: Path) -> tuple[list[Path], Callable[[], object]]:
        path = folder / f"photo{suffix}"
        pixels = np.random.default_rng(0).integers(0, 255, (24, 31, 3), np.uint8).repeat(2, 0)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, exif=exif)
        image = configs.ImageConfig(size=32)
        return [path], lambda: to_input(crop_photo(open_photo(path, True), image), image)

    return kind


KINDS: dict[str, Kind] = {
    "config": _config,
    "questions": _questions,
    "json-lines": _json_lines,
    "objects": _objects,
    "torch7": _torch7,
    "vqa-pytorch": _vqa_pytorch,
    "pickle": _pickle,
    "state-dict": _state_dict,
    "npz": _skipthoughts,
    "start": _start,
    "checkpoint": _checkpoint,
    "shard": _run(False, "shards/*"),
    "view": _run(False, "explanations.h5"),
    "solid": _run(True, "explanations.h5"),
    "run-json": _run(False, "run.json"),
    "png": _image(".png"),
    "jpeg": _image(".jpg"),
    "webp": _image(".webp"),
    "tiff": _image(".tif"),
    "gif": _image(".gif"),
}
