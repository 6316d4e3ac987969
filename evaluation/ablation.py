"""Runs of a model with and without features of an SAE: for each clip the mean of what a later site gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from hooks import Site, attach
from hooks.errors import AudioSteerError
from hooks.precision import widest
from hooks.timing import at_time, current_time, real_frames
from steer.decoding import decoded, moved
from steer.delta import FullEdit, Mode, SiteEdit, site_edit
from steer.edits import Ablate
from steer.sae import SAE
from steer.steered import SteeredModel
from steer.values import Frames

STRETCH_S = 30.0
"""Longer sounds run in stretches, as in `capture`."""
ROWS = 16
"""Edits in one run of a model: so many sounds wide is what follows the SAE's site."""


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
        self.total = self.total + self.what(x_BTD[:, :frames]).sum((0, 1), dtype=widest(x_BTD.device))
        self.frames += x_BTD.shape[0] * frames

    def take(self) -> np.ndarray:
        """The mean [D] since the last call."""
        mean_D = torch.as_tensor(self.total).cpu().numpy() / max(self.frames, 1)
        self.total, self.frames = 0.0, 0
        return mean_D.astype(np.float32)


class RowPool(Pool):
    """A mean for each row of the batch: `take` gives [B, D]."""

    def __call__(self, x_BTD: Tensor) -> None:
        frames = real_frames(x_BTD.shape[1], self.site.frame_rate)
        self.total = self.total + self.what(x_BTD[:, :frames]).sum(1, dtype=widest(x_BTD.device))
        self.frames += frames


@dataclass(frozen=True)
class Widened(Site):
    """A site that one row comes to, read as `rows` equal ones: a change of it makes the batch that large from here."""

    rows: int = 1

    def _pick(self, value: Any) -> Tensor:
        tensor = super()._pick(value)
        if len(tensor) != 1:
            raise RuntimeError(f"site {self.name!r}: {len(tensor)} rows come to it, and only one can become several")
        return tensor.expand(self.rows, *tensor.shape[1:])


class Explained:
    """How much of a site's activations an SAE explains: 1 - squared error / squared distance from the mean."""

    def __init__(self, sae: Any) -> None:
        self.sae, self.frames, self.error, self.square, self.total = sae, 0, 0.0, 0.0, torch.zeros(())

    def __call__(self, x_BTD: Tensor) -> Tensor:
        """Encode."""
        f_BTF = self.sae.encode(x_BTD)
        x_BTD = x_BTD.to(widest(x_BTD.device))
        self.error += float((x_BTD - decoded(self.sae, f_BTF, x_BTD)).square().sum())
        self.square += float(x_BTD.square().sum())
        self.total = self.total.to(x_BTD) + x_BTD.sum((0, 1))
        self.frames += x_BTD.shape[0] * x_BTD.shape[1]
        return f_BTF

    @property
    def origin(self) -> str:
        """What the SAE says of where it belongs, in brackets."""
        info = getattr(self.sae, "info", None)
        return f" (it says {info.model or 'no model'}, {info.site or 'no site'})" if info else ""

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


def check_explained(steered: SteeredModel, site: str, explained: Explained) -> None:
    """Raises ConceptError if the SAE explains nothing of the site."""
    if explained.share() <= 0:
        raise ConceptError(
            f"the SAE explains nothing of site {site!r} of {steered.model.name} (explained variance "
            f"{explained.share():.2g}): it belongs to another model or site{explained.origin}"
        )


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
    check_explained(steered, site, explained)
    return np.stack(features), np.stack(activations), explained.share()


def ablated_runs(
    steered: SteeredModel,
    site: str,
    later: Site,
    clips: Sequence[LabelledSound],
    orders: Sequence[np.ndarray],
    counts: Sequence[int],
    progress: Progress,
    mode: Mode = "reconstruct",
) -> Iterator[np.ndarray]:
    """For each order of features what the later site gives [K, N, D] without the first `counts[k]` of them.

    `mode` is that of `SteeredModel.edit`. The padding of a window is blank from the SAE's site on (`Blank`).

    Cost: a clip takes (orders x counts) / ROWS runs of the model, each of them up to ROWS sounds wide behind the SAE's
    site; what several orders begin with, such as all features, is ablated once. A model whose batch cannot grow on the
    way (`widens`) runs orders x counts times. In memory are all means, orders x counts x clips x D float32 (120 MB for
    13 x 12 x 250 x 768), and the rows of the SAE that the edits need, once for each edit.
    """
    wanted = [[frozenset(order[:count].tolist()) for count in counts] for order in orders]
    sets = list(dict.fromkeys(features for some in wanted for features in some))
    ablations = [Ablate(sorted(features)) for features in sets]
    wide = widens(steered, site, later, steered.model.prepare(clips[0].source), ablations, mode)
    edits = [site_edit(steered.saes[site], [one], mode) for one in ablations] if wide else []
    rows: list[np.ndarray] = []
    for clip in progress(list(clips)):
        audio_BCN = steered.model.prepare(clip.source)
        if wide:
            chunks = (edits[start : start + ROWS] for start in range(0, len(edits), ROWS))
            rows.append(np.concatenate([together(steered, site, later, audio_BCN, chunk, mode) for chunk in chunks]))
        else:
            rows.append(one_by_one(steered, site, later, audio_BCN, ablations, mode))
    place = {features: index for index, features in enumerate(sets)}
    for some in wanted:
        chosen_K = [place[features] for features in some]
        yield np.stack([row_SD[chosen_K] for row_SD in rows], axis=1)


