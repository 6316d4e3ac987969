"""What a training takes: stored activations, frames, or sounds and a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from hooks.model import AudioModel, Source
from hooks.shuffle import Span, random_blocks, shuffled
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
WATCHED_FRAMES = 2**14
"""At most this many held-out frames are looked at in a training with `patience`."""


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


def sites_of(data: Data, info: SAEInfo, least: int = 32) -> tuple[dict[str, Frames], SAEInfo]:
    """{site: frames}, and what a store knows of its model."""
    sites: dict[str, Frames]
    if isinstance(data, ActivationStore):
        sites = {site: data.frames(site) for site in data.sites}
        info = replace(info, model=info.model or data.model, sample_rate=info.sample_rate or data.sample_rate)
    else:
        sites = dict(data) if isinstance(data, Mapping) else {"": data}
    for site, frames in sites.items():
        if len(frames.shape) != 2 or len(frames) < least:
            raise TrainingError(
                f"site {site!r}: training needs frames [N, D], {least} or more, not {list(frames.shape)}"
            )
    return sites, info


@dataclass(frozen=True)
class HeldOut:
    """Frames that are not trained on: some spans of `frames`."""

    frames: Frames
    spans: list[Span]

    def sample(self) -> Tensor:
        """At most `WATCHED_FRAMES` of them, in float32."""
        count = sum(end - begin for begin, end in self.spans)
        return next(shuffled(self.frames, self.spans, min(WATCHED_FRAMES, count))).float()


def divided(
    sites: Mapping[str, Frames], share: float, validation: Data | None
) -> tuple[dict[str, list[Span]], dict[str, HeldOut]]:
    """Which frames of each site are trained on, and which are held out: without a share to hold out, the same."""
    if validation is not None:
        others = sites_of(validation, SAEInfo(), least=1)[0]
        widths = [{site: frames.shape[1] for site, frames in group.items()} for group in (sites, others)]
        if widths[0] != widths[1]:
            raise TrainingError(f"validation: frames of {widths[1]} (site: width), not of {widths[0]} as the data")
        spans = {site: random_blocks(len(frames))[0] for site, frames in sites.items()}
        return spans, {site: HeldOut(frames, [(0, len(frames))]) for site, frames in others.items()}
    blocks = {site: random_blocks(len(frames), share) for site, frames in sites.items()}
    kept = {site: HeldOut(sites[site], aside or rest) for site, (rest, aside) in blocks.items()}
    return {site: rest for site, (rest, _) in blocks.items()}, kept
