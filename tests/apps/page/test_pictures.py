from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from apps.page.style import INK, on_any_ground, png
from apps.plot import draw
from tests.apps.page.colours import DARK, LIGHT, contrast, rgb

for package in ("matplotlib", "PIL"):
    pytest.importorskip(package, reason="extra eval: pictures are drawn by matplotlib")


@pytest.fixture(scope="module")
def figure() -> Any:
    sound_N = 0.3 * torch.sin(440 * 2 * torch.pi * torch.arange(8_000) / 8_000)
    return on_any_ground(draw(sound_N, 0.5 * sound_N, 8_000, 0.0, [(0.2, 0.5)], ("a.wav", "b.wav")))


def letters(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    figure.canvas.draw()
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def test_all_that_is_written_is_in_ink(figure: Any) -> None:
    from matplotlib.colors import to_hex

    written = letters(figure)
    assert {"before: a.wav", "after: b.wav", "seconds", "loudness (dB)", "dB", "before"} <= {
        text.get_text() for text in written
    }
    assert {to_hex(text.get_color()) for text in written} == {INK}


def test_ink_can_be_read_on_both_grounds() -> None:
    on_white, on_dark = contrast(INK, LIGHT), contrast(INK, DARK)
    assert min(on_white, on_dark) >= 4.3
    # of any colour between the two, the product is that of the grounds: none is better on both than the root of it
    assert on_white * on_dark == pytest.approx(contrast(LIGHT, DARK))
    assert min(on_white, on_dark) > contrast(LIGHT, DARK) ** 0.5 - 0.05


def test_a_picture_is_a_png_without_a_ground(figure: Any) -> None:
    from PIL import Image

    data = png(figure)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = np.asarray(Image.open(BytesIO(data)).convert("RGBA"))
    width, height = figure.get_size_inches() * figure.dpi
    assert pixels.shape == (round(height), round(width), 4)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert not border[:, 3].any()
    # between the curves too: only what is drawn is there
    assert (pixels[..., 3] == 0).mean() > 0.3
    assert (np.abs(pixels[..., :3].astype(int) - rgb(INK)).sum(-1)[pixels[..., 3] == 255] == 0).any()
