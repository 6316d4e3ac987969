"""What the Features tab says of a sound: when a feature fires in it, as a picture, and which fire most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apps.feature_lists import features_of, strongest
from apps.page.feature_run import label_text, told
from apps.page.style import INK, on_any_ground
from apps.plot import SHOWN_S, require_plots
from apps.spectrogram import draw_spectrogram, spectrogram_db
from evaluation.atlas import Atlas
from hooks import Clip, SiteError
from hooks.model import Source
from steer.errors import EditError
from steer.frame_labels import mono
from steer.sae import check_features
from steer.steered import SteeredModel

CURVE = "#d1495b"
APART_S = 0.2


@dataclass(frozen=True, eq=False)
class Firing:
    """A feature along a sound: `value_T` and the middle of each frame, `time_T` in seconds."""

    site: str
    feature: int
    value_T: Tensor
    time_T: Tensor

    def peaks(self, top: int = 3) -> list[tuple[float, float]]:
        """(seconds, value) of the highest moments, the highest first, `APART_S` or more apart."""
        value_T = self.value_T
        edge = value_T.new_full((1,), -torch.inf)
        before_T, after_T = torch.cat([edge, value_T[:-1]]), torch.cat([value_T[1:], edge])
        tops = ((value_T > 0) & (value_T >= before_T) & (value_T > after_T)).nonzero()[:, 0]
        chosen: list[tuple[float, float]] = []
        for index in tops[value_T[tops].argsort(descending=True, stable=True)].tolist():
            at_s = float(self.time_T[index])
            if len(chosen) < top and all(abs(at_s - other_s) >= APART_S for other_s, _ in chosen):
                chosen.append((at_s, float(value_T[index])))
        return chosen

    def words(self) -> str:
        """The picture for those who do not see it."""
        name = f"Feature {self.feature} at {self.site}"
        peaks = self.peaks()
        if not peaks:
            return f"{name} never fires in this sound."
        share = 100 * float((self.value_T > 0).float().mean())
        where = ", ".join(f"{at_s:.2f} s ({value:.2g})" for at_s, value in peaks)
        return f"{name} fires in {share:.2g} % of the frames. It is highest at {where}."


def fires(steered: SteeredModel, site: str, feature: int, source: Source) -> Firing:
    """Run a sound through the model and note one feature.

    Raises:
        EditError: no SAE at that site, or no such feature.
        SiteError: no frame rate is known there, so that frames have no time.
        AudioFileError: the sound cannot be read.
    """
    f_TF, rate = features_at(steered, site, source)
    check_features([feature], f_TF.shape[1])
    return Firing(site, feature, f_TF[:, feature].clone(), (torch.arange(len(f_TF)) + 0.5) / rate)


def strongest_in(
    steered: SteeredModel, site: str, source: Source, atlas: Atlas | None = None, top: int = 10
) -> list[dict[str, Any]]:
    """A row for each of the features with the largest mean in a sound, with the label that it tells best, if any.

    Raises:
        AtlasError: the atlas is of another SAE; else as `fires`.
    """
    f_TF, rate = features_at(steered, site, source)
    if atlas is not None:
        atlas.check_fits(site, f_TF.shape[1])
    rows = []
    for one in strongest(f_TF, rate, top):
        labels = told(atlas.feature(one["feature"], len(atlas.concepts))) if atlas is not None else []
        rows.append(
            {
                "feature": one["feature"],
                "frames (%)": round(100 * one["share"], 2),
                "mean": round(one["mean"], 4),
                "max": round(one["peak"], 2),
                "highest at (s)": round(one["peak_s"], 2),
                "tells: AUROC (chance)": label_text(labels[0]) if labels else "",
            }
        )
    return rows


def features_at(steered: SteeredModel, site: str, source: Source) -> tuple[Tensor, float]:
    """All features [T, F] at a site, and its frame rate; raises as `fires`."""
    if site not in steered.saes:
        raise EditError(f"there is no SAE at {site!r}; there are SAEs at {', '.join(steered.saes)}")
    rate = steered.sites[site].frame_rate
    if rate is None:
        raise SiteError(f"site {site!r}: no frame rate is known there, so features have no times")
    return features_of(steered, source, [site])[site], rate


def draw(clip: Clip, firing: Firing) -> Any:
    """A figure with the spectrogram of a clip and, on the same time axis, a feature; it has no background of its own.

    Of a clip longer than `SHOWN_S` the stretch around the highest peak is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_plots()
    from matplotlib.figure import Figure

    rate, peaks = clip.sample_rate, firing.peaks()
    start_s = min(max(0.0, peaks[0][0] - SHOWN_S / 2), max(0.0, clip.seconds - SHOWN_S)) if peaks else 0.0
    end_s = min(clip.seconds, start_s + SHOWN_S)
    sound_N = mono(clip.waveform)[round(start_s * rate) : round(end_s * rate)]
    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    draw_spectrogram(above, spectrogram_db(sound_N, rate), rate, start_s, end_s)
    above.set_ylabel("Hz (mel)")
    time, value = firing.time_T.numpy(), firing.value_T.numpy()
    below.fill_between(time, value, color=CURVE, alpha=0.25, linewidth=0)
    below.plot(time, value, color=CURVE, linewidth=1.5)
    shown = [(at_s, height) for at_s, height in peaks if start_s <= at_s <= end_s]
    top = 1.15 * max([height for _, height in shown], default=1.0)
    for at_s, height in shown:
        below.plot(at_s, height + 0.06 * top, marker="v", markersize=8, color=INK, clip_on=False)
        above.axvline(at_s, color="white", alpha=0.7, linewidth=1, linestyle=":")
    below.set(xlim=(start_s, end_s), ylim=(0, top), xlabel="seconds", ylabel=f"feature {firing.feature}")
    for axes in (above, below):
        axes.tick_params(labelsize=11)
        axes.xaxis.label.set_size(12)
        axes.yaxis.label.set_size(12)
    below.spines[["top", "right"]].set_visible(False)
    return on_any_ground(figure)
