"""Pictures of episodes.

Shapes: S support images, Q queries, C channels, H and W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fewshot_runner.data.batch import Episode

RIGHT, WRONG, NEUTRAL = (40, 160, 80), (205, 50, 45), (255, 255, 255)
FRAME, GAP = 2, 8
MOST_ROWS, MOST_SHOTS, MOST_QUERIES = 10, 5, 8
MOST_IMAGES = 500  # of an episode that is drawn as an example


def unit_range(images: Tensor) -> Tensor:
    """Images (B, C, H, W) of any range, on the CPU with the darkest value of them all at 0 and the brightest at 1."""
    images = images.float().cpu()
    low, high = images.min(), images.max()
    return (images - low) / (high - low).clamp(min=1e-6)


def episode_picture(episode: Episode, predictions: Tensor | None = None) -> np.ndarray:
    """(height, width, 3) uint8: a row a class, its support images on the left and its queries on the right.

    The episode holds one task of images (1, S, C, H, W). With `predictions` (1, Q), the frame of a query says
    whether it was put into its class (green) or another (red). At most 10 classes, 5 shots and 8 queries are shown.
    """
    support, query = episode.support[0], episode.query[0]
    support, query = unit_range(torch.cat([support, query])).split([len(support), len(query)])
    support_labels, query_labels = episode.support_labels[0].cpu(), episode.query_labels[0].cpu()
    right = torch.ones_like(query_labels, dtype=torch.bool)
    if predictions is not None:
        right = predictions[0].cpu() == query_labels

    def tile(image: Tensor, colour: tuple[int, int, int]) -> np.ndarray:
        """(C, H, W) to (H + 2 FRAME, W + 2 FRAME, 3) uint8."""
        pixels = (image * 255).byte().expand(3, *image.shape[1:])
        height, width = image.shape[1:]
        framed = np.empty((height + 2 * FRAME, width + 2 * FRAME, 3), dtype=np.uint8)
        framed[:] = colour
        framed[FRAME:-FRAME, FRAME:-FRAME] = pixels.permute(1, 2, 0).numpy()
        return framed

    n_shots = min(MOST_SHOTS, int(support_labels.bincount().max()))
    n_queries = min(MOST_QUERIES, int(query_labels.bincount().max()))
    height, width = support.shape[-2] + 2 * FRAME, support.shape[-1] + 2 * FRAME
    n_rows = min(MOST_ROWS, episode.n_way)
    canvas = np.full((n_rows * height, (n_shots + n_queries) * width + GAP, 3), 255, dtype=np.uint8)
    for row in range(n_rows):
        top = row * height
        for column, image in enumerate(support[support_labels == row][:n_shots]):
            canvas[top : top + height, column * width : (column + 1) * width] = tile(image, NEUTRAL)
        of_class = query_labels == row
        for column, (image, is_right) in enumerate(zip(query[of_class][:n_queries], right[of_class], strict=False)):
            left = n_shots * width + GAP + column * width
            colour = NEUTRAL if predictions is None else RIGHT if is_right else WRONG
            canvas[top : top + height, left : left + width] = tile(image, colour)
    return canvas


def confusion_picture(confusion: np.ndarray, classes: Sequence[str], *, cell: int = 44) -> np.ndarray:
    """(height, width, 3) uint8: counts (N, N) of answers (columns) to images of each class (rows).

    The shade is the share of the row; what lies off the diagonal is a mistake, in red. Without names, or above 40
    classes, only the shades are drawn.
    """
    n_classes = len(confusion)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)  # (N, N)
    hue = np.where(np.eye(n_classes, dtype=bool)[..., None], RIGHT, WRONG)  # (N, N, 3)
    shades = (255 - share[..., None] * (255 - hue)).astype(np.uint8)
    if n_classes > 40 or not classes:
        return shades.repeat(4, axis=0).repeat(4, axis=1)
    font = ImageFont.load_default(13)
    margin = 12 + max(int(font.getlength(name)) for name in classes)
    canvas = Image.new("RGB", (margin + n_classes * cell, margin + n_classes * cell), "white")
    canvas.paste(Image.fromarray(shades.repeat(cell, axis=0).repeat(cell, axis=1)), (margin, margin))
    draw = ImageDraw.Draw(canvas)
    for k, name in enumerate(classes):
        middle = margin + k * cell + cell // 2
        draw.text((margin - 6, middle), name, fill="black", font=font, anchor="rm")
        upright = Image.new("RGB", (margin - 6, 18), "white")
        ImageDraw.Draw(upright).text((2, 9), name, fill="black", font=font, anchor="lm")
        canvas.paste(upright.rotate(90, expand=True), (middle - 9, 0))
    for row, column in np.argwhere(confusion):
        centre = (margin + column * cell + cell // 2, margin + row * cell + cell // 2)
        draw.text(centre, str(confusion[row, column]), fill="black", font=font, anchor="mm")
    return np.array(canvas)
