"""From the bytes of an image file to an upright 8-bit picture, and from a picture to the array that is kept of it.

A file is either shown as any viewer shows it, or refused with its name; no file becomes a wrong picture in silence.
Where a format keeps no checksum (JPEG, WebP, BMP), a flipped bit cannot be noticed.

Shapes: C channels (1 grey, 3 red, green, blue), H rows, W columns.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from fewshot_runner.errors import UserError

try:
    import pillow_heif
except ImportError:  # the extra heic: pictures of telephones
    _OF_HEIC: tuple[str, ...] = ()
else:
    pillow_heif.register_heif_opener()
    _OF_HEIC = (f"pillow-heif {pillow_heif.__version__}",)

# Part of every file source's identity: another decoder, another ingest.
DECODER = ", ".join(["1", f"Pillow {PIL.__version__}", *_OF_HEIC])

MOST_NAMED = 6  # of pictures that cannot be read
MIN_SIDE = 4  # pixels; below that there is nothing to recognise
MAX_PIXELS = 89_478_485  # where Pillow begins to suspect a decompression bomb: a quarter of a gigabyte in RGB
LONGEST = 3  # times the shorter side, of a picture kept at its own aspect ratio
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Image.init()
# Left out: what would start Ghostscript, what Pillow knows by name only, and what has no signature, so that any junk
# may pass for it.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_FORMATS = tuple(name for name, (_, accept) in Image.OPEN.items() if accept is not None and name not in _NOT_DECODED)
EXTENSIONS = frozenset(
    extension for extension, name in Image.registered_extensions().items() if name in _FORMATS
)  # lower case, with the dot
_HEIC = (".heic", ".heics", ".heif", ".heifs", ".hif")
_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2")
UNREAD = frozenset((*_HEIC, *_RAW)) - EXTENSIONS  # what telephones and cameras write, and is not decoded

_PHOTOMETRIC, _BITS_PER_SAMPLE, _SAMPLE_FORMAT = 262, 258, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the first and the last of them

Key = TypeVar("Key")
Seen = TypeVar("Seen")


def decode(data: bytes | Path, name: str) -> Image.Image:
    """The picture in `data`, upright, in mode "L" or "RGB", at its own size; of several frames the first.

    Transparency is laid on white. Deep grey is scaled from its bit depth: 65535 of 16 bits becomes 255. Raises
    `UserError` that begins with `name` for whatever is no whole picture of at least 4 x 4 pixels.
    """
    if (extension := Path(name).suffix.lower()) in UNREAD:  # raw files pass for TIFF: what is seen is a preview
        raise UserError(f"{name}: {extension} pictures are not read; {how_to_read(extension)}")
    content = _read(data, name)
    if not content:
        raise UserError(f"{name}: the file is empty (0 bytes); replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of what is refused two lines below
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        with image:
            _check_size(image, name)
            _check_ending(image, content)
            upright = ImageOps.exif_transpose(image)
            return _to_8_bit(upright, image, content, name)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name}: the image has more than {MAX_PIXELS} pixels; scale it down or remove it") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: this is no image in a known format, or its header is damaged; replace or remove it"
        ) from error
    except Exception as error:  # on damaged files decoders raise anything, from SyntaxError to struct.error
        reason = " ".join(str(error).split())  # some tell it in several lines
        raise UserError(f"{name}: the image is damaged or incomplete ({reason}); replace or remove it") from error


def how_to_read(*extensions: str) -> str:
    """What to do with pictures whose `extensions` are among the `UNREAD`."""
    of_extra = ", or pip install 'fewshot-runner[heic]'" if any(each in _HEIC for each in extensions) else ""
    return f"save as JPEG{of_extra}"


def read_each(
    image: Callable[[Key], Seen], keys: Iterable[Key], refused: list[UserError]
) -> Iterator[tuple[Key, Seen]]:
    """Each key with its `image`, of those that can be read; the errors of the others are added to `refused`."""
    for key in keys:
        try:
            seen = image(key)
        except UserError as error:
            refused.append(error)
        else:
            yield key, seen


def readable(image: Callable[[Key], Image.Image], keys: Iterable[Key]) -> Iterator[Image.Image]:
    """`image` of each key. Where some cannot be read, one `UserError` at the end names them all."""
    refused: list[UserError] = []
    for _, picture in read_each(image, keys, refused):
        yield picture
    if refused:
        raise combined(refused)


def combined(refused: Sequence[UserError]) -> UserError:
    """One error that says what these do, or the first of them."""
    if len(refused) == 1:
        return refused[0]
    more = [f"and {len(refused) - MOST_NAMED} more"] if len(refused) > MOST_NAMED else []
    return UserError("\n".join([*map(str, refused[:MOST_NAMED]), *more]))


def fit(image: Image.Image, size: int, channels: int, *, resample: str = "bilinear") -> np.ndarray:
    """`image` ("L" or "RGB") as a uint8 array (C, H, W) with H = W = `size` and C = `channels`.

    The shorter side becomes `size`, and the centre of the longer side is kept. Resizing weighs every source pixel
    (a filter as wide as the scale asks for), so fine strokes fade instead of breaking up.
    """
    image = _in_channels(image, channels)
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize((size, size), RESAMPLING[resample], box=(left, top, left + side, top + side))
    return _channels_first(image)


def shorten(image: Image.Image, shorter_side: int, channels: int, *, resample: str = "bilinear") -> Image.Image:
    """`image` ("L" or "RGB") at its own aspect ratio, its shorter side `shorter_side` pixels.

    Sizes are those of torchvision's `Resize`. Of a picture longer than `LONGEST` times its shorter side the middle
    is kept: a panorama would take the room of many pictures, and no crop of a usual shape reaches further.
    """
    image = _in_channels(image, channels)
    width, height = image.size
    side = min(width, height)
    kept_width, kept_height = min(width, LONGEST * side), min(height, LONGEST * side)
    size = shorter_side * kept_width // side, shorter_side * kept_height // side
    if image.size == size:
        return image
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    return image.resize(size, RESAMPLING[resample], box=box)


def evaluation_view(
    image: Image.Image, size: int, channels: int, *, shorter_side: int | None, resample: str = "bilinear"
) -> np.ndarray:
    """(C, size, size) uint8: a picture as evaluation sees it, whether it comes from a store or from the user's disk.

    With `shorter_side`, the picture is resized to it and its centre cut out; without, `fit` makes it square.
    """
    if shorter_side is None:
        return fit(image, size, channels, resample=resample)
    image = shorten(image, shorter_side, channels, resample=resample)
    top, left = centre(image.height, size), centre(image.width, size)
    return _channels_first(image.crop((left, top, left + size, top + size)))


def centre(length: int, size: int) -> int:
    """Where `size` pixels in the middle of `length` begin; a half is rounded to even, as torchvision does."""
    return round((length - size) / 2)


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: an image has 1 channel (grey) or 3 (red, green, blue)")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _channels_first(image: Image.Image) -> np.ndarray:
    """(C, H, W)"""
    pixels = np.array(image)  # (H, W) or (H, W, 3)
    return pixels[np.newaxis] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _read(data: bytes | Path, name: str) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return data.read_bytes()
    except OSError as error:
        raise UserError(
            f"{name}: the file cannot be read ({error.strerror}); check its path and its permissions"
        ) from error


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UserError(
            f"{name}: the image is {width} x {height} pixels, too small to show anything; "
            f"replace or remove it (at least {MIN_SIDE} x {MIN_SIDE})"
        )
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name}: the image is {width} x {height}, more than {MAX_PIXELS} pixels; scale it down or remove it"
        )


def _check_ending(image: Image.Image, content: bytes) -> None:
    """Raises `OSError` or `SyntaxError` for half-written files, their end missing or zero, that Pillow lets pass."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(content), formats=("PNG",)) as copy:
            copy.verify()  # the checksum of every chunk
    elif image.format == "JPEG" and b"\xff\xd9" not in content[image.fp.tell() :]:  # opened up to the first scan
        raise OSError("the end of the image is missing")


