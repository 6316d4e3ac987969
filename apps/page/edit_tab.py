"""The tab "Edit sound": sliders and lines in, three players, what was measured and a picture out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from apps.page.choice import recipe_from, span_from
from apps.page.edit_run import MISSING, Edited, edit_for_page, kept_rows, level_matched, measured_rows
from apps.page.lines import with_edit
from apps.page.settings import checked
from apps.page.shared import BAR, Shared
from apps.page.style import list_html, note, on_any_ground, picture_html, png, table_html
from apps.page.voice_controls import voice_controls, voice_values
from apps.plot import drawn
from hooks import AudioFileError
from steer.editing.editor import Editor, Outcome
from steer.errors import RecipeError
from steer.recipe import DEFAULT_MODEL

INTRO = """
A **codec** writes a sound down as a short list of numbers many times a second, and reads it back. A **sparse
autoencoder** finds in these numbers **features**, of which only some are on at a time. Here features are turned up,
down or off while the codec runs, and what that changes is carried over to your sound; it changes through nothing else.
*Round trip* is what the codec gives back without an edit. Goals are searched, and measured, against your sound itself;
the last column compares the codec's edited output with its plain one.
"""
HINT = "One edit a line, such as: ablate 3, 17 / clamp 5 = 2.0 / scale 4 = 1.5 during 0.5-1.5"
RESIDUAL = {
    "automatic": None,
    "ratio: as a gain on the sound": "ratio",
    "keep: the codec's change is added": "keep",
    "drop: the codec's output alone": "drop",
}
HEADS = ["", "asked", "measured against your sound", "against the round trip"]


@dataclass(frozen=True)
class EditTab:
    """The parts that other tabs reach."""

    sound: gr.Audio
    lines: gr.Textbox


def edit_tab(shared: Shared) -> EditTab:
    """Build the tab within `gr.Blocks`."""
    state, fresh = gr.State(None), gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown("## Your sound")
            sound = shared.sound("Sound: a file, a recording, or one of the samples", "edit-sound")
            model = shared.model(DEFAULT_MODEL, "encodec:24khz=my/sae", "edit-model")
            gr.Markdown("## What shall change")
            loudness = gr.Slider(-12, 12, 0, step=0.5, label="Loudness (dB)", elem_id="loudness")
            pitch = gr.Slider(-6, 6, 0, step=0.5, label="Pitch (semitones)", elem_id="pitch")
            brightness = gr.Slider(-50, 50, 0, step=5, label="Brightness (%)", elem_id="brightness")
            voice = voice_controls()
            with gr.Row():
                start = gr.Number(0, label="Only from (s)", minimum=0, elem_id="start")
                end = gr.Number(0, label="to (s; 0: the end)", minimum=0, elem_id="end")
            lines = gr.Textbox(label="Feature edits", info=HINT, lines=3, max_lines=12, value="", elem_id="edit-lines")
            with gr.Row():
                kind = gr.Dropdown(["ablate", "clamp", "scale"], value="ablate", label="Edit", min_width=120)
                feature = gr.Number(0, label="Feature", precision=0, minimum=0, min_width=90)
                value = gr.Number(0, label="Value", min_width=90)
                add = gr.Button("Add this line", size="sm", min_width=100)
            residual = gr.Dropdown(
                list(RESIDUAL),
                value=next(iter(RESIDUAL)),
                label="How the change reaches the sound",
                info="Automatic: ratio for sliders; for features alone keep, or ratio where the codec loses the phase.",
                elem_id="edit-residual",
            )
            limit = gr.Checkbox(
                True,
                label="Limit peaks",
                info="In files that cannot hold more than full scale; without it such samples are clipped.",
                elem_id="edit-limit",
            )
            with gr.Row():
                run = gr.Button("Edit the sound", variant="primary", elem_id="edit-run")
                stop = gr.Button("Stop", elem_id="edit-stop")
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("## What became of it")
            status = gr.HTML(note("note", "Nothing was edited yet."), elem_id="edit-status", elem_classes="status")
            measured = gr.HTML(elem_id="edit-measured")
            kept = gr.HTML(elem_id="edit-kept")
            with gr.Row():
                players = [
                    gr.Audio(
                        label=label, interactive=False, buttons=["download"], elem_id=f"player-{name}", min_width=160
                    )
                    for name, label in (("before", "Before"), ("round-trip", "Round trip"), ("after", "After"))
                ]
            level = gr.Checkbox(label="Play all three equally loud", elem_id="level")
            picture = gr.HTML(elem_id="edit-picture")
            with gr.Row():
                download = gr.DownloadButton("Download the sound", elem_id="download-sound")
                recipe = gr.DownloadButton("Download the recipe", elem_id="download-recipe")
            with gr.Accordion("The same in the shell and in Python", open=False):
                shell = gr.Code(language="shell", label="Shell", interactive=False, elem_id="edit-shell")
                code = gr.Code(language="python", label="Python", interactive=False, elem_id="edit-code")
    with gr.Accordion("What is happening here?", open=False):
        gr.Markdown(INTRO)

    def edit(
        path: str | None,
        model: str,
        loudness: float,
        pitch: float,
        brightness: float,
        start: float,
        end: float,
        lines: str,
        residual: str,
        limited: bool,
        equal: bool,
        note_name: str | None,
        key: str,
        reach: float,
        curve: str | None,
        formants: float,
        whisper: float,
        steady: bool,
        request: gr.Request,
        progress: gr.Progress = BAR,
    ) -> dict[Any, Any]:
        goals = {"loudness": loudness, "pitch": pitch, "brightness": brightness}
        try:
            if path is None:
                raise AudioFileError("First choose a sound: a file, a recording, or one of the samples.")
            spans = span_from(start, end, checked(path, shared.settings.limits).seconds)
            asked = voice_values(note_name, key, reach, curve, formants, whisper, steady)
            what = recipe_from(model, shared, goals, lines, spans, RESIDUAL[residual], limited, asked)
            if not (what.wanted or what.edits or what.voice.active):
                raise RecipeError("Nothing to change: move a slider, or write a feature edit.")
            with shared.run(request, progress) as (folder, report):
                report("opening the model", 0.0)
                editor = Editor(what, steered=shared.opened(what), pitch=False, details=True)
                edited = edit_for_page(editor, Path(path), folder, report)
                played = level_matched(edited.sounds, folder) if equal else edited.sounds
        except Exception as error:
            return {status: shared.told(error), fresh: None}
        return {
            status: note("done" if edited.outcome.met else "wrong", summary(edited.outcome)),
            **{state: edited, fresh: edited},
            measured: table_html("Asked for and measured", HEADS, measured_rows(edited.outcome)),
            kept: list_html("What else changed", kept_rows(edited.outcome)),
            **dict(zip(players, map(str, played), strict=True)),
            download: str(edited.after),
            recipe: str(edited.recipe),
            shell: shell_line(edited),
            code: edited.lines,
        }

    def show(edited: Edited | None, request: gr.Request, progress: gr.Progress = BAR) -> str:
        """The picture takes longest: it comes after the rest."""
        if edited is None:
            return ""
        try:
            with shared.run(request, progress) as (_, report):
                report("drawing", 0.0)
                return picture_html(png(picture_of(edited)), picture_words(edited))
        except Exception as error:
            return shared.told(error)

    def play(equal: bool, edited: Edited | None) -> list[Any]:
        if edited is None:
            return [gr.skip()] * len(players)
        return [str(path) for path in (level_matched(edited.sounds, edited.after.parent) if equal else edited.sounds)]

    def add_line(text: str, kind: str, feature: float, value: float) -> str:
        return with_edit(text, f"{kind} {feature:.0f}" + ("" if kind == "ablate" else f" = {value:g}"))

    inputs = [sound, model, loudness, pitch, brightness, start, end, lines, residual, limit, level, *voice]
    outputs = [state, fresh, status, measured, kept, *players, download, recipe, shell, code]
    ran = run.click(edit, inputs, outputs, show_progress_on=[status], concurrency_limit=None, api_visibility="private")
    ran.then(show, fresh, picture, show_progress_on=[picture], concurrency_limit=None, api_visibility="private")
    level.input(play, [level, state], players, show_progress="hidden", api_visibility="private")
    add.click(add_line, [lines, kind, feature, value], lines, show_progress="hidden", api_visibility="private")
    stop.click(shared.stop, None, None, show_progress="hidden", concurrency_limit=None, api_visibility="private")
    return EditTab(sound, lines)


def summary(outcome: Outcome) -> str:
    """What happened, in a sentence or two."""
    changes = ", ".join(
        f"{name.lower()} {measured}" for name, _, measured, _ in measured_rows(outcome) if measured != MISSING
    )
    told = f"Measured against your sound: {changes}." if changes else "The change could not be measured."
    if not outcome.met:
        told = f"A goal was not reached. {told} Smaller goals, or fewer at once, may be."
    if outcome.clipped:
        told += f" {outcome.clipped} samples were clipped."
    return f"{told} It took {', '.join(strengths_of(outcome)) or 'the feature edits alone'}."


def strengths_of(outcome: Outcome) -> list[str]:
    return [f"{strength:+.2f} times the direction {name!r}" for name, strength in outcome.strengths.items() if strength]


def shell_line(edited: Edited) -> str:
    recipe, source, target = (shlex.quote(path.name) for path in (edited.recipe, edited.before, edited.after))
    return f"steer edit {source} -o {target} --recipe {recipe}"


def picture_of(edited: Edited) -> Any:
    figure = drawn(edited.before, edited.after, edited.during)
    figure.set_size_inches(8.5, 7.5)  # in half a page, letters of 10 points can be read
    return on_any_ground(figure)


def picture_words(edited: Edited) -> str:
    rows = ", ".join(f"{name} {measured}" for name, _, measured, _ in measured_rows(edited.outcome))
    return f"Waveforms, spectrograms and curves of loudness, centroid and pitch, before and after. Measured: {rows}."
