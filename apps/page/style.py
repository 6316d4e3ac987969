"""How the page looks: system fonts only, so that nothing is fetched; light and dark as the browser asks for."""

from __future__ import annotations

from html import escape
from io import BytesIO
from typing import Any

from apps.page import words

CSS = (
    """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.page-head h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
.page-head p { color: var(--body-text-color-subdued); margin: 0; }
.status { min-height: 1.5rem; }
.status div[role] { border-left: 4px solid var(--body-text-color-subdued); padding: .4rem .8rem; }
.status div.wrong { border-color: #d1495b; background: color-mix(in srgb, #d1495b 12%, transparent); }
.status div.done { border-color: #2a9d8f; background: color-mix(in srgb, #2a9d8f 12%, transparent); }
table.plain { border-collapse: collapse; border: 0 !important; width: 100%; }
table.plain caption { text-align: left; font-weight: 600; padding: .2rem 0; }
table.plain :is(th, td) { text-align: left; padding: .3rem .6rem; border: 0 !important; }
table.plain tr { border-bottom: 1px solid var(--border-color-primary) !important; }
@media (max-width: 600px) { table.plain :is(th, td) { padding: .3rem .15rem; overflow-wrap: anywhere; } }
#features-table { max-width: calc(100vw - 6rem); }
.scroll { overflow-x: auto; max-width: calc(100vw - 6rem); }
.scroll img { width: 100%; min-width: 560px; height: auto; }
.transcript h3 { font-size: 1rem; margin: .6rem 0 .1rem; }
.transcript p { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
.transcript ins { background: color-mix(in srgb, #2a9d8f 25%, transparent); }
.transcript del { background: color-mix(in srgb, #d1495b 22%, transparent); }
#feature-clips li { margin: .3rem 0; overflow-wrap: anywhere; }
#feature-clips audio { display: block; height: 2.2rem; max-width: 100%; }
footer { display: none !important; }
"""
    + words.CSS
)


def theme() -> Any:
    """Gradio's base theme in our colours, with fonts that every machine has."""
    import gradio as gr

    base = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # gradio's own have a contrast of 2.5 : 1
    return base.set(
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_border_color="*primary_700",
        button_primary_border_color_dark="*primary_700",
    )


def note(kind: str, text: str) -> str:
    """A line of the status: `done`, `note`, or `wrong`, which screen readers say at once."""
    role = "alert" if kind == "wrong" else "status"
    return f'<div class="{kind}" role="{role}">{escape(text)}</div>'


def table_html(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<table class="plain"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )


def list_html(caption: str, lines: list[str]) -> str:
    """Lines under a caption; nothing where there are none."""
    if not lines:
        return ""
    return f"<h4>{escape(caption)}</h4><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def picture_html(png: bytes, words: str) -> str:
    """A picture, with its content in words for those who do not see it."""
    from base64 import b64encode

    image = f'<img alt="{escape(words)}" src="data:image/png;base64,{b64encode(png).decode()}">'
    # on narrow screens it is moved sideways, also by keys
    return f'<div class="scroll" tabindex="0">{image}</div>'


# --- pictures, readable on the light and on the dark ground ---

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
