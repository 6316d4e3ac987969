"""The tab "Features": an atlas as a searchable table, one feature to see and hear, and to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from shutil import copy
from typing import Any

import gradio as gr

from apps.page import firing
from apps.page.edit_tab import EditTab
from apps.page.feature_run import ORDERS, Excerpt, about, inside, place_text, table, top_clips
from apps.page.lines import with_edit
from apps.page.settings import checked
from apps.page.shared import BAR, Shared
from apps.page.style import note, picture_html, png
from apps.page.transcribe_tab import NO_RECIPE, TranscribeTab
from evaluation.atlas import Atlas, AtlasError
from hooks import AudioFileError, Codec, Transcriber, read_clip
from steer import starter
from steer.recipe import DEFAULT_MODEL, Recipe

SHOWN = 50
"""Rows of the table."""
COLUMN_WIDTHS: list[str | int] = ["85px", "95px", "90px", "80px", "280px", "280px"]
HEARD = 5
"""So many top clips can be played."""


def atlases(shared: Shared) -> dict[str, Atlas]:
    """The atlases that are offered, by the names of their SAEs; first the one of the settings, then the codec's."""
    given = [Atlas.load(shared.settings.atlas)] if shared.settings.atlas else []
    models = dict.fromkeys([DEFAULT_MODEL, *starter.models(), *starter.public_models()])
    names = [name for model in models for name in starter.saes(model)]
    return {atlas.sae or atlas.site: atlas for atlas in (*given, *map(Atlas.load, names))}


def features_tab(shared: Shared, tabs: gr.Tabs, edit: EditTab, transcribe: TranscribeTab) -> None:
    """Build the tab within `gr.Blocks`; a feature is tried in one of the other tabs."""
    known = atlases(shared)
    first = next(iter(known))
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("## Which feature?")
            sae = gr.Dropdown(list(known), value=first, label="Sparse autoencoder", elem_id="features-sae")
            with gr.Row():
                query = gr.Textbox(
                    label="Search",
                    info="A label such as dog_bark, a part of a clip's name, or a number",
                    value="",
                    elem_id="features-query",
                )
                order = gr.Radio(list(ORDERS), value=next(iter(ORDERS)), label="The highest first")
            listed = table(known[first], top=SHOWN)
            rows = gr.Dataframe(
                **frame_of(listed),
                label="Features",
                interactive=False,
                max_height=420,
                wrap=True,
                column_widths=COLUMN_WIDTHS,
                elem_id="features-table",
            )
            found = gr.HTML(note("note", found_text(listed)), elem_id="features-found")
            first_sample = next(iter(shared.samples.values()))
            sound = shared.sound("The sound in which it is shown and tried", "features-sound", first_sample)
            strongest = gr.Button("Which features fire most in this sound?", elem_id="features-strongest")
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("## What does it do?")
            with gr.Row():
                feature = gr.Number(0, label="Feature", precision=0, minimum=0, elem_id="feature")
                show = gr.Button("Show it", variant="primary", elem_id="feature-show")
            meaning = gr.HTML(elem_id="feature-about", elem_classes="status")
            with gr.Row():
                off = gr.Button("Try it: turn it off", elem_id="try-off")
                double = gr.Button("Try it: twice as much", elem_id="try-double")
            clips = gr.HTML(elem_id="feature-clips")
            take = gr.Button("Show and try it in the first of these clips", visible=False, elem_id="feature-take")
            picture = gr.HTML(elem_id="feature-picture")

    def search(name: str, text: str, order: str) -> tuple[Any, str]:
        listed = table(known[name], text, order, SHOWN)
        return gr.Dataframe(**frame_of(listed)), note("note", found_text(listed))

    def show_feature(
        name: str,
        number: float,
        path: str | None,
        request: gr.Request,
        progress: gr.Progress = BAR,
    ) -> dict[Any, Any]:
        atlas, number = known[name], int(number or 0)
        try:
            told = about(atlas, number)
            with shared.run(request, progress) as (folder, report):
                heard = top_clips(atlas, number, shared.settings.audio, folder, HEARD)
                image = ""
                if path is not None:
                    checked(path, shared.settings.limits)
                    report("opening the model", 0.0)
                    steered = shared.opened(recipe_of(atlas))
                    report("looking where it fires", 0.5)
                    fires = firing.fires(steered, atlas.site, number, path)
                    image = picture_html(png(firing.draw(read_clip(path), fires)), fires.words())
        except Exception as error:
            return {meaning: shared.told(error)}
        there = any(clip.path for clip in heard[:1])
        return {
            **{meaning: note("note", told), clips: clips_html(heard), picture: image},
            take: gr.Button(visible=there),
        }

    def strongest_features(
        name: str,
        path: str | None,
        request: gr.Request,
        progress: gr.Progress = BAR,
    ) -> dict[Any, Any]:
        atlas = known[name]
        try:
            if path is None:
                raise AudioFileError("First choose a sound.")
            checked(path, shared.settings.limits)
            with shared.run(request, progress) as (_, report):
                report("opening the model", 0.0)
                steered = shared.opened(recipe_of(atlas))
                report("looking which fire", 0.5)
                listed = firing.strongest_in(steered, atlas.site, path, atlas, top=20)
        except Exception as error:
            return {found: shared.told(error)}
        return {rows: gr.Dataframe(**frame_of(listed)), found: note("note", f"{len(listed)} features fire most here.")}

    def try_it(
        how: str, name: str, number: float, path: str | None, edit_lines: str, transcribe_lines: str
    ) -> dict[Any, Any]:
        atlas = known[name]
        try:
            about(atlas, int(number or 0))  # is there such a feature?
            model = shared.opened(recipe_of(atlas)).model
            line = how.format(int(number or 0))
            carried = {} if path is None else {"sound": path}
            if isinstance(model, Codec):
                return {
                    tabs: gr.Tabs(selected="edit"),
                    edit.lines: with_edit(edit_lines, line),
                    **sounds(edit, carried),
                }
            if isinstance(model, Transcriber):
                lines = with_edit(transcribe_lines, f"{atlas.site}: {line}")
                return {
                    tabs: gr.Tabs(selected="transcribe"),
                    transcribe.lines: lines,
                    transcribe.recipe: NO_RECIPE,
                    **sounds(transcribe, carried),
                }
            raise AtlasError(f"{atlas.model} gives neither sound nor words: its features can be looked at only")
        except Exception as error:
            return {meaning: shared.told(error)}

    def take_top(
        name: str,
        number: float,
        request: gr.Request,
        progress: gr.Progress = BAR,
    ) -> dict[Any, Any]:
        """The first of its top clips becomes the sound."""
        try:
            clip = inside(shared.settings.audio, known[name].feature(int(number or 0)).peaks[0].clip)
            with shared.run(request, progress) as (folder, _):
                return {sound: str(copy(clip, folder / clip.name))}
        except Exception as error:
            return {meaning: shared.told(error)}

    def pick(event: gr.SelectData) -> Any:
        """The feature of the row that was chosen."""
        return event.row_value[0]

    searching: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    computing: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
    for change in (sae.change, query.change, order.change):
        change(search, [sae, query, order], [rows, found], trigger_mode="always_last", **searching)
    shown = [meaning, clips, picture, take]
    rows.select(pick, None, feature, **searching).then(
        show_feature, [sae, feature, sound], shown, show_progress_on=[meaning], **computing
    )
    for shows in (show.click, feature.submit):
        shows(show_feature, [sae, feature, sound], shown, show_progress_on=[meaning], **computing)
    take.click(take_top, [sae, feature], [sound, meaning], show_progress="hidden", **computing).then(
        show_feature, [sae, feature, sound], shown, show_progress_on=[meaning], **computing
    )
    strongest.click(strongest_features, [sae, sound], [rows, found], show_progress_on=[found], **computing)
    tried = [
        tabs,
        edit.sound,
        edit.lines,
        transcribe.sound,
        transcribe.lines,
        transcribe.recipe,
        meaning,
    ]
    for button, how in ((off, "ablate {}"), (double, "scale {} = 2")):
        button.click(
            partial(try_it, how),
            [sae, feature, sound, edit.lines, transcribe.lines],
            tried,
            **searching,
        )


