"""The evaluations that `steer evaluate all` puts together, and what the result of each depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from apps.commands.evaluate_speech import keep_recipe
from apps.flags import RECOGNISER, recogniser_recipe
from apps.progress import track
from evaluation import concept_sets, concepts, downstream, false_alarms, figures, stability, transcripts
from evaluation.ablation import Progress
from evaluation.labels import MANIFEST, labelled_sounds, subsets_in
from evaluation.report import Report
from evaluation.seeds import StabilityError, folders_in, seeds_in
from evaluation.suite import Part, SuiteError, fingerprint, fingerprint_of_manifests
from hooks import AudioFileError, ModelError
from hooks.model import Encoder, Transcriber
from steer.delta import Mode
from steer.recipe import Recipe, default_saes
from steer.steered import SteeredModel

RANK: concepts.Rank = "contribution"
MODE: Mode = "reconstruct"
"""How concepts are removed."""
MEASURES = 2
"""Counted up whenever an evaluator computes something else, so that results of before are measured again."""


@dataclass(frozen=True)
class Setup:
    """What all evaluations share."""

    base: Recipe
    steered: SteeredModel
    seeds: Path | None
    audio: Path
    out: Path
    clips: int

    @classmethod
    def of(
        cls, model: str | None, sources: Sequence[str], seeds: Path | None, audio: Path, out: Path, clips: int
    ) -> Setup:
        """With the SAEs that are named, else the model's own, else the first of the seeds.

        Raises:
            ModelError: a model that cannot be opened, or no speech model.
            RecipeError, SAEError, SiteError: SAEs that are not there or do not fit.
            AudioFileError: no folder of recordings.
        """
        if not subsets_in(audio):
            raise AudioFileError(f"{audio}: no folders with a {MANIFEST} there")
        folders = folders_in(seeds) if seeds else {}
        if seeds and not folders:
            raise StabilityError(f"{seeds}: no SAEs there; they would be in SITE/seed-N/")
        if not sources and not default_saes(model or RECOGNISER):
            sources = [str(paths[0]) for paths in folders.values()]
        base = recogniser_recipe(None, model, sources)
        steered = base.open()
        if not isinstance(steered.model, Transcriber | Encoder):
            raise ModelError(
                f"{steered.model.name} is a {steered.model.kind}, and this is for speech models; see steer evaluate "
                "acoustics and steer evaluate reconstruction"
            )
        return cls(base, steered, seeds, audio, out, clips)

    def parts(self, kinds: Sequence[str], sites: str, points: int) -> tuple[list[Part], dict[str, str]]:
        """What to measure, and what is left out and why."""
        parts: list[Part] = []
        left_out = {}
        if isinstance(self.steered.model, Transcriber):
            parts.append(self.false_alarms())
        else:
            left_out["false-alarms"] = f"{self.steered.model.name} writes no words"
        parts += [self.removal(kind, site, points) for site in self.chosen(sites) for kind in kinds]
        if self.seeds:
            parts.append(self.stability(self.seeds))
        else:
            left_out["stability"] = "it takes SAEs of several seeds, as steer train --seeds makes them: pass --saes"
        parts.append(self.downstream())
        return parts, left_out

    def chosen(self, text: str) -> list[str]:
        """Sites to remove concepts at: there has to be one behind them to read at.

        Raises:
            SuiteError: a site without an SAE.
        """
        encoder = [name for name in self.steered.model.sites if not name.startswith("decoder")]
        able = [name for name in encoder[:-1] if name in self.steered.saes]
        if text == "all":
            return able
        if text == "middle":
            return able[len(able) // 2 :][:1]
        names = text.split(",")
        for name in names:
            if name not in self.steered.saes:
                raise SuiteError(
                    f"--sites: there is no SAE at {name!r}; there are SAEs at {', '.join(self.steered.saes)}"
                )
        return names

    def settings(self, sites: Sequence[str], **more: Any) -> dict[str, Any]:
        """What a result depends on."""
        saes = {site: fingerprint(self.steered.saes[site]) for site in sites}  # type: ignore[arg-type]
        return {**self.shared, "saes": saes, **more}

    @cached_property
    def shared(self) -> dict[str, Any]:
        return {
            "model": self.steered.model.name,
            "weights": fingerprint(self.steered.model.module),
            "audio": fingerprint_of_manifests(self.audio),
            "clips": self.clips,
            "measures": MEASURES,
        }

    def false_alarms(self) -> Part:
        def measure() -> Report:
            sets = transcripts.sets_from_folder(self.audio, self.clips)
            outcome = false_alarms.evaluate(self.steered, *sets, progress=bar("false alarms"))
            print(keep_recipe(outcome, self.base, self.out))
            return outcome.report

        settings = self.settings(list(self.steered.saes))
        return Part("false-alarms", settings, measure, lambda report: figures.figure(figures.false_alarms(report)))

    def removal(self, kind: str, site: str, points: int) -> Part:
        name = f"ablation-{kind}-{site}"

        def measure() -> Report:
            sets = concept_sets.from_folder(self.audio, [kind], limit=self.clips)
            return concepts.evaluate(
                self.steered, *sets, site=site, points=points, rank=RANK, mode=MODE, progress=bar(name)
            )

        return Part(name, self.settings([site], points=points, rank=RANK, mode=MODE), measure, concepts.draw)

    def stability(self, folder: Path) -> Part:
        seeds = seeds_in(folder)

        def measure() -> Report:
            sounds = labelled_sounds(self.audio, None, "test", self.clips)
            return stability.of_sounds(self.steered.model, seeds, sounds, progress=bar("stability"))

        marks = {site: [fingerprint(sae) for sae in some] for site, some in seeds.items()}
        return Part(
            "stability",
            self.settings([], seeds=marks),
            measure,
            lambda report: figures.figure([figures.stability(report)]),
        )

    def downstream(self) -> Part:
        saes = {site: [sae] for site, sae in self.steered.saes.items()}

        def measure() -> Report:
            sets = downstream.from_folder(self.steered.model, self.audio, self.clips, ["test"])
            return downstream.evaluate(self.steered.model, saes, *sets, progress=bar("downstream"))

        return Part(
            "downstream",
            self.settings(list(saes)),
            measure,
            lambda report: figures.figure([figures.downstream(report)]),
        )


def bar(what: str) -> Progress:
    return lambda jobs: track(jobs, what)
