"""The table of answers: bytes written by hand, and what a reader of CSV makes of them."""

import csv
import io

import pytest

from fewshot_runner.engine.submission import submission

ANSWERS = {"test/a.jpg": ["w_1", "new_whale"], "train/b.jpg": ["w_2", "w_1"]}


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_the_form_is_kaggles_to_the_byte() -> None:
    assert submission(ANSWERS) == "Image,Id\na.jpg,w_1 new_whale\nb.jpg,w_2 w_1\n"


def test_pictures_of_one_file_name_are_called_by_their_whole_names() -> None:
    text = submission(ANSWERS | {"train/w_2/a.jpg": ["w_2", "w_1"]})
    assert [row[0] for row in read(text)] == ["Image", "test/a.jpg", "train/b.jpg", "train/w_2/a.jpg"]


def test_names_with_commas_and_quotes_come_back_whole() -> None:
    answers = {'x/one, "two".jpg': ["Anna,B", '"C"'], "x/b.jpg": ["D", "Anna,B"]}
    assert read(submission(answers)) == [["Image", "Id"], ['one, "two".jpg', 'Anna,B "C"'], ["b.jpg", "D Anna,B"]]


@pytest.mark.parametrize("name", ["minke whale", "tab\there", "line\nbreak"])
def test_an_id_with_white_space_has_a_column_of_its_own(name: str) -> None:
    answers = {"x/a.jpg": ["w_1", name], "x/b.jpg": [name, "w_1"]}
    expected = [["Image", "Id 1", "Id 2"], ["a.jpg", "w_1", name], ["b.jpg", name, "w_1"]]
    assert list(csv.reader(io.StringIO(submission(answers), newline=""))) == expected
