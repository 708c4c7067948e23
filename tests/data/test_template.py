"""Patterns of image paths: what they make of a row, and which are refused."""

import pytest

from fewshot_runner.data.template import PathTemplate
from fewshot_runner.errors import UserError

ROW = {"image": "7.jpg", "label": "a b", "part": "valid", "group": "Greek"}


def template(text: str) -> PathTemplate:
    return PathTemplate(
        text, key="dataset.image_path", fields=("image", "label", "part"), required="image",
        unsaid={"group": "there is no dataset.group_column"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{image}", "7.jpg"),
        ("{part}/{image}", "valid/7.jpg"),
        ("{label}/{image}", "a b/7.jpg"),
        ("./x/../{part}//{image}.png", "valid/7.jpg.png"),
        ("{{{part}}}/{label}-{image}", "{valid}/a b-7.jpg"),
        ("/data/{image}", "/data/7.jpg"),
    ],
)
def test_fields_are_filled_in_and_paths_normalised(text, path):
    assert template(text).fill(ROW) == path


def test_what_is_filled_in_is_no_pattern():
    assert template("{part}/{image}").fill({"image": "{label}.jpg", "part": "{0}"}) == "{0}/{label}.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{part}/{iamge}", r"\{iamge\} is no field \(did you mean \{image\}\?\)"),
        ("{image}/{zzz}", r"\{zzz\} is no field; write"),
        ("{}", r"\{\} is no field; write"),
        ("{part}/x.jpg", r"without \{image\} all images would be one file"),
        ("{group}/{image}", r"\{group\} is not known, as there is no dataset\.group_column"),
        ("{image", "its braces do not match"),
        ("image}", "its braces do not match"),
        ("{image.__class__}", "is no field"),
        ("{image:>99}", "takes nothing after its name"),
        ("{image!r}", "takes nothing after its name"),
        (None, "this is no text"),
    ],
)
def test_patterns_that_are_refused(text, message):
    with pytest.raises(UserError, match=message) as caught:
        template(text)
    assert str(caught.value).startswith(f'dataset.image_path="{text}": ')
    assert str(caught.value).endswith('write a path with {image}, {label}, {part} in it, as "{image}"')
