"""CLIP's RN50 as open_clip has it: what the score of an image and a caption rests on.

With random weights, unless a checkpoint is given: what is shown is the way, not an explanation worth
reading. Needs open_clip_torch. Run: python docs/examples/clip_rn50.py --size 64

The image's side is a ResNet with ReLUs throughout, all guided; its attention pooling holds no activation but
the softmax, which keeps its true gradient. The text's side, a transformer with GELUs, is Eq. 3's and keeps
its true gradients.
"""

from __future__ import annotations

import argparse

import open_clip
import torch
from torch import Tensor, nn

import hvx

CAPTIONS = ["a red star", "a photo of a dog on the grass"]


class Score(nn.Module):
    """Σ (v ∘ t), for captions that are each of the image in the same row."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        v = self.clip.encode_image(images, normalize=True)
        t = self.clip.encode_text(captions, normalize=True)
        return (v * t).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--weights", help="a checkpoint that open_clip reads")
    options = parser.parse_args()
    torch.manual_seed(0)
    clip = open_clip.create_model("RN50", pretrained=options.weights, force_image_size=options.size)
    images = torch.randn(len(CAPTIONS), 3, options.size, options.size)
    captions = open_clip.get_tokenizer("RN50")(CAPTIONS)

    found = hvx.explain_product(
        Score(clip), (images, captions), image=images, words=captions, mask=captions != 0
    )
    assert found.heatmap is not None and found.z is not None
    print(found.chosen)
    print(f"{found.relus} ReLUs guided, {sum(found.unguided.values())} other activations on the image's side")
    print("heat maps", tuple(found.heatmap.shape))
    for caption, z in zip(CAPTIONS, found.z, strict=True):
        # The tokenizer adds a token before the caption and one after it.
        print(caption, [round(value, 2) for value in z[~z.isnan()].tolist()])


if __name__ == "__main__":
    main()
