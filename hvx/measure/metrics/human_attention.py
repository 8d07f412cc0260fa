"""Human attention maps in VQA-HAT's layout (Das et al. 2016): a gray picture for each person and question.

``{question_id}_1.png``, ``{question_id}_2.png``, … are in one folder. A picture has the photograph's
aspect ratio, and is bright where a person sharpened the photograph to answer the question.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from hvx.config import ImageConfig
from hvx.data.images import crop_photo
from hvx.data.photos import open_photo
from hvx.errors import HvxError

_NAME = re.compile(r"(.+)_\d+\.png")


class HumanMaps:
    """A folder of human attention maps.

    Args:
        folder: contains the maps.
        image: how photographs are cropped for the network; maps are cropped in the same way.

    Raises:
        HvxError: no such folder, or no file with such a name.
    """

    def __init__(self, folder: Path, image: ImageConfig) -> None:
        if not folder.is_dir():
            raise HvxError(f"{folder}: no such folder of human attention maps")
        self._image = image
        self._files: dict[int | str, list[Path]] = defaultdict(list)
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                self._files[match[1]].append(path)
                if match[1].isdecimal():
                    self._files[int(match[1])].append(path)
        if not self._files:
            raise HvxError(f"{folder}: no human attention map; expected files named as {{question_id}}_1.png")

    def of(self, question_id: int | str) -> list[np.ndarray]:
        """The maps (H, W) of a question, one for each person, cropped as the network's input; often empty.

        Raises:
            BadImage: a picture cannot be read.
        """
        maps = []
        for path in self._files.get(question_id, []):
            crop = crop_photo(open_photo(path), self._image)
            maps.append(np.asarray(crop.convert("L"), np.float64))
        return maps
