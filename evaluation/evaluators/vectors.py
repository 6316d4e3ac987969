"""`steer evaluate vectors`: what edits along control vectors change, by the way in which the vectors were found.

The edit is that of arXiv 2510.23802 (section 2.2): alpha times a control vector is added to the SAE's features, for
alpha 1, 10, 20 and 30. That paper's probe weights and features have a scale of their own, which no other SAE shares. So
here alpha counts in steps of equal length: the vector is scaled so that one alpha moves the activation at the site (the
features' change times the SAE's decoder) by

    |shipped vector x W_dec| x RANGE / 30,

the length along which the shipped vector of that attribute does a 30th of `RANGE` (9 dB, 40 % of the centroid, 12
semitones) by its unit. At alpha 30 the shipped vector has done about what is useful; every other way, and the control,
a random direction of the activation drawn anew for each clip, has moved the activation exactly as far. Lengths are
those of the activation and not of the features since the model sees no others: features have directions that their
decoder maps to nothing.

Everything is measured against the sound of the input file, so alpha 0 (the plain round trip) is what the model itself
changes. Drift is the absolute change, at alpha 30, of what was not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from evaluation.dataset import LabelledSound, read_sounds
from evaluation.evaluators.options import SubsetsConfig, for_codecs
from evaluation.frame import Evaluator
from evaluation.intervals import SpokenClip, clips_in, clustered_bootstrap
from evaluation.report import Interval, Progress, Report, Row, TableRow, line
from hooks import Clip, Codec
from steer.acoustics import Acoustics, change, measure
from steer.edits import Shift
from steer.errors import EditError
from steer.formats import find_folder
from steer.recipe import VECTORS as FILE
from steer.recipe import Recipe
from steer.steered import SteeredModel
from steer.vectors import ControlVector, from_direction, load_vectors

ALPHAS = (1.0, 10.0, 20.0, 30.0)
RANGE = {"loudness": 9.0, "brightness": 40.0, "pitch": 12.0}
"""dB, % of the centroid and semitones by the shipped vector's unit at the last alpha."""
UNITS = {"loudness": "dB", "brightness": "%", "pitch": "semitones"}
DRIFTS = {"loudness": "dB", "brightness": "%", "pitch": "cents"}
RANDOM = "random"
SUBSETS = ("notes", "singing", "ljspeech", "speech_misc", "digits")
SECONDS = 3.0
"""How much of a clip is edited."""

Ways = Mapping[str, Mapping[str, ControlVector]]


class VectorsConfig(SubsetsConfig):
    """What edits of strength alpha 1, 10, 20 and 30 along control vectors change, and what drifts.

    For every way in which the vectors beside the SAE were found (least squares, pairs, probe), and for random
    directions that move the activation as far. At alpha 30 the shipped vector does about 9 dB, 40 %, 12 semitones.
    """

    clips: int = Field(default=8, ge=1, description="Maximum number of clips of a subset.")
    vectors: Any = Field(default=None, exclude=True, repr=False)
    """Control vectors by name, in place of those beside the SAE."""


def ways_of(vectors: Mapping[str, ControlVector]) -> dict[str, dict[str, ControlVector]]:
    """{attribute: {way: vector}} of a file that holds `pitch`, named `pitch-lstsq`, beside `pitch-pairs`; the shipped
    one first, and called `shipped` where it does not say its way.

    Raises:
        EditError: no vector of any attribute.
    """
    ways: dict[str, dict[str, ControlVector]] = {}
    for attribute in RANGE:
        if attribute in vectors:
            own = vectors[attribute]
            ways[attribute] = {own.name.partition("-")[2] or "shipped": own}
            prefix = f"{attribute}-"
            ways[attribute] |= {key.removeprefix(prefix): v for key, v in vectors.items() if key.startswith(prefix)}
    if not ways:
        raise EditError(f"there are no vectors for {', '.join(RANGE)}; there are {', '.join(vectors) or 'none'}")
    return ways


def site_of(steered: SteeredModel, vector: ControlVector) -> str:
    return vector.site if vector.site in steered.saes else next(iter(steered.saes))


