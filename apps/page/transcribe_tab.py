"""The tab "Transcribe": what a recogniser writes as it is, through its SAEs alone, and edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from apps.flags import RECOGNISER
from apps.page.activity import activity_of, draw
from apps.page.choice import recipe_from
from apps.page.settings import checked
from apps.page.shared import BAR, Shared
from apps.page.style import note, picture_html, png, table_html
from apps.page.transcribe_run import FALSE_ALARMS, Heard, Transcribed, shipped, transcribe_three
from apps.page.words import marked
from apps.transcripts import edits_of
from hooks import AudioFileError
from steer.recipe import Recipe

HINT = "One edit a line, such as: encoder.2: ablate 17 / encoder.3: scale 4 = 0.5"
NO_RECIPE = "none"


@dataclass(frozen=True)
class TranscribeTab:
    """The parts that other tabs reach."""

    sound: gr.Audio
    lines: gr.Textbox
    recipe: gr.Radio


def transcribe_tab(shared: Shared) -> TranscribeTab:
    """Build the tab within `gr.Blocks`."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown("## Your sound")
            sound = shared.sound("Sound: a file, a recording, or one of the samples", "transcribe-sound")
            downloaded = shared.downloaded()
            model = shared.model(RECOGNISER, "whisper:tiny=my/sae,my/other", "transcribe-model", downloaded)
            gr.Markdown("## What shall change")
            recipe = gr.Radio(
                [("false-alarms: write nothing where nobody speaks", FALSE_ALARMS), (NO_RECIPE, NO_RECIPE)],
                value=FALSE_ALARMS,
                label="Recipe",
                info=f"There is one for {', '.join([RECOGNISER, *downloaded])}.",
                elem_id="transcribe-recipe",
            )
            lines = gr.Textbox(
                label="Feature edits", info=HINT, lines=2, max_lines=12, value="", elem_id="transcribe-lines"
            )
            with gr.Row():
                run = gr.Button("Transcribe", variant="primary", elem_id="transcribe-run")
                stop = gr.Button("Stop", elem_id="transcribe-stop")
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("## What it writes")
            status = gr.HTML(
                note("note", "Nothing was transcribed yet."), elem_id="transcribe-status", elem_classes="status"
            )
            written = gr.HTML(elem_id="transcripts")
            picture = gr.HTML(elem_id="transcribe-picture")

    def transcribe(
        path: str | None,
        model: str,
        name: str,
        lines: str,
        request: gr.Request,
        progress: gr.Progress = BAR,
    ) -> dict[Any, Any]:
        try:
            if path is None:
                raise AudioFileError("First choose a sound: a file, a recording, or one of the samples.")
            checked(path, shared.settings.limits)
            what = chosen(model, name, lines, shared)
            with shared.run(request, progress) as (_, report):
                report("opening the model", 0.0)
                steered = shared.opened(what)
                heard = transcribe_three(steered, what, path, report)
                report("drawing", 1.0)
                activity = activity_of(steered, edits_of(what), path)
                shown = {"baseline": heard.baseline, "edited": heard.edited}
                figure = draw(activity, {name: one.transcript for name, one in shown.items()})
                image = picture_html(png(figure), activity.told())
        except Exception as error:
            return {status: shared.told(error)}
        return {status: note("done", summary(heard)), written: transcripts_html(heard), picture: image}

    run.click(
        transcribe,
        [sound, model, recipe, lines],
        [status, written, picture],
        show_progress_on=[status],
        concurrency_limit=None,
        api_visibility="private",
    )
    stop.click(shared.stop, None, None, show_progress="hidden", concurrency_limit=None, api_visibility="private")
    return TranscribeTab(sound, lines, recipe)


def chosen(model: str, name: str, lines: str, shared: Shared) -> Recipe:
    """A recipe that ships for the model, with the lines' edits behind its own; or these alone."""
    own = recipe_from(model, shared, lines=lines)
    if name == NO_RECIPE:
        return own
    first = shipped(f"{own.model}/{name}").to_dict()
    edits = [*first["edits"], *own.to_dict().get("edits", [])]
    return Recipe.build({**first, "model": own.model, "edits": edits}, "the page")


def summary(heard: Transcribed) -> str:
    if heard.note:
        return heard.note
    before, after = heard.baseline.transcript, heard.edited.transcript
    what = "The edit changed what is written." if str(before) != str(after) else "The edit changed no word."
    return f"{what} It edits features at {', '.join(heard.sites)}."


def transcripts_html(heard: Transcribed) -> str:
    """The three transcripts, each with the words marked that are not as in the baseline, and their probabilities."""
    named = {"Baseline": heard.baseline, "Reconstruction only": heard.reconstruction, "Edited": heard.edited}
    before = str(heard.baseline.transcript)
    parts = [
        f'<section class="transcript"><h3>{name}</h3><p>{marked(before, str(one.transcript))}</p></section>'
        for name, one in named.items()
    ]
    rows = [[name, one.transcript.language or "not known", *numbers(one)] for name, one in named.items()]
    head = ["", "language", "no-speech probability", "log probability of a token"]
    return "".join(parts) + table_html("What the model itself says", head, rows)


def numbers(one: Heard) -> list[str]:
    return ["not known" if value is None else f"{value:.2f}" for value in (one.no_speech_prob, one.avg_logprob)]
