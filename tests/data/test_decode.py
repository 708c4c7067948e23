"""Decoding: hand-made pixels, hand-made files, and torchvision as the second opinion on resizing."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.decode import decode, fit
from fewshot_runner.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by the letter of its specification; `rows` begin with their filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(width: int, height: int, bits: int, samples: bytes, *, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A little-endian, uncompressed, one-strip grey TIFF."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 12 * 10 + 4)]
    tags += [(277, 1), (278, height), (279, len(samples)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + samples


def deep_row(*values: int) -> np.ndarray:
    return np.tile(np.array(values), (4, 1))  # (4, 4)


def pixels(data: bytes) -> np.ndarray:
    image = decode(data, "x")
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


def quadrants() -> Image.Image:
    """8 x 4, red and green above blue and white: no rotation or reflection leaves it as it is."""
    image = Image.new("RGB", (8, 4))
    for box, colour in (((0, 0), RED), ((4, 0), GREEN), ((0, 2), BLUE), ((4, 2), WHITE)):
        image.paste(colour, (*box, box[0] + 4, box[1] + 2))
    return image


# What the EXIF standard says about rows and columns of the stored picture, as numpy turns upright -> stored.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied_once(orientation, form):
    upright = np.asarray(quadrants().resize((64, 32), Image.Resampling.NEAREST))  # in whole blocks of JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
    result = pixels(saved(stored, form, exif=exif, **options))
    assert result.shape == upright.shape
    assert np.abs(result.astype(int) - upright).max() <= (3 if form == "JPEG" else 0)


def test_one_bit_and_grey_become_grey():
    bits = png(8, 4, 1, 0, b"\x00\x55" * 4)
    np.testing.assert_array_equal(pixels(bits), np.tile([0, 255] * 4, (4, 1)))
    values = np.arange(32, dtype=np.uint8).reshape(4, 8)
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(values), "PNG")), values)


def test_palette_becomes_its_colours_and_transparent_entries_white():
    plte = chunk(b"PLTE", bytes(RED + GREEN + BLUE + (0, 0, 0)))
    rows = b"\x00\x00\x01\x02\x03" * 4
    row = [RED, GREEN, BLUE, (0, 0, 0)]
    np.testing.assert_array_equal(pixels(png(4, 4, 8, 3, rows, plte)), [row] * 4)
    one = png(4, 4, 8, 3, rows, plte, chunk(b"tRNS", b"\xff\x00"))
    np.testing.assert_array_equal(pixels(one), [[RED, WHITE, BLUE, (0, 0, 0)]] * 4)
    several = png(4, 4, 8, 3, rows, plte, chunk(b"tRNS", bytes([255, 0, 255, 51])))
    np.testing.assert_array_equal(pixels(several), [[RED, WHITE, BLUE, (204, 204, 204)]] * 4)


def test_alpha_lies_on_white():
    alpha = np.array([0, 51, 102, 255])
    for value in (0, 100, 255):
        expected = np.rint((value * alpha + 255 * (255 - alpha)) / 255)
        grey = np.stack([np.full((4, 4), value), np.tile(alpha, (4, 1))], axis=2).astype(np.uint8)
        result = pixels(saved(Image.fromarray(grey, "LA"), "PNG"))
        assert result.ndim == 2
        np.testing.assert_array_equal(result, np.tile(expected, (4, 1)))
        colour = np.concatenate([np.full((4, 4, 3), value), np.tile(alpha, (4, 1))[..., None]], axis=2)
        result = pixels(saved(Image.fromarray(colour.astype(np.uint8)), "PNG"))
        np.testing.assert_array_equal(result, np.repeat(np.tile(expected, (4, 1))[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "expected"),
    [
        (8, 0, bytes([0, 7, 8, 255]), struct.pack(">H", 7), [0, 255, 8, 255]),
        (4, 0, bytes([0x07, 0x8F]), struct.pack(">H", 7), [0, 255, 136, 255]),
        (2, 0, bytes([0b00011011]), struct.pack(">H", 1), [0, 255, 170, 255]),
        (16, 0, struct.pack(">4H", 0, 514, 515, 65535), struct.pack(">H", 514), [0, 255, 2, 255]),
        (8, 2, bytes(12), bytes(6), [WHITE] * 4),
        (16, 2, bytes(24), bytes(6), [WHITE] * 4),
        (16, 2, b"\x80\x01" * 12, b"\x80\x01" * 3, [WHITE] * 4),
    ],
)
def test_the_colour_that_a_png_declares_transparent_becomes_white(bits, colour, row, key, expected):
    data = png(4, 4, bits, colour, (b"\x00" + row) * 4, chunk(b"tRNS", key))
    np.testing.assert_array_equal(pixels(data), [expected] * 4)


def test_cmyk_and_ycbcr_jpeg():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 0] = 255  # full cyan above, blank paper below
    result = pixels(saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)).astype(int)
    assert np.abs(result[:7] - [0, 255, 255]).max() <= 4
    assert np.abs(result[9:] - 255).max() <= 4
    result = pixels(saved(quadrants().resize((64, 32), 0).convert("YCbCr"), "JPEG", quality=100)).astype(int)
    assert np.abs(result[2:14, 2:30] - RED).max() <= 6
    assert np.abs(result[18:30, 2:30] - BLUE).max() <= 6


def test_deep_grey_is_scaled_from_its_bit_depth():
    values = np.array([[0, 257, 128 * 257, 65535], [128, 129, 65406, 65407]] * 2)
    expected = [[0, 1, 128, 255], [0, 1, 254, 255]] * 2
    big, little = values.astype(">u2"), values.astype("<u2")
    rows = b"".join(b"\x00" + row.tobytes() for row in big)
    for data in (
        png(4, 4, 16, 0, rows),
        tiff(4, 4, 16, little.tobytes()),
        b"P5 4 4 65535\n" + big.tobytes(),
    ):
        np.testing.assert_array_equal(pixels(data), expected)
    inverted = tiff(4, 4, 16, little.tobytes(), photometric=0)
    np.testing.assert_array_equal(pixels(inverted), 255 - np.array(expected))


def test_12_bit_32_bit_signed_and_floating_grey():
    # two 12-bit samples, 0 and 4095, then 2048 and 0x555, in three bytes each pair
    np.testing.assert_array_equal(
        pixels(tiff(4, 4, 12, b"\x00\x0f\xff\x80\x05\x55" * 4)), [[0, 255, round(2048 * 255 / 4095), 85]] * 4
    )
    unsigned = deep_row(0, 2**31 - 1, 2**31, 2**32 - 1).astype("<u4")
    np.testing.assert_array_equal(pixels(tiff(4, 4, 32, unsigned.tobytes())), [[0, 127, 128, 255]] * 4)
    signed = deep_row(0, 129, 16384, 32767).astype("<i2")
    np.testing.assert_array_equal(pixels(tiff(4, 4, 16, signed.tobytes(), sample_format=2)), [[0, 1, 128, 255]] * 4)
    floating = np.tile(np.array([0, 0.2, 0.6, 1], "<f4"), (4, 1))
    np.testing.assert_array_equal(pixels(tiff(4, 4, 32, floating.tobytes(), sample_format=3)), [[0, 51, 153, 255]] * 4)


@pytest.mark.parametrize(
    "data",
    [
        tiff(4, 4, 16, deep_row(0, -1, 2, 3).astype("<i2").tobytes(), sample_format=2),
        tiff(4, 4, 8, deep_row(0, 1, 2, 3).astype("i1").tobytes(), sample_format=2),
        tiff(4, 4, 32, deep_row(0, 1, 2, 255).astype("<f4").tobytes(), sample_format=3),
        tiff(4, 4, 32, np.full((4, 4), np.nan, "<f4").tobytes(), sample_format=3),
    ],
    ids=["negative", "signed bytes", "floats to 255", "not a number"],
)
def test_samples_without_a_known_span_are_refused(data):
    with pytest.raises(UserError, match=r"^cat/a\.tif: .*; save it as 8-bit PNG$"):
        decode(data, "cat/a.tif")


def test_the_first_of_several_frames_is_taken():
    frames = [Image.new("RGB", (6, 5), colour) for colour in (GREEN, RED)]
    for form in ("GIF", "TIFF", "PNG"):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(pixels(data), np.broadcast_to(GREEN, (5, 6, 3)))


def test_truncated_and_half_written_files_are_refused():
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    thumbnail = Image.Exif()
    thumbnail[0x9286] = saved(photo, "JPEG")[-2000:]  # bytes with an end-of-image marker of their own
    for form, options in (("PNG", {}), ("JPEG", {"exif": thumbnail}), ("JPEG", {"progressive": True}), ("GIF", {})):
        data = saved(photo, form, **options)
        for length in (1, 20, len(data) // 2, len(data) * 9 // 10, len(data) - 20):
            with pytest.raises(UserError, match=r"^b\.img: .*replace or remove it$"):
                decode(data[:length], "b.img")
        if form != "GIF":  # whose end bears no mark that a picture cannot
            for share in (0.5, 0.95):
                written = data[: int(len(data) * share)]
                with pytest.raises(UserError, match=r"^b\.img: .*replace or remove it$"):
                    decode(written.ljust(4 * len(data), b"\0"), "b.img")


def test_a_flipped_bit_in_a_png_never_changes_the_picture():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    data = saved(Image.fromarray(values), "PNG")
    refused = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.integers(8)
        try:
            np.testing.assert_array_equal(pixels(bytes(damaged)), values)
        except UserError:
            refused += 1
    assert refused > 0.9 * len(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am no image" * 50, "no image"),
        (bytes(5000), "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n", "no image"),
        (saved(Image.new("L", (8, 8)), "TGA"), "no image"),  # a format without a signature, as which junk may pass
        (saved(Image.new("L", (3, 50)), "PNG"), "3 x 50 pixels, too small"),
        (saved(Image.new("L", (50, 3)), "BMP"), "50 x 3 pixels, too small"),
        (png(20_000, 10_000, 8, 2, b""), "more than"),
        (png(10_000, 10_000, 8, 2, b""), "more than"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_usable_image_is_refused_by_name(data, reason):
    with pytest.raises(UserError, match=rf"^dog/d\.png: .*{reason}.*remove it"):
        decode(data, "dog/d.png")


def test_paths_and_bytes_are_alike(tmp_path):
    data = saved(quadrants(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for given in (data, path):
        assert decode(given, "a").tobytes() == quadrants().tobytes()
    with pytest.raises(UserError, match=r"^absent: .*No such file"):
        decode(tmp_path / "absent.png", "absent")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("source", [(105, 105), (7, 7), (300, 200), (33, 1000), (28, 28)])
def test_white_stays_white(source, channels):
    for mode in ("L", "RGB"):
        result = fit(Image.new(mode, source, "white"), 28, channels)
        assert result.shape == (channels, 28, 28)
        assert result.dtype == np.uint8
        assert result.min() == 255


def test_fit_agrees_with_torchvision():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    rng = np.random.default_rng(2)
    for width, height in ((105, 105), (20, 20), (112, 56), (56, 168), (96, 64)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        # in PIL's own arithmetic; the sizes let the centre fall on whole pixels
        resized = functional.center_crop(functional.resize(image, [28], antialias=True), [28, 28])
        difference = fit(image, 28, 3).astype(int) - np.asarray(resized).transpose(2, 0, 1)
        assert np.abs(difference).max() <= (0 if width == height else 2), (width, height)


def test_fit_averages_when_it_shrinks_and_keeps_the_centre():
    strokes = np.zeros((64, 64), np.uint8)
    strokes[:, ::4] = 255  # one column in four: without antialiasing some sizes lose every stroke
    assert np.abs(fit(Image.fromarray(strokes), 16, 1)[0, :, 1:-1].astype(int) - 64).max() <= 1
    wide = np.repeat(np.repeat(np.array([[10, 20, 30]], np.uint8), 20, axis=0), [10, 20, 10], axis=1)  # (20, 40)
    np.testing.assert_array_equal(fit(Image.fromarray(wide), 20, 1), np.full((1, 20, 20), 20))
    np.testing.assert_array_equal(fit(Image.fromarray(np.ascontiguousarray(wide.T)), 20, 1), np.full((1, 20, 20), 20))


def test_fit_to_grey_weighs_colours_as_television_does():
    image = quadrants().crop((0, 0, 8, 4)).resize((4, 4), Image.Resampling.NEAREST)
    weighted = [[76, 150], [29, 255]]  # ITU-R 601: 0.299, 0.587, 0.114 of 255
    expected = np.repeat(np.repeat(weighted, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(fit(image, 4, 1)[0], expected)
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    np.testing.assert_array_equal(fit(grey, 4, 3), np.broadcast_to(np.arange(16).reshape(4, 4), (3, 4, 4)))
    with pytest.raises(ValueError, match="channels=2"):
        fit(grey, 4, 2)
