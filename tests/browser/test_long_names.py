"""Names without a space to break at do not make the report wider than its window."""

import re
import shutil

import pytest
from processes import PATIENCE

from fewshot_runner.cli.main import run


@pytest.mark.parametrize("width", [1200, 400])
def test_a_long_name_is_broken(chromium, outputs, tmp_path, width: int):
    folder = shutil.copytree(outputs.folder, tmp_path / "outputs")
    name = "/srv/" + "pictures_cleaned_and_centred_" * 12
    for config in folder.glob("*/*/config.yaml"):
        config.write_text(re.sub(r"^name: .*$", f"name: {name}", config.read_text(), flags=re.MULTILINE))
    (folder / ("broken" * 30)).mkdir()
    (folder / ("broken" * 30) / "config.yaml").write_text("")
    assert run("report", [str(folder), "-o", str(tmp_path / "report.html"), "--no-analyse"]) == 0
    page = chromium.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto((tmp_path / "report.html").as_uri())
    assert page.get_by_text(name).count() >= 4  # the key of the curves, and a heading a run
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()
