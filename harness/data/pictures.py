"""Pictures: JPEG and PNG files of any size, in folders or zip archives, as arrays of one size."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")

Pixels = npt.NDArray[np.uint8]


class PictureError(ValueError):
    """Bytes that are no JPEG or PNG image; the message is one line."""


def decode(content: bytes, height: int, width: int, channels: int) -> Pixels:
    """The largest centred part of a picture that has this shape, scaled to it: uint8 (height, width, channels).

    So the shorter side is scaled and the longer one cropped; cameras' rotation marks are heeded, transparency is not.

    Args:
        content: of a JPEG or PNG file.
        height: in pixels, at least 1.
        width: in pixels, at least 1.
        channels: 1 (luminance) or 3 (RGB).

    Raises:
        PictureError: the content cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, which convert() would cut off at 255
                image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
            image = image.convert("L" if channels == 1 else "RGB")
            scale = min(image.width / width, image.height / height)
            left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
            box = (left, top, left + width * scale, top + height * scale)
            scaled = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
            return np.asarray(scaled, np.uint8).reshape(height, width, channels)
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise PictureError("no JPEG or PNG image, or a damaged one: " + " ".join(str(error).split())) from None


@dataclass(frozen=True)
class Album:
    """The pictures below a folder or in a zip archive.

    Attributes:
        source: the folder or archive.
        names: paths below it, sorted, without the folders that all share.
        stamps: what changes with each file: size and time, or the archive's CRC.
        read: name -> the file's bytes.
    """

    source: Path
    names: tuple[str, ...]
    stamps: tuple[str, ...]
    read: Callable[[str], bytes]


def album(source: Path) -> Album:
    """All pictures by their suffix, hidden files left out.

    Raises:
        PictureError: no folder and no zip archive.
    """
    if source.is_dir():
        files = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
        stamps = {name: f"{path.stat().st_size} {path.stat().st_mtime_ns}" for name, path in files.items()}
        return _shortened(source, stamps, lambda name: files[name].read_bytes())
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise PictureError(f"{source} is no folder and no zip archive: {error}") from None
    stamps = {info.filename: f"{info.file_size} {info.CRC}" for info in archive.infolist() if not info.is_dir()}
    return _shortened(source, stamps, archive.read)  # which any number of threads may call


def _shortened(source: Path, stamps: dict[str, str], read: Callable[[str], bytes]) -> Album:
    found = sorted(
        name
        for name in stamps
        if name.lower().endswith(SUFFIXES) and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    )
    shared = ""
    while found and all("/" in name[len(shared) :] for name in found):
        first = shared + found[0][len(shared) :].partition("/")[0] + "/"
        # One folder of pictures is a class, not a wrapper around classes.
        if not all(name.startswith(first) for name in found) or any("/" not in name[len(first) :] for name in found):
            break
        shared = first
    names = tuple(name[len(shared) :] for name in found)
    return Album(source, names, tuple(stamps[name] for name in found), lambda name: read(shared + name))
