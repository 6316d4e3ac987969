"""The page: a head and three tabs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from apps.page.edit_tab import edit_tab
from apps.page.features_tab import features_tab
from apps.page.settings import Settings
from apps.page.shared import Shared
from apps.page.style import CSS, theme
from apps.page.transcribe_tab import transcribe_tab

HEAD = """
<div class="page-head"><h1>AudioSteer</h1>
<p>Change a sound through the features of a model, and see what changed.</p></div>
"""


def page(settings: Settings) -> gr.Blocks:
    """The page for `apps.page.server`; `settings.folder` holds its files."""
    shared = Shared.of(settings)
    blocks: Any = gr.Blocks(title="AudioSteer", analytics_enabled=False, fill_width=True)
    with blocks:
        gr.HTML(HEAD)
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab("Edit sound", id="edit"):
                edit = edit_tab(shared)
            with gr.Tab("Transcribe", id="transcribe"):
                transcribe = transcribe_tab(shared)
            with gr.Tab("Features", id="features"):
                features_tab(shared, tabs, edit, transcribe)
        blocks.unload(shared.forget)
    blocks.queue(max_size=None, default_concurrency_limit=4, api_open=False)
    blocks.theme, blocks.css, blocks.js, blocks.head = theme(), CSS, None, None
    return blocks
