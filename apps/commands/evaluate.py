"""`steer evaluate NAME`: how well edits or SAEs do, measured on labelled sounds."""

from __future__ import annotations

import typer

from apps.commands import evaluate_acoustics, evaluate_all, evaluate_reconstruction, evaluate_speech, evaluate_vectors

app = typer.Typer(help="Measure how well edits do.", no_args_is_help=True)

app.command("acoustics")(evaluate_acoustics.acoustics)
app.command("residuals")(evaluate_acoustics.residuals)
app.command("reconstruction")(evaluate_reconstruction.reconstruction)
app.command("vectors")(evaluate_vectors.vectors)
app.command("ablation")(evaluate_speech.ablation)
app.command("false-alarms")(evaluate_speech.false_alarms)
app.command("stability")(evaluate_speech.stability)
app.command("all")(evaluate_all.everything)
