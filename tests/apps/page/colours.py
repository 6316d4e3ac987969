"""Colours in numbers: contrast as WCAG 2 defines it."""

from __future__ import annotations

import numpy as np

LIGHT, DARK = "#ffffff", "#0a0f1e"
"""The page's grounds: white, and the darkest of gradio's slate (see test_style)."""


def rgb(colour: str) -> np.ndarray:
    """[3], 0 to 255, of #rrggbb."""
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])


def mixed(colour: str, share: float, ground: str) -> str:
    """`share` of a colour laid on a ground."""
    return "#" + "".join(f"{round(value):02x}" for value in share * rgb(colour) + (1 - share) * rgb(ground))


def luminance(colour: str) -> float:
    c = rgb(colour) / 255
    return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """1 to 21; text needs 4.5, large letters and lines 3."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)
