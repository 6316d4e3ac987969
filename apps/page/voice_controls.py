"""The part "Voice" of the tab "Edit sound": pitch over time, its range, vibrato, key, note, whisper, formants."""

from __future__ import annotations

from typing import Any

import gradio as gr

from steer.voice import CHROMATIC, NAMES, SCALES

AS_IS = "as it is"
KEYS = [AS_IS, CHROMATIC, *(f"{name} {scale}" for scale in SCALES for name in NAMES)]
HINT = "For a codec with a pitch coordinate, such as starter:codec. What is left as it is here stays as it is."


def voice_controls() -> list[Any]:
    """The controls, within `gr.Blocks`; their values are what `voice_values` takes, in this order."""
    with gr.Accordion("Voice", open=False, elem_id="voice"):
        gr.Markdown(HINT)
        with gr.Row():
            note = gr.Textbox(
                label="Median pitch goes to", info="A note or MIDI number: A3, 57", elem_id="voice-note", min_width=120
            )
            key = gr.Dropdown(KEYS, value=AS_IS, label="Notes go to those of", elem_id="voice-key", min_width=120)
        reach = gr.Slider(
            0, 3, 1, step=0.1, label="Pitch range (0: one pitch, 1: as it is)", elem_id="voice-pitch-range"
        )
        curve = gr.Textbox(
            label="Pitch over time", info="SECOND:SEMITONES, such as 0:0, 1.5:+3, 3:0", elem_id="voice-pitch-curve"
        )
        formants = gr.Slider(-6, 6, 0, step=0.5, label="Formants (semitones)", elem_id="voice-formants")
        whisper = gr.Slider(0, 1, 0, step=0.05, label="Whisper (share of voicing taken away)", elem_id="voice-whisper")
        steady = gr.Checkbox(label="Take vibrato away", elem_id="voice-vibrato")
    return [note, key, reach, curve, formants, whisper, steady]


def voice_values(
    note: str | None, key: str, reach: float, curve: str | None, formants: float, whisper: float, steady: bool
) -> dict[str, Any]:
    """A recipe's `voice` for what was chosen; what is as it is is left out."""
    chosen = {
        "pitch_curve": (curve or "").strip() or None,
        "pitch_range": None if reach == 1 else reach,
        "vibrato": "off" if steady else None,
        "key": None if key == AS_IS else key,
        "note": (note or "").strip() or None,
        "whisper": whisper or None,
        "formants": formants or None,
    }
    return {name: value for name, value in chosen.items() if value is not None}
