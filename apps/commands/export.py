"""`steer export`: a Whisper as files for its own library and for transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.options import Force, Json


def export(
    model: Annotated[str, typer.Argument(help="A Whisper of openai-whisper, such as starter:asr.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Write a Whisper as model.pt for openai-whisper and as a folder for transformers, which `--model` takes too."""
    from apps.files import to_json
    from hooks import ModelError
    from hooks.families.whisper import export as whisper_export
    from steer import open_model  # which knows the names starter:...

    # told before a model is opened
    if out.exists() and not out.is_dir():
        raise ModelError(f"{out}: is a file; an export is a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ModelError(f"{out}: is not empty; use --force to write there over files of the same names")
    whisper_export.export(open_model(model), out)
    checkpoint, folder = str(out / whisper_export.CHECKPOINT), str(out)
    if as_json:
        print(to_json({"model": model, "openai-whisper": checkpoint, "transformers": folder}))
    else:
        print(f"openai-whisper: whisper.load_model({checkpoint!r})")
        print(f"transformers: pipeline('automatic-speech-recognition', model={folder!r})")
