"""A small dual encoder, trained on hvx's drawn scenes, and what its score of an image and a caption rests on.

Its score is Σ (v ∘ t), v and t the normalized embeddings of image and caption: a Hadamard product whose
classifier is a sum. Run: python docs/examples/dual_encoder.py --output dual_encoder.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import hvx
from hvx.data.scene_drawing import COLORS, SHAPES
from hvx.data.scenes import Scene, draw_scene
from hvx.explain.scores import heat_map, standardized

SIZE = 64
BATCH = 32
CAPTION = "a picture of a {}"
CAPTIONS = [CAPTION.format(f"{color} {shape}") for color in COLORS for shape in SHAPES]
VOCABULARY = sorted({word for caption in CAPTIONS for word in caption.split()})
IDS = torch.tensor([[VOCABULARY.index(word) for word in caption.split()] for caption in CAPTIONS])


class DualEncoder(nn.Module):
    """v from a CNN, t from a GRU, both of unit length."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        self.cnn = nn.Sequential(*layers, nn.Conv2d(64, 128, 3, padding=1), nn.ReLU())
        self.to_visual = nn.Linear(128, width)
        self.table = nn.Embedding(len(VOCABULARY), 32)
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.to_textual = nn.Linear(64, width)
        self.scale, self.shift = nn.Parameter(torch.tensor(20.0)), nn.Parameter(torch.tensor(-5.0))

    def encode_image(self, images: Tensor) -> Tensor:
        return functional.normalize(self.to_visual(self.cnn(images).amax((2, 3))), dim=1)

    def encode_text(self, embeddings: Tensor) -> Tensor:
        return functional.normalize(self.to_textual(self.gru(embeddings)[1][0]), dim=1)


@dataclass
class Scenes:
    """Drawn scenes: images (N, 3, H, W), and whether each caption is true of each (N, 35)."""

    drawn: list[Scene]
    images: Tensor
    holds: Tensor


def draw(count: int, seed: int) -> Scenes:
    drawn = [draw_scene(np.random.default_rng([seed, n]), SIZE) for n in range(count)]
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2) / 127.5 - 1
    names = [{CAPTION.format(item.name) for item in scene.objects} for scene in drawn]
    holds = torch.tensor([[caption in own for caption in CAPTIONS] for own in names]).float()
    return Scenes(drawn, images, holds)


def train(model: DualEncoder, scenes: Scenes, epochs: int) -> None:
    """Each caption is true of an image or not: a logistic loss over all pairs."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    steps = epochs * (len(scenes.images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(scenes.images)).split(BATCH):
            if len(rows) < BATCH:
                continue
            v, t = model.encode_image(scenes.images[rows]), model.encode_text(model.table(IDS))
            logits = model.scale * v @ t.t() + model.shift
            loss = functional.binary_cross_entropy_with_logits(logits, scenes.holds[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def explain(model: DualEncoder, images: Tensor, captions: Tensor) -> hvx.ProductExplanation:
    """V and Q handed over: no capture is needed where both are at hand."""
    images = images.clone().requires_grad_()
    embeddings = model.table(IDS[captions])
    return hvx.explain_joint(
        model.encode_image(images), model.encode_text(embeddings), image=images, embeddings=embeddings
    )


def explain_score(model: DualEncoder, images: Tensor, captions: Tensor) -> Tensor:
    """For comparison, heat maps of the score's own gradient, guided in the same way; they know no joint."""
    images = images.clone().requires_grad_()
    hooks = [
        layer.register_full_backward_hook(lambda _, gradients, __: (gradients[0].clamp(min=0),))
        for layer in model.cnn
        if isinstance(layer, nn.ReLU)
    ]
    score = (model.encode_image(images) * model.encode_text(model.table(IDS[captions]))).sum()
    gradient = torch.autograd.grad(score, images)[0]
    for hook in hooks:
        hook.remove()
    return heat_map(standardized(gradient))


def pointed(heatmaps: Tensor, masks: list[np.ndarray]) -> float:
    """Share of the heat maps whose largest pixel lies within its mask."""
    return float(
        np.mean([mask.flat[int(heatmap.argmax())] for heatmap, mask in zip(heatmaps, masks, strict=True)])
    )


def report(model: DualEncoder, val: Scenes, output: Path) -> None:
    """Print how well the model knows its scenes, and where the heat maps point; draw three of them."""
    with torch.no_grad():
        scores = model.encode_image(val.images) @ model.encode_text(model.table(IDS)).t()
    right = val.holds.gather(1, scores.argmax(1, keepdim=True)).mean()
    print(f"likeliest caption true of its scene: {right:.3f} (n = {len(scores)})")
    asked = [(n, item) for n, scene in enumerate(val.drawn) for item in scene.objects]
    images = val.images[[n for n, _ in asked]]
    captions = torch.tensor([CAPTIONS.index(CAPTION.format(item.name)) for _, item in asked])
    found = explain(model, images, captions)
    assert found.heatmap is not None and found.z is not None
    own = [val.drawn[n].mask == item.label for n, item in asked]
    some = [val.drawn[n].mask > 0 for n, _ in asked]
    print(f"of n = {len(asked)} captions, the heat map's maximum lies")
    for name, maps in (
        ("Eq. 2", found.heatmap),
        ("score's gradient", explain_score(model, images, captions)),
    ):
        print(f"  {name}: in the caption's object {pointed(maps, own):.3f}, in any {pointed(maps, some):.3f}")
    print(f"  by chance: in the caption's object {np.mean(own):.3f}, in any {np.mean(some):.3f}")
    words = CAPTION.format("COLOR SHAPE").split()
    print("mean z:", "  ".join(f"{w} {z:+.2f}" for w, z in zip(words, found.z.mean(0).tolist(), strict=True)))
    few = explain(model, images[:3], captions[:3])
    photos = [Image.fromarray(val.drawn[n].image).resize((256, 256)) for n, _ in asked[:3]]
    tokens = [CAPTIONS[caption].split() for caption in captions[:3]]
    answers = [f"score {score:.2f}" for score in few.product.sum(1).tolist()]
    few.figure(photos, tokens, answers, width=600).save(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("dual_encoder.png"))
    parser.add_argument("--scenes", type=int, default=3000, help="to train on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--val", type=int, default=200, help="scenes to explain")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = DualEncoder()
    train(model, draw(options.scenes, 0), options.epochs)
    report(model, draw(options.val, 1), options.output)


if __name__ == "__main__":
    main()
