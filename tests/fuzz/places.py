"""Paths that hold no file that can be read: what stands behind a name is not always a file."""

from __future__ import annotations

import os
from pathlib import Path


def bad_paths(folder: Path, suffix: str) -> dict[str, Path]:
    """{what it is: its path}, made in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: folder / f"{name}{suffix}" for name in ("folder", "pipe", "dangling", "loop", "zero", "full")}
    made["folder"].mkdir()
    os.mkfifo(made["pipe"])
    made["dangling"].symlink_to(folder / "nowhere")
    made["loop"].symlink_to(made["loop"])
    made["zero"].symlink_to("/dev/zero")  # never ends
    made["full"].symlink_to("/dev/full")
    (folder / f"void{suffix}").write_bytes(b"")
    return made | {
        "void": folder / f"void{suffix}",
        "missing": folder / f"missing{suffix}",
        "device": Path("/dev/zero"),
        "null byte": Path(f"{folder}/a\0b{suffix}"),
        "too long": folder / ("x" * 300 + suffix),
        "no text": folder / os.fsdecode(b"\xff\xfe" + suffix.encode()),
        "below a file": folder / f"void{suffix}" / f"a{suffix}",
    }
