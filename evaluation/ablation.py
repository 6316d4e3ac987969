"""Runs of a model with and without features of an SAE: for each clip the mean of what a later site gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.labels import LabelledSound
from hooks import Site, attach
from hooks.attach import at_time
from hooks.errors import AudioSteerError
from hooks.padding import real_frames
from steer.edits import Ablate
from steer.steered import SteeredModel

STRETCH_S = 30.0
"""Longer sounds run in stretches, as in `capture`."""

Progress = Callable[[list[Any]], Iterable[Any]]


class ConceptError(AudioSteerError):
    """Concepts that cannot be measured: too few clips, an unknown name, an SAE or a site that does not fit."""


class Pool:
    """Mean over the frames of sound of what passes at a site, through `what`; give it to `attach`."""

    def __init__(self, site: Site, what: Callable[[Tensor], Tensor] = lambda x_BTD: x_BTD) -> None:
        self.site, self.what = site, what
        self.total: Tensor | float = 0.0
        self.frames = 0

    def __call__(self, x_BTD: Tensor) -> None:
        frames = real_frames(x_BTD.shape[1], self.site.frame_rate)
        self.total = self.total + self.what(x_BTD[:, :frames]).sum((0, 1), dtype=torch.float64)
        self.frames += x_BTD.shape[0] * frames

    def take(self) -> np.ndarray:
        """The mean [D] since the last call."""
        mean_D = torch.as_tensor(self.total).cpu().numpy() / max(self.frames, 1)
        self.total, self.frames = 0.0, 0
        return mean_D.astype(np.float32)


class Explained:
    """How much of a site's activations an SAE explains: 1 - squared error / squared distance from the mean."""

    def __init__(self, sae: Any) -> None:
        self.sae, self.frames, self.error, self.square, self.total = sae, 0, 0.0, 0.0, torch.zeros(())

    def __call__(self, x_BTD: Tensor) -> Tensor:
        """Encode."""
        f_BTF = self.sae.encode(x_BTD)
        x_BTD = x_BTD.double()
        self.error += float((x_BTD - self.sae.decode(f_BTF)).square().sum())
        self.square += float(x_BTD.square().sum())
        self.total = self.total.to(x_BTD) + x_BTD.sum((0, 1))
        self.frames += x_BTD.shape[0] * x_BTD.shape[1]
        return f_BTF

    def share(self) -> float:
        spread = self.square - float(self.total.square().sum()) / max(self.frames, 1)
        return 1 - self.error / max(spread, 1e-30)


@torch.no_grad()
def run(steered: SteeredModel, audio_BCN: Tensor) -> None:
    """One pass over a prepared sound of any length."""
    assert steered.model.sample_rate is not None
    length = round(STRETCH_S * steered.model.sample_rate)
    for start in range(0, audio_BCN.shape[-1], length):
        with at_time(start / steered.model.sample_rate):
            steered.model.run(audio_BCN[..., start : start + length])


def later_site(steered: SteeredModel, name: str, audio_BCN: Tensor, later: str | None = None) -> Site:
    """The site to read at: `later`, or the last one of the encoder that is passed after site `name`.

    Raises:
        ConceptError: there is none, or `later` is not passed after it.
    """
    model = steered.model
    names = [later] if later else [one for one in model.sites if not one.startswith("decoder")]
    order: list[str] = []
    handles = [
        attach(model.module, model.site(one), lambda x_BTD, one=one: order.append(one))  # type: ignore[misc]
        for one in dict.fromkeys([name, *names])
    ]
    try:
        run(steered, audio_BCN)
    finally:
        for handle in handles:
            handle.remove()
    behind = [one for one in dict.fromkeys(order) if one != name and order.index(one) > order.index(name)]
    if behind:
        return model.site(behind[-1])
    if later:
        raise ConceptError(f"site {later!r} of {model.name} is not passed after {name!r}, where the SAE is")
    others = [one for one in model.sites if one.startswith("decoder")]
    hint = f"name another one to read at, such as {', '.join(others[:3])}" if others else "it has none to read at"
    raise ConceptError(f"{model.name} has no site in its encoder behind {name!r}, where the SAE is; {hint}")


def plain_run(
    steered: SteeredModel, site: str, later: Site, clips: Sequence[LabelledSound], progress: Progress
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean features [N, F] and mean later activations [N, D] without an edit, and the explained variance.

    Raises:
        ConceptError: the SAE explains nothing of the site.
    """
    explained = Explained(steered.saes[site])
    pools = Pool(steered.sites[site], explained), Pool(later)
    features, activations = [], []
    for clip in progress(list(clips)):
        audio_BCN = steered.model.prepare(clip.source)
        with attach(steered.model.module, steered.sites[site], pools[0]), attach(steered.model.module, later, pools[1]):
            run(steered, audio_BCN)
        features.append(pools[0].take())
        activations.append(pools[1].take())
    if explained.share() <= 0:
        info = getattr(steered.saes[site], "info", None)
        origin = f" (it says {info.model or 'no model'}, {info.site or 'no site'})" if info else ""
        raise ConceptError(
            f"the SAE explains nothing of site {site!r} of {steered.model.name} (explained variance "
            f"{explained.share():.2g}): it belongs to another model or site{origin}"
        )
    return np.stack(features), np.stack(activations), explained.share()


def ablated_runs(
    steered: SteeredModel,
    site: str,
    later: Site,
    clips: Sequence[LabelledSound],
    orders: Sequence[np.ndarray],
    counts: Sequence[int],
    progress: Progress,
) -> Iterator[np.ndarray]:
    """For each order of features what the later site gives [K, N, D] without the first `counts[k]` of them."""
    pool = Pool(later)
    jobs = [(order, index) for order in range(len(orders)) for index in range(len(clips))]
    rows: list[np.ndarray] = []
    for order, index in progress(jobs):
        audio_BCN = steered.model.prepare(clips[index].source)
        for count in counts:
            # the edit first: if both are at one module, the reading sees what the edit left
            edit = Ablate(orders[order][:count].tolist())
            with steered.edit(edit, site=site), attach(steered.model.module, later, pool):
                run(steered, audio_BCN)
            rows.append(pool.take())
        if index == len(clips) - 1:
            yield np.stack(rows).reshape(len(clips), len(counts), -1).swapaxes(0, 1)
            rows = []
