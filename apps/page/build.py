"""The page: a head and three tabs."""

from __future__ import annotations

import gradio as gr

from apps.page.edit_tab import edit_tab
from apps.page.features_tab import features_tab
from apps.page.settings import Settings
from apps.page.shared import Shared
from apps.page.transcribe_tab import transcribe_tab

HEAD = """
<div class="page-head"><h1>AudioSteer</h1>
<p>Change a sound through the features of a model, and see what changed.</p></div>
"""


def page(settings: Settings) -> gr.Blocks:
    """The page for `apps.page.server`; `settings.folder` holds its files."""
    shared = Shared.of(settings)
    with gr.Blocks(title="AudioSteer", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(HEAD)
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab("Edit sound", id="edit"):
                edit = edit_tab(shared)
            with gr.Tab("Transcribe", id="transcribe"):
                transcribe = transcribe_tab(shared)
            with gr.Tab("Features", id="features"):
                features_tab(shared, tabs, edit, transcribe)
        blocks.unload(shared.forget)
    return blocks.queue(max_size=None, default_concurrency_limit=4, api_open=False)
