"""What a training takes: stored activations, frames, or sounds and a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from hooks.model import AudioModel, Source
from hooks.store import ActivationStore, SiteFrames
from hooks.store_writing import fill
from steer.errors import TrainingError
from steer.parallel import Group
from steer.sae import SAEInfo

Frames = Tensor | SiteFrames
Data = ActivationStore | Frames | Mapping[str, Frames]

ACTIVATIONS = "activations"
BATCH = 4
"""Number of sounds of equal length that run through the model at once."""


@contextmanager
def captured(
    sounds: Iterable[Source],
    model: AudioModel | nn.Module,
    sites: str | Sequence[str] | None,
    folder: str | Path | None,
    group: Group,
) -> Iterator[ActivationStore]:
    """A store of what passes at some sites: in the folder `activations` of a training's, where sounds that are there
    already are not run again, or in a temporary one. The first process fills it.

    Raises:
        TrainingError: no site is named, or several processes have no folder that they all see.
        StoreError, SiteError, AudioFileError: as `fill`.
    """
    if sites is None:
        raise TrainingError("a training from sounds has to know where in the model: pass sites=...")
    if folder is None and group.size > 1:
        raise TrainingError("several processes that train from sounds need a folder for the activations")
    with ExitStack() as stack:
        root = stack.enter_context(TemporaryDirectory()) if folder is None else folder
        store = Path(root, ACTIVATIONS)
        group.once(lambda: fill(store, model, sounds, sites, batch=BATCH))
        yield ActivationStore(store)


def sites_of(data: Data, info: SAEInfo) -> tuple[dict[str, Frames], SAEInfo]:
    """{site: frames}, and what a store knows of its model."""
    sites: dict[str, Frames]
    if isinstance(data, ActivationStore):
        sites = {site: data.frames(site) for site in data.sites}
        info = replace(info, model=info.model or data.model, sample_rate=info.sample_rate or data.sample_rate)
    else:
        sites = dict(data) if isinstance(data, Mapping) else {"": data}
    for site, frames in sites.items():
        if len(frames.shape) != 2 or len(frames) < 32:
            raise TrainingError(f"site {site!r}: training needs frames [N, D], 32 or more, not {list(frames.shape)}")
    return sites, info
