"""`make demo` (`python -m apps.first_edit [SOUND]`): edit a sound with the starter codec and show what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps import cli
from apps.options import output
from apps.samples import sung_phrase
from hooks import write_clip

RECORDING = Path("..") / "shared" / "audio" / "ljspeech" / "LJ001-0018.flac"
"""A recording of the developers' data, where that lies beside the checkout."""
EDITS = {"louder": ("--loudness", "+6dB"), "brighter": ("--brightness", "+30%"), "higher": ("--pitch", "+4st")}


def demo(
    sound: Annotated[
        Path | None, typer.Argument(help="A sound file; by default a recording or a synthetic voice.")
    ] = None,
    out: Annotated[Path, output("Folder for sound and pictures, by default demo.")] = Path("demo"),
) -> None:
    """Edit one sound in several ways; the commands are printed, so that they can be tried."""
    out.mkdir(parents=True, exist_ok=True)
    if sound is None and RECORDING.exists():
        sound = RECORDING
    if sound is None:
        sound = out / "voice.wav"
        write_clip(sung_phrase(), sound, force=True)
    code = 0
    for name, change in EDITS.items():
        target, picture = out / f"{name}.wav", out / f"{name}.png"
        arguments = ["edit", str(sound), "-o", str(target), *change, "--plot", str(picture), "--force"]
        print("\nsteer", *arguments)
        try:
            cli.main(arguments)
        except SystemExit as end:
            code = max(code, int(end.code or 0))
    print(f"\nListen to and look at the files in {out}/")
    if code:
        raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(demo)
