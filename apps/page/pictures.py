"""Pictures of the page as PNG, readable on its light and on its dark ground."""

from __future__ import annotations

from io import BytesIO
from typing import Any

INK = "#717985"
"""Lines and letters: 4.3 : 1 on white and on the page's near-black; no grey has more than 4.38 on both."""


def on_any_ground(figure: Any) -> Any:
    """A matplotlib figure without a ground of its own, and all that is written in it in `INK`."""
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(colors=INK)
        legend = axes.get_legend()
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())):
            text.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
    return figure


def png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
