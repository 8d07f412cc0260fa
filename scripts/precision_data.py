"""Makes what scripts/measure_precision.py measures: images that look the same, and a ResNet-152.

python scripts/precision_data.py images data/daquar/images runs/gray --change gray --match "*.jpg"
python scripts/precision_data.py resnet152 data/daquar/images QUESTIONS.json runs/resnet152
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click
import numpy as np
import torch
from benchmark import made_model
from PIL import Image
from torch import nn

from hvx.data.images import load_input
from hvx.files import read_json, write_json
from hvx.models.checkpoint import VQAModel, save_checkpoint

CALIBRATION = 16
"""Photographs of which the BatchNorm layers take their statistics, none of them explained."""
AT_ONCE = 8
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make the data that scripts/measure_precision.py measures."""


@main.command()
@click.argument("source", type=_FOLDER)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--change", type=click.Choice(["gray", "jpeg"]), required=True)
@click.option("--match", default="*", show_default=True, help="Names of the images.")
def images(source: Path, target: Path, change: str, match: str) -> None:
    """Copy the images of SOURCE with a change that nobody sees.

    gray: each channel of each pixel plus 1, at most 255, as PNG; jpeg: encoded as JPEG of quality 95.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob(match)):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        if change == "gray":
            Image.fromarray(np.minimum(pixels, 254) + np.uint8(1)).save(target / f"{path.stem}.png")
        else:
            Image.fromarray(pixels).save(target / f"{path.stem}.jpg", quality=95)


@main.command()
@click.argument("photos", type=_FOLDER)
@click.argument("questions", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--count", default=30, show_default=True, help="Photographs.")
@click.option("--each", default=2, show_default=True, help="Questions on each.")
@click.option("--image-name", default="DAQUAR_{image_id:012d}.jpg", show_default=True)
def resnet152(photos: Path, questions: Path, target: Path, count: int, each: int, image_name: str) -> None:
    """Write MLB at the paper's sizes over ResNet-152, and a config that explains the first questions on COUNT
    photographs. The weights are random; the BatchNorm statistics are those of other photographs, so that
    activations have the size that they have in a trained network."""
    target.mkdir(parents=True, exist_ok=True)
    by_image: dict[int, list[dict[str, object]]] = {}
    for row in read_json(questions, "the questions")["questions"]:
        by_image.setdefault(row["image_id"], []).append(row)
    chosen = dict(islice(((image, rows) for image, rows in by_image.items() if len(rows) >= each), count))
    kept = [row for rows in chosen.values() for row in rows[:each]]
    write_json(target / "questions.json", {"questions": kept})
    explained = {image_name.format(image_id=image) for image in chosen}
    model = made_model(torch.device("cpu"), [str(row["question"]) for row in kept])
    others = (path for path in sorted(photos.glob("*.jpg")) if path.name not in explained)
    calibrate(model, list(islice(others, CALIBRATION)))
    save_checkpoint(target / "model.safetensors", model)
    split = {"questions": "questions.json", "images": str(photos.resolve()), "image_name": image_name}
    tree = {"checkpoint": "model.safetensors", "splits": {"val": split}, "explain": {"run": "float32"}}
    write_json(target / "config.yaml", {"root": str(target.resolve()), **tree})


@torch.no_grad()
def calibrate(model: VQAModel, paths: list[Path]) -> None:
    """Set the statistics of each BatchNorm layer to the mean over batches of these photographs."""
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        model.backbone(torch.stack([load_input(path, model.config.image) for path in some]))
    for norm in norms:
        norm.eval()


if __name__ == "__main__":
    main()
