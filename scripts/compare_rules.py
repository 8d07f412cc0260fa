"""Prints what Eq. 2 shows by each rule of ``explain_product`` on one network, and how noisy it is.

python scripts/compare_rules.py runs/reproduce          # what `make reproduce` leaves

The network is the one that `hvx reproduce` trains, so that the object a question asks about is known.
For each rule the table gives

- how often the heat map's maximum lies in the object asked about (chance: that object's share of the image);
- noise: 1 less the rank correlation of the heat map with that of the same image after Gaussian noise of 1 %
  of its range. 0 is a map that such noise does not move;
- two controls: the rank correlation with the map of another question on the same image, and with the map of
  another image. A map that shows nothing but edges has a high first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from measure_capture import Whole
from torch import Tensor

from hvx import HvxError, SmoothGrad, explain_product
from hvx.capture.equations import RuleName
from hvx.config import Config, parse
from hvx.data.image_files import image_path
from hvx.data.images import load_input
from hvx.data.object_masks import ObjectTable
from hvx.data.tokenize import padded, tokenizer
from hvx.measure.metrics.agreement import rank_correlation
from hvx.measure.metrics.localization import points_inside
from hvx.models.checkpoint import VQAModel, load_checkpoint
from hvx.store.reader import Item, RunReader

SINGLE = ("attribute", "shape", "existence")
NOISE = 0.01
RULES: dict[str, tuple[RuleName, int]] = {
    "guided": ("guided", 0), "gradient": ("gradient", 0),
    "gradient, SmoothGrad 5": ("gradient", 5), "gradient, SmoothGrad 25": ("gradient", 25),
}  # fmt: skip
"""Name → rule, samples of SmoothGrad."""


@dataclass(frozen=True)
class Question:
    """A question about one object: its image, the object's pixels, the text, another on the same image."""

    photo: Tensor
    inside: np.ndarray
    text: str
    other: str


def questions(run: Path, count: int) -> tuple[VQAModel, list[Question]]:
    """The model of a run and the first questions about one object whose image has another question."""
    with RunReader(run) as reader:
        config = parse(reader.about["config"], str(run / "run.json"))
        assert config.explain is not None
        table = ObjectTable(config.split(config.explain.split))
        model = load_checkpoint(config.path(config.checkpoint), "cpu")
        items = [reader[number] for number in range(min(len(reader), 12 * count))]
    made: list[Question] = []
    for item in items:
        asked = table.asked[item.question_id]
        others = [each.question for each in items if each.image_id == item.image_id]
        others = [text for text in others if text != item.question]
        if asked.kind in SINGLE and asked.labels and others and len(made) < count:
            inside = np.isin(table.mask(item.image_id), asked.labels)
            made.append(Question(_photo(config, model, item), inside, item.question, others[-1]))
    return model, made


def _photo(config: Config, model: VQAModel, item: Item) -> Tensor:
    assert config.explain is not None
    path = image_path(config.split(config.explain.split), item.image_path)
    return load_input(path, model.config.image)[None]


def heat_map(model: VQAModel, photo: Tensor, question: str, rule: tuple[RuleName, int]) -> np.ndarray:
    """H (H, W) of a question by a rule."""
    tokenize = tokenizer(model.config.encoder)
    rows, lengths = (torch.from_numpy(each) for each in padded([model.vocabulary.rows(tokenize(question))]))
    whole = Whole(model, lengths).eval()
    name, samples = rule
    smooth = SmoothGrad(samples=samples) if samples else None
    found = explain_product(
        whole,
        (photo, rows),
        image=photo,
        words=rows,
        rule=name,
        smooth=smooth,
        product=-1,
    )
    assert found.heatmap is not None
    made: np.ndarray = found.heatmap[0].numpy()
    return made


def row(model: VQAModel, asked: list[Question], rule: tuple[RuleName, int]) -> list[float]:
    """Share of maxima in the object, noise, and the two controls."""
    torch.manual_seed(0)
    maps = [heat_map(model, each.photo, each.text, rule) for each in asked]
    spans = [float(each.photo.max() - each.photo.min()) for each in asked]
    noisy = [
        heat_map(model, each.photo + NOISE * span * torch.randn_like(each.photo), each.text, rule)
        for each, span in zip(asked, spans, strict=True)
    ]
    others = [heat_map(model, each.photo, each.other, rule) for each in asked]
    return [
        float(np.mean([points_inside(map, each.inside) for map, each in zip(maps, asked, strict=True)])),
        1 - _mean_correlation(maps, noisy),
        _mean_correlation(maps, others),
        _mean_correlation(maps, [*maps[1:], maps[0]]),
    ]


def _mean_correlation(maps: list[np.ndarray], others: list[np.ndarray]) -> float:
    return float(np.mean([rank_correlation(one, other) for one, other in zip(maps, others, strict=True)]))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=60, show_default=True, help="Questions.")
def main(folder: Path, count: int) -> None:
    """A Markdown table of the rules, on the network that `hvx reproduce` left in FOLDER."""
    model, asked = questions(folder / "run", count)
    if not asked:
        raise HvxError(f"{folder / 'run'}: no question about one object on an image with another question")
    chance = np.mean([each.inside.mean() for each in asked])
    click.echo(f"n = {len(asked)}; chance in the object {chance:.3f}\n")
    click.echo("| rule | maximum in the object asked about | noise | another question | another image |")
    click.echo("|---|---|---|---|---|")
    for name, rule in RULES.items():
        click.echo(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row(model, asked, rule)) + " |")


if __name__ == "__main__":
    main()
