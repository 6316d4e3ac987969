"""Evaluations side by side: each is measured once, kept with all that it depends on, and not measured again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evaluation.concepts import Needed
from evaluation.labels import MANIFEST
from evaluation.report import Interval, Report
from hooks.errors import AudioSteerError
from hooks.files import whole_file


class SuiteError(AudioSteerError):
    """Results that cannot be written, or a choice of what to measure that makes no sense."""


@dataclass(frozen=True)
class Part:
    """One evaluation: its name, what its result depends on (plain values), how to measure and how to draw it."""

    name: str
    settings: Mapping[str, Any]
    measure: Callable[[], Report]
    draw: Callable[[Report], Any] = field(repr=False)

    def known(self, out: Path) -> Report | None:
        """What `out` holds of this part, if it was measured with the same settings."""
        try:
            report = read(out / f"{self.name}.json")
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or no report of ours
        return report if report.about.get("settings") == plain(self.settings) else None

    def run(self, out: Path) -> Report:
        """Measure, and write NAME.json, NAME.md and NAME.png.

        Raises:
            AudioSteerError: it could not be measured, or not written.
        """
        began = time.monotonic()
        report = self.measure()
        minutes = round((time.monotonic() - began) / 60, 2)
        report.about = {**report.about, "settings": plain(self.settings), "minutes": minutes}
        write(report, out, self.name, self.draw(report))
        return report


def plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def write(report: Report, out: Path, name: str, drawn: Any = None) -> None:
    """NAME.png if there is a figure, NAME.md, and NAME.json last: where that is, all is.

    Raises:
        SuiteError: one of them cannot be written.
    """
    try:
        if drawn is not None:
            with whole_file(out / f"{name}.png") as partial:
                drawn.savefig(partial, format="png")
        with whole_file(out / f"{name}.md") as partial:
            partial.write_text(report.markdown() + "\n", encoding="utf-8")
        with whole_file(out / f"{name}.json") as partial:
            report.save(partial)
    except OSError as error:
        raise SuiteError(f"{out / name}: could not be written ({error.strerror or error})") from error


def read(path: Path) -> Report:
    """A report that was saved; shares come back as plain intervals, which print as they are."""
    values = json.loads(path.read_text(encoding="utf-8"))
    rows = [{key: restored(cell) for key, cell in row.items()} for row in values["rows"]]
    return Report(values["title"], rows, values["clips"], values["about"])


def restored(cell: Any) -> Any:
    if not isinstance(cell, dict):
        return cell
    return Needed(**cell) if "reached" in cell else Interval(**cell)


def fingerprint(module: nn.Module) -> str:
    """Of a model or an SAE: what it is and all its weights."""
    digest = hashlib.blake2b(repr(module).encode(), digest_size=12)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        # numpy knows no bfloat16: bytes it does
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of_manifests(audio: Path) -> str:
    """Which clips a folder of recordings has, in which splits and with which labels."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(audio.glob(f"*/{MANIFEST}")):
        digest.update(path.parent.name.encode() + path.read_bytes())
    return digest.hexdigest()