class Blank:
    """Sets the padding behind a sound to what the SAE decodes of no features; give it to `attach`.

    A recogniser's window is longer than most sounds. What its first layers left of the sound in the rest of it later
    ones read there, and an SAE that was trained on frames of sound cannot take it away.
    """

    def __init__(self, steered: SteeredModel, site: str) -> None:
        self.sae, self.rate = steered.saes[site], steered.sites[site].frame_rate

    def __call__(self, x_BTD: Tensor) -> Tensor:
        frames = real_frames(x_BTD.shape[1], self.rate)
        if frames == x_BTD.shape[1]:
            return x_BTD
        f_11F = torch.zeros_like(self.sae.encode(x_BTD[:1, :1]))
        rest_BTD = decoded(self.sae, f_11F, x_BTD[:1, :1]).to(x_BTD).expand_as(x_BTD[:, frames:])
        return torch.cat([x_BTD[:, :frames], rest_BTD], dim=1)


def one_by_one(
    steered: SteeredModel, site: str, later: Site, audio_BCN: Tensor, ablations: Sequence[Ablate], mode: Mode
) -> np.ndarray:
    """What the later site gives [K, D] with each of the edits, in K runs."""
    pool, rows, module, origin = Pool(later), [], steered.model.module, steered.sites[site]
    for ablation in ablations:
        with ExitStack() as stack:
            stack.enter_context(attach(module, origin, Blank(steered, site)))
            # the edit first: if both are at one module, the reading sees what the edit left
            stack.enter_context(steered.edit(ablation, site=site, mode=mode))
            stack.enter_context(attach(module, later, pool))
            run(steered, audio_BCN)
        rows.append(pool.take())
    return np.stack(rows)


def together(
    steered: SteeredModel, site: str, later: Site, audio_BCN: Tensor, edits: Sequence[SiteEdit], mode: Mode
) -> np.ndarray:
    """What the later site gives [K, D] with each of the edits, in one run: up to the SAE's site they are all the same.

    Raises:
        RuntimeError: what follows the site does not take K rows where one was before, or several were there already.
    """
    pool, origin, sae = RowPool(later), steered.sites[site], steered.saes[site]
    blank = Blank(steered, site)

    def each(x_KTD: Tensor) -> Tensor:
        x_1TD = blank(x_KTD[:1])
        frames = Frames.of(x_1TD, origin.frame_rate or 1.0, current_time() or 0.0)
        if mode == "delta":
            return torch.cat([edit(x_1TD, frames) for edit in edits])
        # from the features alone: without any all frames are the same to the bit, and no probe can read how sums round
        f_1TF = sae.encode(x_1TD)
        return torch.cat([edit.of_features(f_1TF, x_1TD, frames) for edit in edits if isinstance(edit, FullEdit)])

    here = Widened(**vars(origin), rows=len(edits))
    with attach(steered.model.module, here, each), attach(steered.model.module, later, pool):
        run(steered, audio_BCN)
    return pool.take()


def widens(
    steered: SteeredModel, site: str, later: Site, audio_BCN: Tensor, ablations: Sequence[Ablate], mode: Mode
) -> bool:
    """Whether `together` gives for two of the edits, which differ most, what they give one by one.

    Not so where something from in front of the site is used again behind it (the position bias of transformers' WavLM),
    where a model's rows see each other, and in models that are random.
    """
    ends = [min(ablations, key=lambda one: len(one.features)), max(ablations, key=lambda one: len(one.features))]
    expected_KD = one_by_one(steered, site, later, audio_BCN, ends, mode)
    edits = [site_edit(steered.saes[site], [one], mode) for one in ends]
    try:
        rows_KD = together(steered, site, later, audio_BCN, edits, mode)
    except RuntimeError:
        return False
    if rows_KD.shape != expected_KD.shape:
        return False
    # other batches are summed in another order, layer after layer: half the digits have to agree
    half = torch.finfo(steered.model.dtype).eps ** 0.5
    return np.allclose(rows_KD, expected_KD, rtol=half, atol=half * np.abs(expected_KD).mean())


@torch.no_grad()
def decoder_norms(steered: SteeredModel, site: str, features: np.ndarray, d_sae: int) -> np.ndarray:
    """How far one more of each of the features moves what the SAE at the site decodes to."""
    sae, ids = steered.saes[site], torch.from_numpy(features)
    if isinstance(sae, SAE):
        return sae.W_dec[ids.to(sae.W_dec.device)].norm(dim=1).cpu().numpy()
    norms = []
    for chunk in ids.split(256):
        one_1KF = torch.nn.functional.one_hot(chunk, d_sae)[None].float().to(steered.model.device)
        norms.append(moved(sae, one_1KF, torch.zeros_like(one_1KF)).norm(dim=-1)[0].cpu())
    return torch.cat(norms).numpy()
