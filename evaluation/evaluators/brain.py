"""`steer evaluate brain`: see `evaluation.brain` (the protocol), `brain_study`, `brain_gain` and `brain_power`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from evaluation import brain_power, brain_study, figures
from evaluation.atlas import Atlas
from evaluation.brain import BrainError, Tracks
from evaluation.brain_gain import check_shifts
from evaluation.brain_map import channel_map, draw_bars, draw_head
from evaluation.brain_study import SAE_FEATURES, Settings, Sounds
from evaluation.config import Config, EvaluationError, split_names
from evaluation.dataset import Dataset
from evaluation.eeg import OWN_READERS, Reference
from evaluation.eeg_dataset import EEGDataset, eeg_dataset, listening
from evaluation.evaluators.options import CountOrAll
from evaluation.feature_tracks import Resampling
from evaluation.figures import Panel, finish
from evaluation.frame import Evaluator, digest_of_module
from evaluation.report import Progress, Report, Row, TableRow, line
from evaluation.trf import Lags
from hooks import read_clip
from hooks.errors import require
from steer import SAE, starter
from steer.steered import SteeredModel

Pair = Annotated[tuple[float, float], BeforeValidator(split_names)]
LISTED = 20
"""Features in the table that is shown."""
SHARES = ("train", "valid", "test")


class BrainConfig(Config):
    """Which features of an SAE follow the EEG of people who hear the same sound, and how much beyond its loudness.

    The manifest has a row for each subject and run: subject, run, audio, eeg (.mat, .npz, or what MNE reads), start_s
    (where in the EEG the sound starts) and split (dev, test). `steer manifest broderick` writes one.

    With --simulate no EEG is needed: it is simulated over any recordings, so that what should be found is known.
    """

    audio: Path = Field(
        alias="manifest",
        description="CSV file with the columns subject, run, audio, eeg, start_s, split; with --simulate the folder or "
        "manifest of any recordings.",
        json_schema_extra={"also": ["--audio"]},
    )
    clips: int = Field(default=1000, ge=1, description="Maximum number of runs (simulated: of clips) of each split.")
    channel: str = Field(default="Pz", description="Channel of the EEG; on a BioSemi cap of 128 Pz is A19.")
    lags: Pair = Field(default=(0.0, 0.5), description="First and last lag in seconds.")
    features: CountOrAll = Field(default=1000, description="How many features are drawn at random, or all.")
    fires: float = Field(default=1.0, ge=0, description="Frames a second in which a feature fires at least.")
    rate: float = Field(default=128.0, ge=20, le=1000, description="Sampling rate in Hz at which TRFs are fitted.")
    band: Pair = Field(default=(1.0, 8.0), description="Band of the EEG in Hz.")
    reference: Reference = Field(
        default="mastoids", description="What is taken off: the mean of the mastoids (where stored), of all channels."
    )
    resampling: Resampling = Field(default="linear", description="How features come to the rate of the EEG.")
    ridge: float | None = Field(default=None, gt=0, description="Default: chosen by leaving out dev runs.")
    shifts: int = Field(default=200, ge=0, description="Circular shifts of each feature that was found.")
    joint: int = Field(default=50, ge=0, description="Number of features in the joint model; 0: none.")
    atlas: Path | None = Field(default=None, description="Atlas of the SAE, for labels. Default: the one that ships.")
    map: bool = Field(default=False, description="Map the surest features over all channels.")
    simulate: bool = Field(default=False, description="Simulate the EEG, and say how much of it is found.")
    rounds: int = Field(default=5, ge=1, description="Simulations of each kind, with --simulate.")

    default_model = "starter:ssl"

    @model_validator(mode="after")
    def in_order(self) -> BrainConfig:
        ranges = (("lags", self.lags, (-5.0, 5.0)), ("band", self.band, (0.01, self.rate / 2.1)))
        for name, (low, high), (least, most) in ranges:
            if not least <= low < high <= most:
                raise EvaluationError(
                    f"--{name} {low:g},{high:g}: give two numbers from {least:g} to {most:.3g}, the lower one first"
                )
        return self

    @property
    def dataset(self) -> Dataset:
        if self.simulate:
            return super().dataset
        return eeg_dataset(self.audio, self.columns, self.splits)

    def settings(self) -> Settings:
        lags = Lags.between(*self.lags, self.rate)
        return Settings(lags, self.features, self.fires, self.ridge, self.shifts, self.joint, self.seed)

    def one_site(self, steered: SteeredModel) -> str:
        """Where the features are: at the site that is named, or the last one."""
        return self.site or list(steered.saes)[-1]

    def labels(self, steered: SteeredModel, site: str) -> Atlas | None:
        """Of --atlas, or what ships with the SAE.

        Raises:
            AtlasError: the file is not an atlas, or of another SAE.
        """
        sae: Any = steered.saes[site]
        if self.atlas is not None:
            atlas = Atlas.load(self.atlas)
            atlas.check_fits(site, getattr(sae, "d_sae", atlas.d_sae))
            return atlas
        name = f"{sae.info.model}/{sae.info.site}" if isinstance(sae, SAE) else ""
        if name not in starter.saes(name.rpartition("/")[0]) or not starter.atlas_file(name).is_file():
            return None
        # an SAE of one's own may be for the same site
        return Atlas.load(name) if digest_of_module(SAE.load(name)) == digest_of_module(sae) else None


def run(config: BrainConfig, progress: Progress = iter) -> Report:
    if config.simulate:
        return simulated(config, progress)
    dataset = config.dataset
    assert isinstance(dataset, EEGDataset)
    rows = listening(dataset, config.clips)
    if any(row.eeg.suffix.lower() not in OWN_READERS for row in rows.rows):
        require("mne", "eeg")  # before the first file is read
    steered = config.steered()
    site = config.one_site(steered)
    atlas = config.labels(steered, site)
    lengths_s = {run: clip.waveform.shape[-1] / clip.sample_rate for run, clip in read_runs(rows.audio).items()}
    study = rows.study(config.channel, lengths_s, config.rate, config.band, config.reference, progress)
    if config.ridge is None:
        study.check_ridge()
    if config.shifts:
        check_shifts(study)
    where = steered.sites[site]
    sounds = Sounds.of(steered.model, where, rows.audio, config.rate, config.resampling, progress)
    settings = config.settings()

    def over_channels(tracks: Tracks, at_F: Sequence[int], ridge: float) -> tuple[tuple[str, ...], Tensor]:
        return channel_map(
            rows, tracks, at_F, settings.lags, ridge, lengths_s,
            rate=config.rate, band=config.band, reference=config.reference, progress=progress,
        )  # fmt: skip

    mapped = over_channels if config.map else None
    report = brain_study.evaluate(steered, site, study, sounds, settings, atlas, mapped, progress)
    more = {"channel": config.channel, "band in Hz": list(config.band), "reference": config.reference}
    report.about = {**report.about, **more}
    return report


def read_runs(audio: dict[str, Path]) -> dict[str, Any]:
    return {run: read_clip(path) for run, path in audio.items()}


def simulated(config: BrainConfig, progress: Progress) -> Report:
    steered = config.steered()
    site = config.one_site(steered)
    there = config.dataset.check()
    clips = {
        sound.name: sound
        for split in SHARES
        if there.has_split(split)
        for sound in there.sounds(split=split, limit=config.clips)
    }
    assert steered.model.sample_rate is not None
    runs = brain_power.runs_of(clips.values(), steered.model.sample_rate)
    development = brain_power.development_of(list(runs))
    if len(development) < 2 or len(development) == len(runs):
        minutes = sum(clip.waveform.shape[-1] / clip.sample_rate for clip in runs.values()) / 60
        raise BrainError(
            f"{config.audio}: {minutes:.1f} minutes of sound in {len(runs)} runs; a simulation needs 4 runs or more of "
            f"{brain_power.RUN_S / 60:g} minutes"
        )
    sounds = Sounds.of(steered.model, steered.sites[site], runs, config.rate, config.resampling, progress)
    return brain_power.evaluate(steered, site, sounds, config.settings(), config.rounds, progress)


def is_simulation(report: Report) -> bool:
    return "simulated" in report.rows[0]


def tables(report: Report) -> list[Report]:
    """The summary, and the features that were found, the surest first."""
    found = [row for row in report.clips if row["found"]] if not is_simulation(report) else []
    heads = ("feature", "lag in ms", "t", "Holm's p", "r", "gain in r", "gain, Holm's p", "gain, p by shifts", "labels")
    listed: list[Row] = [{head: row.get(head) for head in heads if head in found[0]} for row in found[:LISTED]]
    if not listed:
        return [report]
    return [report, Report(f"Features that were found ({len(listed)} of {len(found)})", listed)]


# --- figures ---


def figure(report: Report) -> Any:
    if is_simulation(report):
        planted = next(name for name in report.rows[0] if name.startswith("planted found"))
        panels = [power(report, "Planted features found", planted), power(report, "Others found", "others found")]
    else:
        wanted = [responses(report), lags_found(report), against_shifts(report), *heads(report)]
        panels = [panel for panel in wanted if panel is not None]
    return figures.figure(panels, report.title) if panels else None


def power(report: Report, title: str, column: str) -> Panel:
    """Features found over the size of their responses, a line for each number of subjects."""

    def draw(axes: Any) -> None:
        rows = [row for row in report.rows if row["simulated"] != brain_power.ENVELOPE]
        for subjects, colour in zip(dict.fromkeys(row["subjects"] for row in rows), figures.SERIES, strict=False):
            own = [row for row in rows if row["subjects"] == subjects and row[column] is not None]
            places = [row["r"] or 0.0 for row in own]
            values = [row[column] for row in own]
            axes.errorbar(
                places, [value.value for value in values], yerr=figures.whiskers(values, 1),
                color=colour, marker="o", capsize=2, label=f"{subjects} subjects",
            )  # fmt: skip
        axes.set(xlabel="correlation of each response with the EEG (0: noise alone)", ylabel=column)
        finish(axes, title, "both", legend=True)

    return 12, draw


def responses(report: Report) -> Panel | None:
    """Mean TRFs of the surest features, with the standard error over subjects."""
    kept = report.about["TRFs"]
    if not kept["features"]:
        return None

    def draw(axes: Any) -> None:
        for name, trf in kept["features"].items():
            (drawn,) = axes.plot(kept["lags in ms"], trf["mean"], label=f"feature {name}")
            low, high = ([m + sign * e for m, e in zip(trf["mean"], trf["error"], strict=True)] for sign in (-1, 1))
            axes.fill_between(kept["lags in ms"], low, high, alpha=0.2, color=drawn.get_color())
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel="lag in ms", ylabel="weight")
        finish(axes, "Responses on test runs", "both", legend=True)

    return 12, draw


def heads(report: Report) -> list[Panel]:
    """A panel for each feature that was mapped over all channels."""
    maps = report.about.get("t by channel", {"channels": [], "features": {}})

    def panel(name: str, t_C: Sequence[float]) -> Panel:
        def draw(axes: Any) -> None:
            if not draw_head(axes, t_C, maps["channels"]):
                draw_bars(axes, t_C, maps["channels"])
            axes.set_title(f"feature {name}: t over subjects, {min(t_C):.1f} to {max(t_C):.1f}")

        return 9, draw

    return [panel(name, t_C) for name, t_C in maps["features"].items()]


def lags_found(report: Report) -> Panel | None:
    found = [row["lag in ms"] for row in report.clips if row["found"]]
    if not found:
        return None

    def draw(axes: Any) -> None:
        low, high = report.about["TRFs"]["lags in ms"][0], report.about["TRFs"]["lags in ms"][-1]
        axes.hist(found, bins=20, range=(low, high), color=figures.RESULT)
        axes.set(xlabel="lag in ms", ylabel="features found")
        finish(axes, "Lags of the features found", "y", legend=False)

    return 12, draw


def against_shifts(report: Report) -> Panel | None:
    """The correlation of each feature found, over what 95 % of its circular shifts stay under."""
    column = "r of 95 % of shifts is below"
    rows = [row for row in report.clips if row.get(column) is not None]
    if not rows:
        return None

    def draw(axes: Any) -> None:
        for beyond, colour, label in ((False, figures.OTHERS, "found"), (True, figures.RESULT, "beyond the envelope")):
            some = [row for row in rows if row["beyond envelope and onset"] == beyond]
            axes.scatter([row[column] for row in some], [row["r"] for row in some], s=16, color=colour, label=label)
        ends = [min(0.0, *(row["r"] for row in rows)), max(row["r"] for row in rows)]
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set(xlabel="r that 95 % of circular shifts stay under", ylabel="r on test runs")
        finish(axes, "Correlation against circular shifts", "both", legend=True)

    return 12, draw


def headline(report: Report) -> Sequence[TableRow]:
    if is_simulation(report):
        return []
    row = next(row for row in report.rows if row["stimulus"] == SAE_FEATURES)
    return [line("features that follow the EEG", row["found"], tested=row["tested"])]


BRAIN = Evaluator(
    name="brain",
    config=BrainConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    plan=lambda shared: "it needs a manifest of EEG; run steer evaluate brain by itself",
    extras=(("matplotlib", "eval"), ("scipy", "eeg")),
)
