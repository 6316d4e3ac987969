"""`steer sites`: the sites of a model."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from apps.options import Json

if TYPE_CHECKING:
    from hooks import AudioModel


def sites(
    model: Annotated[str, typer.Argument(help="Name or folder; see `steer models`.", show_default=False)],
    measure: Annotated[
        bool, typer.Option("--measure", help="Run a second of noise for the widths that are not known beforehand.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the sites of a model: where its activations can be read and edited."""
    from apps.tables import show
    from steer import open_model  # which knows the names starter:...

    opened = open_model(model)
    widths = measured_widths(opened) if measure else {}
    rows = [
        {
            "site": site.name,
            "width": widths.get(site.name, site.width),
            "frame rate (Hz)": site.frame_rate,
            "module": site.module or "(all)",
            "port": site.port,
        }
        for site in opened.sites.values()
    ]
    show(model, rows, as_json)


def measured_widths(model: AudioModel) -> dict[str, int]:
    """Widths {site: D} of all sites that a second of noise passes."""
    import torch

    from hooks import attach
    from hooks.clip import Clip

    rate = model.sample_rate
    assert rate is not None  # all that open by name take audio
    noise = 0.1 * torch.randn(model.channels, rate, generator=torch.Generator().manual_seed(0))
    widths: dict[str, int] = {}

    def note(name: str, x_BTD: torch.Tensor) -> None:
        widths[name] = x_BTD.shape[2]

    with ExitStack() as stack, torch.no_grad():
        for site in model.sites.values():
            stack.enter_context(attach(model.module, site, partial(note, site.name)))
        model.run(model.prepare(Clip(noise, rate)))
    return widths
