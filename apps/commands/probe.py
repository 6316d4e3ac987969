"""`steer probe`: linear read-outs of pitch, loudness, brightness or a label from the features of an SAE."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import Force, Json, Means, output

if TYPE_CHECKING:
    from torch import Tensor

    from hooks.model import AudioModel
    from steer.probes import Bins

    Sample = tuple[Tensor, dict[str, Tensor]]


def probe(
    *,
    out: Annotated[Path, output("File of the probes (safetensors).")],
    inputs: Annotated[list[str] | None, typer.Argument(help="Sound files, folders or quoted globs.")] = None,
    attributes: Annotated[str, typer.Option(help="What to read, separated by commas.")] = "pitch,loudness,brightness",
    labels: Annotated[
        str | None, typer.Option(help="Instead: a column of a CSV that has a column path: sounds.csv:speaker.")
    ] = None,
    means: Means,
    frames: Annotated[int, typer.Option(min=100, help="At most this many frames are trained on.")] = 10_000,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Train linear probes on the features of sounds; a fifth of the sounds is held out to test them.

    Of fewer than five sounds the last fifth of each is, which is easier to read than other sounds are.
    """
    from apps.feature_lists import features_of
    from apps.files import to_json
    from apps.inputs import sounds_of
    from apps.progress import track
    from hooks.clip import check_target
    from steer.errors import ProbeError
    from steer.probes import fit_probe, named_bins, save_probes

    check_target(out, force)
    names: list[str] = []
    if labels is not None:
        by_path, names = read_labels(labels)
        wanted, paths = [labels.rpartition(":")[2]], list(by_path)
    else:
        wanted = attributes.split(",")
        if unknown := set(wanted) - {"pitch", "loudness", "brightness"}:
            raise ProbeError(f"--attributes: {', '.join(sorted(unknown))} is not one of pitch, loudness, brightness")
        paths = sounds_of(inputs or [])
    steered = means.recipe().open()
    if len(steered.sites) > 1:
        raise ProbeError(f"{means.model} has SAEs at {', '.join(steered.sites)}: choose one with --site")
    place = next(iter(steered.sites))
    sounds: list[tuple[Tensor, dict[str, Tensor]]] = []
    for path in track(paths, "features"):
        f_TF = features_of(steered, path)[place]
        if labels:
            values = {wanted[0]: constant(by_path[path], len(f_TF))}
        else:
            values = measured(steered.model, place, path, len(f_TF), wanted)
        sounds.append((f_TF, values))
    trained, tested = split(sounds, frames)
    probes, report = {}, {}
    for name in wanted:
        values_N = trained[1][name]
        bins = named_bins(name, names) if labels else bins_for(name, values_N)
        probes[name] = fit_probe(trained[0], values_N, bins, site=place)
        report[name] = scores(probes[name], tested[0], tested[1][name])
    save_probes(probes, out)
    if as_json:
        print(to_json({"probes": str(out), "tested_on": held_out(len(sounds)), **report}))
        return
    for name, numbers in report.items():
        print(f"{name}: {', '.join(f'{key} {value:.3g}' for key, value in numbers.items())}")
    print(f"tested on {held_out(len(sounds))}")


def read_labels(text: str) -> tuple[dict[Path, int], list[str]]:
    """{file: class} and the classes' names, from `file.csv:column`; paths are relative to the file.

    Raises:
        ProbeError: the file cannot be read or lacks a column.
    """
    from steer.errors import ProbeError

    name, _, column = text.rpartition(":")
    try:
        with open(name, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProbeError(
            f"--labels {text}: {name!r} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not rows or not {"path", column} <= set(rows[0]):
        raise ProbeError(f"--labels {text}: needs rows with the columns path and {column}")
    rows = [row for row in rows if row[column]]
    names = sorted({row[column] for row in rows})
    return {Path(name).parent / row["path"]: names.index(row[column]) for row in rows}, names


def constant(value: int, count: int) -> Tensor:
    import torch

    return torch.full((count,), float(value))


def measured(model: AudioModel, site: str, path: Path, count: int, wanted: Sequence[str]) -> dict[str, Tensor]:
    """Values [count] of attributes on a site's frames.

    Raises:
        ProbeError: the site's frame rate is not known.
    """
    from steer import frame_labels
    from steer.errors import ProbeError

    frame_rate = model.site(site).frame_rate
    if frame_rate is None or model.sample_rate is None:
        raise ProbeError(f"site {site!r}: its frame rate is not known, so frames cannot be measured")
    measures: dict[str, Callable[..., Tensor]] = {
        "pitch": frame_labels.pitch_midi,
        "loudness": frame_labels.loudness_db,
        "brightness": frame_labels.centroid_hz,
    }
    audio_CN = model.prepare(path)[0].float().cpu()
    return {name: measures[name](audio_CN, model.sample_rate, frame_rate, count) for name in wanted}


def bins_for(name: str, values_N: Tensor) -> Bins:
    from steer.probes import linear_bins, pitch_bins

    units = {"loudness": "dB", "brightness": "Hz"}
    return pitch_bins() if name == "pitch" else linear_bins(name, units[name], values_N)


FEWEST, OTHERS, THE_SAME = 5, "other sounds", "the same sounds, the last fifth of each: other sounds are harder to read"


def held_out(sounds: int) -> str:
    """What `split` leaves of so many sounds to test on."""
    return OTHERS if sounds >= FEWEST else THE_SAME


def split(sounds: Sequence[Sample], frames: int) -> tuple[Sample, Sample]:
    """Frames to train on (`frames` at most) and to test on: every fifth sound or, of few, the last fifth of each."""
    import torch

    def joined(parts: Sequence[Sample]) -> Sample:
        keys: Mapping[str, Any] = parts[0][1]
        return torch.cat([f for f, _ in parts]), {key: torch.cat([values[key] for _, values in parts]) for key in keys}

    if held_out(len(sounds)) == OTHERS:
        train, test = [s for i, s in enumerate(sounds) if i % 5 != 4], [s for i, s in enumerate(sounds) if i % 5 == 4]
    else:
        cuts = [4 * len(f) // 5 for f, _ in sounds]
        train = [
            (f[:cut], {key: v[:cut] for key, v in values.items()})
            for cut, (f, values) in zip(cuts, sounds, strict=True)
        ]
        test = [
            (f[cut:], {key: v[cut:] for key, v in values.items()})
            for cut, (f, values) in zip(cuts, sounds, strict=True)
        ]
    f_NF, values = joined(train)
    kept = torch.linspace(0, len(f_NF) - 1, min(frames, len(f_NF))).long()
    return (f_NF[kept], {key: value[kept] for key, value in values.items()}), joined(test)


def scores(probe: Any, f_NF: Tensor, values_N: Tensor) -> dict[str, float]:
    """Accuracy on held-out frames, that of always saying the most frequent class, and the mean error in the unit."""
    kept = values_N.isfinite()
    if not kept.any():
        return {}
    classes_N = probe.bins.classes(values_N[kept])
    result = {
        "accuracy": probe.accuracy(f_NF, values_N),
        "chance": float((classes_N == probe.counts.argmax()).float().mean()),
    }
    if not probe.bins.names:
        result[f"mean error ({probe.bins.unit})"] = float(
            (probe.expected_value(f_NF[kept]) - values_N[kept]).abs().mean()
        )
    return result
