"""Pictures of telephones, which the extra heic reads, and those of cameras, which nothing does."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.decode import DECODER, decode
from fewshot_runner.data.files import Directory
from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.errors import UserError

WITHOUT_THE_EXTRA = """
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
from fewshot_runner.data.decode import decode
from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.errors import UserError
for attempt in (lambda: decode(open(sys.argv[1] + "/a/1.HEIC", "rb").read(), "1.HEIC"), Folder(path=sys.argv[1]).items):
    try:
        attempt()
    except UserError as error:
        print(error)
"""


@pytest.fixture
def heif():
    return pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'fewshot-runner[heic]'")


def quadrants() -> Image.Image:
    """64 x 48 pixels, another colour in each quarter."""
    colours = np.array([[[200, 30, 40], [30, 180, 60]], [[40, 60, 210], [240, 240, 230]]], dtype=np.uint8)
    return Image.fromarray(colours.repeat(24, axis=0).repeat(32, axis=1))


def saved(picture: Image.Image, *, orientation: int = 1) -> bytes:
    """A file that says how it is to be turned, in a box of its own (irot): what EXIF says does not count in HEIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.info["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    picture.save(buffer, "HEIF", quality=95)
    assert (b"irot" in buffer.getvalue()) == (orientation != 1)
    return buffer.getvalue()


def test_a_heic_picture_is_read_upright(heif):
    lying = quadrants().transpose(Image.Transpose.ROTATE_90)
    for content in (saved(quadrants()), saved(lying, orientation=6)):  # 6: to be turned to the right by a quarter
        picture = decode(content, "IMG_1.HEIC")
        assert picture.size == (64, 48)
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(quadrants())).mean() < 8
    assert f"pillow-heif {heif.__version__}" in DECODER


def test_a_heic_picture_that_is_cut_off_is_refused(heif):
    content = saved(quadrants())
    for length in (20, len(content) // 2, len(content) - 20):
        with pytest.raises(UserError, match=r"^IMG_1\.HEIC: .*replace or remove it$"):
            decode(content[:length], "IMG_1.HEIC")


def test_a_folder_of_them_is_a_data_set(heif, tmp_path):
    for name in ("a/1.HEIC", "a/2.heif", "b/3.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(saved(quadrants()))
    source = Folder(path=tmp_path)
    assert [item.name for item in source.items()] == ["a/1.HEIC", "a/2.heif", "b/3.heic"]
    assert source.left_out() == []


def test_without_the_extra_its_name_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("1.HEIC", "2.hif", "3.heics"):
        (tmp_path / "a" / name).write_bytes(b"\0\0\0\x18ftypheic")
    command = [sys.executable, "-c", WITHOUT_THE_EXTRA, str(tmp_path)]
    one, all_of_them = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    remedy = "save as JPEG, or pip install 'fewshot-runner[heic]'"
    assert one == f"1.HEIC: .heic pictures are not read; {remedy}"
    assert all_of_them == f"{tmp_path}: pictures in formats that are not read (1 .heic, 1 .hif, 1 .heics): {remedy}"


def test_raw_files_which_pass_for_tiff_are_refused(tmp_path):
    preview = io.BytesIO()
    quadrants().save(preview, "TIFF")
    with pytest.raises(UserError, match=r"^a\.NEF: \.nef pictures are not read; save as JPEG$"):
        decode(preview.getvalue(), "a.NEF")
    (tmp_path / "a.NEF").write_bytes(preview.getvalue())
    assert Directory(tmp_path).listing().unread() == ["a.NEF"]
