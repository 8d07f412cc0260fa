"""Maps of where people look: VQA-HAT's layout (Das et al. 2016), a gray picture for each person and question.

``{question_id}_1.png``, ``{question_id}_2.png``, … lie in one folder. A picture has the photograph's own
proportions, and is bright where a person made the photograph sharp to answer the question.
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
    """A folder of them.

    Args:
        folder: where they lie.
        image: how photographs are cropped for the network; maps are cropped alike.

    Raises:
        HvxError: no such folder, or none of its files is named so.
    """

    def __init__(self, folder: Path, image: ImageConfig) -> None:
        if not folder.is_dir():
            raise HvxError(f"{folder}: no such folder of human attention maps")
        self._image = image
        self._files: dict[int | str, list[Path]] = defaultdict(list)
        for path in sorted(folder.iterdir()):
            named = _NAME.fullmatch(path.name)
            if named:
                self._files[named[1]].append(path)
                if named[1].isdecimal():
                    self._files[int(named[1])].append(path)
        if not self._files:
            raise HvxError(f"{folder}: no human attention map; expected files named as {{question_id}}_1.png")

    def of(self, question_id: int | str) -> list[np.ndarray]:
        """The maps (H, W) of a question, one for each person, cropped as the network's input; often none.

        Raises:
            BadImage: a picture cannot be read.
        """
        found = []
        for path in self._files.get(question_id, []):
            crop = crop_photo(open_photo(path), self._image)
            found.append(np.asarray(crop.convert("L"), np.float64))
        return found