def _to_8_bit(image: Image.Image, opened: Image.Image, content: bytes, name: str) -> Image.Image:
    """`image`, the upright copy of `opened`, in mode "L" or "RGB"."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image, opened, name)
    if opened.format == "TIFF" and opened.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED:
        raise UserError(f"{name}: the image has signed samples, which have no agreed black; save it as 8-bit PNG")
    if image.mode in ("L", "RGB") and "transparency" in image.info and opened.format == "PNG":
        image.info["transparency"] = _colour_key_in_8_bit(image.info["transparency"], bits=content[24])
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        paper = Image.new("L" if grey else "RGB", image.size, "white")
        paper.paste(image.convert(paper.mode), mask=image.getchannel("A"))
        return paper
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _colour_key_in_8_bit(key: int | tuple[int, ...], *, bits: int) -> int | tuple[int, ...]:
    """A PNG's transparent colour, which Pillow leaves at the file's depth though it scales the pixels to 8 bits."""
    if isinstance(key, tuple):
        return tuple(value >> (bits - 8) for value in key)
    return key * (255 // (2**bits - 1))


def _from_deep_grey(image: Image.Image, opened: Image.Image, name: str) -> Image.Image:
    """Modes "I;16", "I" and "F" to "L": the span of the samples, black to white, becomes 0 to 255."""
    tags = opened.tag_v2 if opened.format == "TIFF" else {_BITS_PER_SAMPLE: (16,)}
    if opened.format not in ("PNG", "TIFF", "PPM", "JPEG2000"):
        raise UserError(f"{name}: the depth of grey of this {opened.format} file is not known; save it as PNG")
    samples = np.asarray(image)  # (H, W)
    bits = tags.get(_BITS_PER_SAMPLE, (1,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    if image.mode == "I" and not signed:
        samples = samples.view(np.uint32)
    white = 1 if image.mode == "F" else 2 ** (bits - signed) - 1
    low, high = samples.min(), samples.max()
    if not (low >= 0 and high <= white):  # also where either is not a number
        raise UserError(
            f"{name}: the samples run from {low} to {high} where 0 is black and {white} white; save it as 8-bit PNG"
        )
    scaled = np.rint(samples.astype(np.float64) * (255 / white)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        scaled = 255 - scaled
    if "transparency" in image.info:
        scaled[samples == image.info["transparency"]] = 255
    return Image.fromarray(scaled)
