"""`steer evaluate reconstruction`: see `evaluation.reconstruction`."""

from __future__ import annotations

from pydantic import Field

from evaluation import reconstruction
from evaluation.config import Names, Subject
from evaluation.evaluators.options import SubsetsConfig, for_codecs
from evaluation.frame import Evaluator, Progress
from evaluation.headline import line
from evaluation.report import Report, TableRow
from hooks import open_model
from steer.recipe import default_saes


class ReconstructionConfig(SubsetsConfig):
    """What the codec's plain round trip keeps, and what its quantiser and the SAE cost.

    Mel distance and SDR are measured for every sound; STOI, PESQ and DNSMOS (extra mos) for speech; the pitch for
    sounds that have one. A codec without an SAE of its own is measured without one.
    """

    subsets: Names = Field(
        default=(), description="Which subsets, with commas; chords and drums are made. Default: all that are there."
    )
    also: Names = Field(
        default=(),
        description="Another codec to measure too, with its own SAE if it has one. Repeatable.",
        json_schema_extra={"repeatable": True},
    )
    yardsticks: bool = Field(default=True, description="Measure MP3 and Opus too; this needs ffmpeg.")

    def open(self) -> Subject:
        if self.subject is None and self.model and not self.sae and not self.site and not default_saes(self.model):
            return open_model(self.model, device=self.device)
        return super().open()


def run(config: ReconstructionConfig, progress: Progress = iter) -> Report:
    others = {name: ReconstructionConfig(audio=config.audio, model=name, device=config.device) for name in config.also}
    return reconstruction.evaluate(
        config.open(),
        config.dataset,
        split=config.split,
        subsets=config.subsets or None,
        clips_per_subset=config.clips,
        also={name: other.open() for name, other in others.items()},
        with_yardsticks=config.yardsticks,
        progress=progress,
    )


def headline(report: Report) -> list[TableRow]:
    return [
        line(f"mel distance (dB) of the round trip, {row['clips']}", row["mel (dB)"], STOI=row["STOI"])
        for row in report.rows
        if row["path"] == "continuous"
    ]


RECONSTRUCTION = Evaluator(
    name="reconstruction",
    config=ReconstructionConfig,
    run=run,
    headline=headline,
    tables=reconstruction.by_subset,
    intervals=False,
    suits=for_codecs,
    extras=(("pystoi", "eval"), ("pesq", "eval")),
)