def decoder_of(steered: SteeredModel, site: str) -> Tensor:
    """W_dec [F, D] on the CPU; raises EditError if the SAE has none that can be read."""
    W_dec = getattr(steered.saes[site], "W_dec", None)
    if not isinstance(W_dec, Tensor):
        raise EditError(f"the SAE at {site!r} has no decoder W_dec, so the length of its edits is not known")
    return W_dec.detach().float().cpu()


def one_alpha(steered: SteeredModel, shipped: ControlVector, attribute: str) -> float:
    """How far one alpha moves the activation."""
    W_dec = decoder_of(steered, site_of(steered, shipped))
    return float((shipped.vector @ W_dec).norm()) * RANGE[attribute] / ALPHAS[-1]


def of_length(vector: ControlVector, W_dec: Tensor, length: float) -> ControlVector:
    """The vector scaled so that it moves the activation by `length`."""
    return vector * (length / float((vector.vector @ W_dec).norm().clamp(min=1e-12)))


def random_direction(W_dec: Tensor, seed: int) -> ControlVector:
    """A direction of the activation, none more likely than another, as a vector of features."""
    direction_D = torch.randn(W_dec.shape[1], generator=torch.Generator().manual_seed(seed))
    return from_direction(direction_D, W_dec, RANDOM)


@torch.no_grad()
def moved(
    steered: SteeredModel, audio_BCN: Tensor, vector: ControlVector, site: str, strengths: Sequence[float]
) -> Tensor:
    """The sound with each strength along the vector, [strengths, C, N]."""
    model, many = steered.model, (len(strengths), -1, -1)
    shift = Shift(vector.vector, torch.tensor(strengths))
    if isinstance(model, Codec) and model.decode_passes(site):
        z_BTD = model.encode(audio_BCN)
        with steered.edit(shift, site=site):
            sound_BCN = model.decode(z_BTD.expand(many))
    else:
        with steered.edit(shift, site=site):
            sound_BCN = model.run(audio_BCN.expand(many))
    return sound_BCN[..., : audio_BCN.shape[-1]].float().cpu()


def start_of(steered: SteeredModel, clip: Clip, seconds: float = SECONDS) -> Tensor:
    """The first seconds of a clip as the model takes it, [1, C, N]."""
    return steered.model.prepare(Clip(clip.waveform[:, : round(seconds * clip.sample_rate)], clip.sample_rate))


def measured(steered: SteeredModel, before: Acoustics, sound_CN: Tensor, pitch: bool) -> dict[str, float | None]:
    assert steered.model.sample_rate is not None
    return change(before, measure(sound_CN, steered.model.sample_rate, pitch=pitch, lufs=False))


def clip_rows(steered: SteeredModel, ways: Ways, file: LabelledSound, clip: Clip, seed: int) -> list[Row]:
    """All edits of one clip; pitch is tracked where it is asked for, and at the last alpha."""
    audio_BCN = start_of(steered, clip)
    assert steered.model.sample_rate is not None
    before = measure(audio_BCN[0], steered.model.sample_rate, lufs=False)
    with torch.no_grad():
        plain_CN = steered.model.run(audio_BCN)[0, :, : audio_BCN.shape[-1]].float().cpu()
    plain = measured(steered, before, plain_CN, pitch=True)
    rows: list[Row] = []
    for attribute, some in ways.items():
        shipped = next(iter(some.values()))
        site = site_of(steered, shipped)
        W_dec, step = decoder_of(steered, site), one_alpha(steered, shipped, attribute)
        for way, vector in {**some, RANDOM: random_direction(W_dec, seed)}.items():
            head = {
                "clip": file.name,
                "speaker": file.speaker,
                "subset": file.subset,
                "attribute": attribute,
                "way": way,
            }
            rows.append({**head, "alpha": 0.0, **plain})
            outputs = moved(steered, audio_BCN, of_length(vector, W_dec, step), site, ALPHAS)
            for alpha, sound_CN in zip(ALPHAS, outputs, strict=True):
                pitch = attribute == "pitch" or alpha == ALPHAS[-1]
                rows.append({**head, "alpha": alpha, **measured(steered, before, sound_CN, pitch)})
    return rows


