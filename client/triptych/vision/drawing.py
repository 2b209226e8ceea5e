"""Draw boxes and labels on a picture. Pure functions decide where they go, and Pillow draws them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_GOLDEN_RATIO = 0.618033988749895
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def class_colour(label: int) -> Colour:
    """Return the RGB colour of a class, the same in every picture and far from those of the next classes.

    >>> class_colour(0)
    (242, 48, 48)
    """
    # Steps of the golden ratio around the colour wheel spread evenly, however many there are.
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1.0, 0.8, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever reads better on `background` (relative luminance, ITU-R BT.709)."""
    red, green, blue = background
    return _BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 128 else _WHITE


def line_width(resolution_wh: tuple[int, int]) -> int:
    """Return the width of a box's line in pixels: 2 at 640 x 480, 4 at 1080p."""
    return max(1, round(min(resolution_wh) / 270))


def font_size(resolution_wh: tuple[int, int]) -> int:
    """Return the height of a label's font in pixels: 13 at 640 x 480, 30 at 1080p, and at least 10."""
    return max(10, round(min(resolution_wh) / 36))


def place_label(
    box_xyxy: Sequence[float], label_wh: tuple[int, int], resolution_wh: tuple[int, int]
) -> tuple[int, int]:
    """Return the top left corner of a box's label: on the box's top edge, or inside the box if there is no room above.

    The label stays inside the image. One that is larger than the image begins at the image's edge.

    >>> place_label((10, 50, 90, 90), (40, 12), (100, 100))
    (10, 38)
    >>> place_label((80, 5, 99, 90), (40, 12), (100, 100))
    (60, 5)
    """
    above = round(box_xyxy[1]) - label_wh[1]
    left = round(box_xyxy[0])
    top = above if above >= 0 else round(box_xyxy[1])
    return (
        max(0, min(left, resolution_wh[0] - label_wh[0])),
        max(0, min(top, resolution_wh[1] - label_wh[1])),
    )


def draw_boxes(
    image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32], labels: NDArray[np.int32], texts: Sequence[str]
) -> NDArray[np.uint8]:
    """Return a copy of `image_rgb` (uint8 [H, W, 3]) with a box and a text for each row; earlier rows are on top.

    Pillow's own font has Latin letters only. Others show as empty boxes.
    """
    picture = Image.fromarray(image_rgb)
    if np.shares_memory(np.asarray(picture), image_rgb):
        picture = picture.copy()
    resolution_wh = picture.size
    width = line_width(resolution_wh)
    font = ImageFont.load_default(font_size(resolution_wh))
    padding = width + 1
    draw = ImageDraw.Draw(picture)
    rows = list(zip(boxes_xyxy.tolist(), map(class_colour, labels.tolist()), texts, strict=True))[::-1]
    for box, colour, _ in rows:
        draw.rectangle(_inside(box, resolution_wh), outline=colour, width=width)
    # All labels after all boxes, so that no line runs through a text.
    for box, colour, text in rows:
        x1, y1, x2, y2 = draw.textbbox((0, 0), text, font=font)
        label_wh = (round(x2 - x1) + 2 * padding, round(y2 - y1) + 2 * padding)
        left, top = place_label(box, label_wh, resolution_wh)
        draw.rectangle((left, top, left + label_wh[0] - 1, top + label_wh[1] - 1), fill=colour)
        draw.text((left + padding - x1, top + padding - y1), text, font=font, fill=text_colour(colour))
    return np.asarray(picture).copy()


def _inside(box_xyxy: Sequence[float], resolution_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box's corners as pixels inside the image. A box that fills the image ends at its last pixel."""
    last_x, last_y = resolution_wh[0] - 1, resolution_wh[1] - 1
    x1, y1, x2, y2 = (round(value) for value in box_xyxy)
    left, top = min(max(x1, 0), last_x), min(max(y1, 0), last_y)
    return left, top, max(left, min(x2, last_x)), max(top, min(y2, last_y))
