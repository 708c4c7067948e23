"""Pictures of episodes and of confusions, pixel by pixel."""

import numpy as np
import torch

from fewshot_runner.data.batch import Episode
from fewshot_runner.engine.pictures import (
    FRAME,
    GAP,
    NEUTRAL,
    RIGHT,
    WRONG,
    confusion_picture,
    episode_picture,
    unit_range,
)

SIDE = 4
TILE = SIDE + 2 * FRAME


def episode(support_labels: list[int], query_labels: list[int], n_way: int, *, channels: int = 1) -> Episode:
    """Image number i, support first, is evenly i, so that a tile tells which image it shows."""
    count = len(support_labels) + len(query_labels)
    images = torch.arange(count).float().view(1, count, 1, 1, 1).expand(1, count, channels, SIDE, SIDE)
    return Episode(
        images[:, : len(support_labels)], torch.tensor([support_labels]),
        images[:, len(support_labels) :], torch.tensor([query_labels]), n_way,
    )  # fmt: skip


def tile(picture: np.ndarray, row: int, column: int, *, n_shots: int) -> tuple[tuple, int]:
    """The colour of the frame, and the shade inside."""
    left = column * TILE + GAP * (column >= n_shots)
    cut = picture[row * TILE : (row + 1) * TILE, left : left + TILE]
    inside = cut[FRAME:-FRAME, FRAME:-FRAME]
    assert (inside == inside[0, 0, 0]).all()
    frame = cut.copy()
    frame[FRAME:-FRAME, FRAME:-FRAME] = cut[0, 0]
    assert (frame == cut[0, 0]).all()
    return tuple(cut[0, 0].tolist()), int(inside[0, 0, 0])


def test_the_darkest_of_all_images_is_0_and_the_brightest_1() -> None:
    images = torch.tensor([[-1.0, 0.0], [1.0, 3.0]]).view(2, 1, 1, 2)
    assert unit_range(images).flatten().tolist() == [0, 0.25, 0.5, 1]
    assert unit_range(torch.full((2, 1, 2, 2), 7.0)).eq(0).all()


def test_a_row_a_class_with_support_left_and_queries_right() -> None:
    """Images 0 to 7 over the range of shades: number i has the shade i 255 / 7."""
    task = episode([1, 0, 1], [0, 1, 1, 0, 1], n_way=2)
    picture = episode_picture(task, torch.tensor([[0, 0, 1, 1, 1]]))
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * TILE, 5 * TILE + GAP, 3)
    shades = [int(i * 255 / 7) for i in range(8)]
    assert tile(picture, 0, 0, n_shots=2) == (NEUTRAL, shades[1])
    assert tile(picture, 1, 0, n_shots=2) == (NEUTRAL, shades[0])
    assert tile(picture, 1, 1, n_shots=2) == (NEUTRAL, shades[2])
    # queries are images 3 to 7: of class 0 numbers 3 (right) and 6 (wrong), of class 1 numbers 4 (wrong), 5, 7
    assert tile(picture, 0, 2, n_shots=2) == (RIGHT, shades[3])
    assert tile(picture, 0, 3, n_shots=2) == (WRONG, shades[6])
    assert tile(picture, 1, 2, n_shots=2) == (WRONG, shades[4])
    assert tile(picture, 1, 3, n_shots=2) == (RIGHT, shades[5])
    assert tile(picture, 1, 4, n_shots=2) == (RIGHT, shades[7])
    # where a class has fewer images than another, paper
    assert (picture[:TILE, TILE : 2 * TILE + GAP] == 255).all()
    assert (picture[:TILE, -TILE:] == 255).all()


def test_without_predictions_no_frame_judges() -> None:
    picture = episode_picture(episode([0, 1], [1, 0], n_way=2))
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert not colours & {RIGHT, WRONG}


def test_at_most_ten_classes_five_shots_and_eight_queries_are_shown() -> None:
    task = episode(list(range(12)) * 6, list(range(12)) * 9, n_way=12)
    assert episode_picture(task).shape == (10 * TILE, 13 * TILE + GAP, 3)


def test_colour_images_and_a_blank_episode() -> None:
    coloured = episode([0, 1], [0, 1], n_way=2, channels=3)
    assert episode_picture(coloured).shape == (2 * TILE, 2 * TILE + GAP, 3)
    blank = Episode(torch.zeros(1, 2, 1, SIDE, SIDE), torch.tensor([[0, 1]]), torch.zeros(1, 2, 1, SIDE, SIDE),
                    torch.tensor([[0, 1]]), 2)  # fmt: skip
    assert episode_picture(blank).max() == 255


def test_the_shade_of_a_confusion_is_its_share_of_the_row() -> None:
    """Four pixels a cell without names: white for none, green for right ones and red for mistakes."""
    counts = np.array([[3, 1, 0], [0, 5, 0], [0, 0, 0]])
    picture = confusion_picture(counts, [])
    assert picture.shape == (12, 12, 3)
    for row in range(3):
        for column in range(3):
            share = counts[row, column] / max(1, counts[row].sum())
            hue = RIGHT if row == column else WRONG
            expected = [int(255 - share * (255 - value)) for value in hue]
            cell = picture[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert (cell == expected).all(), (row, column)


def test_rows_are_the_classes_of_the_images_and_names_have_room() -> None:
    counts = np.array([[0, 7], [0, 2]])
    short, long = (confusion_picture(counts, [name, "b"], cell=40) for name in ("a", "a rather long name of a class"))
    assert short.shape[0] == short.shape[1] < long.shape[0] == long.shape[1]
    margin = len(short) - 80
    corners = [
        [short[margin + 40 * row + 2, margin + 40 * column + 2].tolist() for column in range(2)] for row in range(2)
    ]
    assert corners == [[[255] * 3, list(WRONG)], [[255] * 3, list(RIGHT)]]
    assert (short[margin + 40 : margin + 80, margin : margin + 40] == 255).all()  # a count of nothing is not written
    assert (short[margin : margin + 40, margin + 40 :] != WRONG).any()  # 7 is


def test_many_classes_are_shades_alone() -> None:
    assert confusion_picture(np.eye(41, dtype=int), [f"class{c}" for c in range(41)]).shape == (164, 164, 3)
