"""The photographs of a run. Without PyTorch and Matplotlib, which take seconds to import."""

from __future__ import annotations

from PIL import Image

from hvx.data.image_files import find_image
from hvx.data.photos import open_photo
from hvx.store.reader import RunReader


def open_photo_of(reader: RunReader, image_path: str, digest: str) -> Image.Image:
    """A whole photograph of a run, as it was explained.

    Raises:
        BadImage: it is missing, or cannot be read.
        ReplacedImage: the file's SHA-256 is no longer ``digest``.
    """
    path = find_image(reader.image_folders, image_path)
    return open_photo(path, reader.about.get("exif_orientation") is True, digest)