def correlation(changes_CA: np.ndarray, alphas: Sequence[float], clips: Sequence[SpokenClip]) -> Interval:
    """Pearson's r of alpha and change over all clips and alphas."""
    along_A = np.asarray(alphas) - np.mean(alphas)

    def pearson(index: np.ndarray) -> Any:
        some = changes_CA[index.astype(int)]
        some = some - some.mean()
        spread = np.sqrt(np.square(some).mean() * np.square(along_A).mean())
        return (some * along_A).mean() / np.maximum(spread, 1e-12)

    return clustered_bootstrap(list(range(len(changes_CA))), clips, pearson)


def summary(clips: Sequence[Row]) -> list[Row]:
    """A row for each attribute and way: the mean change at each alpha, r, and the mean drift at the last alpha."""
    rows = []
    for attribute, way in dict.fromkeys((row["attribute"], row["way"]) for row in clips):
        chosen = [row for row in clips if (row["attribute"], row["way"]) == (attribute, way)]
        by_clip: dict[SpokenClip, list[float | None]] = {}
        for one, clip in zip(chosen, clips_in(chosen), strict=True):
            by_clip.setdefault(clip, []).append(one[attribute])
        alphas = list(dict.fromkeys(row["alpha"] for row in chosen))
        full = {clip: values for clip, values in by_clip.items() if None not in values}
        changes_CA = np.asarray(list(full.values()), dtype=float).reshape(len(full), len(alphas))
        row: Row = {"attribute": f"{attribute} ({UNITS[attribute]})", "way": way, "clips": len(full)}
        row |= {
            f"alpha {alpha:g}": clustered_bootstrap(list(changes_CA[:, i]), list(full))
            for i, alpha in enumerate(alphas)
        }
        row["r"] = correlation(changes_CA, alphas, list(full)) if len(full) else None
        for other, unit in DRIFTS.items():
            last = [one for one in chosen if one["alpha"] == alphas[-1] and one[other] is not None]
            scale = 100 if other == "pitch" else 1
            drifts = [scale * abs(one[other]) for one in last] if other != attribute else []
            row[f"{other} drift ({unit})"] = clustered_bootstrap(drifts, clips_in(last)) if drifts else None
        rows.append(row)
    return rows


def run(config: VectorsConfig, progress: Progress = iter) -> Report:
    """Edit clips of a split along each way's vector of each attribute, and along random directions, and measure.

    Raises:
        EditError: no vectors of these attributes, or an SAE whose decoder cannot be read.
    """
    steered = config.steered()
    ways = ways_of(beside(config.recipe()) if config.vectors is None else config.vectors)
    sounds = config.dataset.sounds(config.chosen_subsets(SUBSETS), config.split, config.clips)
    rows: list[Row] = []
    for index, (file, clip) in progress(list(enumerate(read_sounds(sounds)))):
        rows += clip_rows(steered, ways, file, clip, config.seed + index)
    about = {
        "model": steered.model.name,
        "split": config.split,
        "one alpha": {name: one_alpha(steered, next(iter(some.values())), name) for name, some in ways.items()},
        "range": RANGE,
    }
    return Report("Edits along control vectors, by how they were found", summary(rows), rows, about)


def beside(recipe: Recipe) -> dict[str, ControlVector]:
    """The vectors that lie beside the SAEs, with the names that say how each was found."""
    found: dict[str, ControlVector] = {}
    for site, source in recipe.saes.items():
        path = find_folder(recipe.located(source)) / FILE
        for name, vector in load_vectors(path).items() if path.is_file() else ():
            found.setdefault(name, replace(vector, site=site))
    return found


def headline(report: Report) -> list[TableRow]:
    last = f"alpha {ALPHAS[-1]:g}"
    random = {row["attribute"]: row for row in report.rows if row["way"] == RANDOM}
    shipped = {row["attribute"]: row for row in reversed(report.rows)}
    return [
        line(f"change at {last}, {attribute}", row[last], random_directions=random[attribute][last])
        for attribute, row in reversed(shipped.items())
    ]


VECTORS = Evaluator(
    name="vectors",
    config=VectorsConfig,
    run=run,
    headline=headline,
    suits=for_codecs,
    extras=(("torchcrepe", "eval"),),
)