def sounds(tab: EditTab | TranscribeTab, carried: Mapping[str, str]) -> dict[Any, Any]:
    return {tab.sound: carried["sound"]} if carried else {}


def recipe_of(atlas: Atlas) -> Recipe:
    """The model and the SAE that the atlas is of; a starter with all its SAEs, as the other tabs open it."""
    if atlas.sae in starter.saes(atlas.model):
        return Recipe.build({"model": atlas.model})
    return Recipe.build({"model": atlas.model, "saes": {atlas.site: atlas.sae}})


def frame_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as a `gr.Dataframe` takes them."""
    heads = list(rows[0]) if rows else ["feature"]
    cells = [
        [cell.replace("\n", "; ") if isinstance(cell := row[head], str) else cell for head in heads] for row in rows
    ]
    return {"headers": heads, "value": cells}


def found_text(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "No feature was found: none tells such a label clearly, and no such clip is among the peaks."
    return (
        f"{len(rows)} features{' (there may be more)' if len(rows) == SHOWN else ''}. Choose one, or give its number."
    )


def clips_html(clips: Sequence[Excerpt]) -> str:
    """The top clips, with a player where the recording is here."""
    if not clips:
        return ""
    items = []
    for clip in clips:
        name = escape(place_text(clip.clip, clip.at_s))
        heard = player(clip.path, name) if clip.path else f"<em>{escape(clip.missing)}</em>"
        items.append(f"<li>{name} ({clip.value:.3g}) {heard}</li>")
    return f"<h3>Where it fires most</h3><ol>{''.join(items)}</ol>"


def player(path: Path, name: str) -> str:
    return f'<audio controls preload="none" aria-label="{name}" src="/gradio_api/file={escape(str(path))}"></audio>'
