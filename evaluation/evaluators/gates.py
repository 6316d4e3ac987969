"""`steer evaluate gates`: see `evaluation.gate_study`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from evaluation import figures, gate_fits, gate_rows, gate_study
from evaluation.concept_sets import has_speech
from evaluation.config import RECOGNISER, Config, Names
from evaluation.dataset import LabelledSound
from evaluation.evaluators.false_alarms import Counts, suits
from evaluation.frame import Evaluator, depends_on
from evaluation.report import Progress, Report, TableRow, line
from evaluation.transcripts import clips_of, defaults
from steer.edits import AddDirection
from steer.recipe import Recipe
from steer.vectors import ControlVector, save_vectors

FAST = {"clips": 20, "train": 40, "synthetic": 42, "draws": 1}
FULL = {"clips": 2**31, "train": 250, "synthetic": 140, "draws": 3}


class GatesConfig(Config):
    """Words that a recogniser invents where nobody speaks, and gates that take them away; with hard cases.

    Gates on the largest number of features are saved with the shifts behind them, for `steer transcribe --recipe` and
    `steer recipe pack`: clip.yaml decides for each sound, second.yaml by the second, for recordings in which speech and
    other sounds follow each other.

    Transcripts are kept in the folder as they come: the same command goes on where a stopped one was.
    """

    preset: Literal["fast", "full"] = Field(default="full", description="fast: fewer clips, and only the case clean.")
    cases: Names = Field(default=(), description=f"Of {', '.join(gate_study.CASES)}, with commas. Default: all.")
    ks: Counts = Field(default=gate_study.KS, description="Numbers of features of gates.")
    no_speech: Names = Field(default=(), description="Subsets without speech; by default as the manifests say.")
    speech: Names = Field(default=(), description="Subsets with speech, of them clips with a text.")
    sung: Names = Field(
        default=("singing",), description="Subsets of a voice without words, which no gate is fitted on."
    )
    guarded: bool = Field(
        default=False, description="openai-whisper's own defaults: temperatures and thresholds, instead of greedy."
    )

    default_model = RECOGNISER
    divide = True


def run(config: GatesConfig, progress: Progress = iter) -> Report:
    preset = FAST if config.preset == "fast" else FULL
    steered = config.steered()
    clips = min(config.clips, preset["clips"])
    which = (config.no_speech, config.speech)
    train = clips_of(config.dataset, "train", max(clips, preset["train"]), *which, untranscribed=True)
    valid = clips_of(config.dataset, "valid", clips, *which, untranscribed=True)
    test = clips_of(config.dataset, "test", clips, *which)
    spoken, sung = voices(config)
    options: Mapping[str, Any] = {"language": "en"} if config.guarded else defaults(steered.model)
    # of another choice of cases the transcripts are the same
    same = config.model_copy(update={"subject": steered, "cases": (), "ks": (), "sung": ()})
    settings = json.dumps(depends_on(GATES, same), sort_keys=True)
    default = ("clean",) if config.preset == "fast" else gate_study.CASES
    report, edits = gate_study.evaluate(
        steered,
        train,
        valid,
        test,
        options,
        speech=spoken,
        sung=sung,
        site=config.site,
        ks=config.ks,
        cases=config.cases or default,
        synthetic=preset["synthetic"],
        draws=preset["draws"],
        by_second=config.preset == "full",
        seed=config.seed,
        out=config.out,
        settings=settings,
        progress=progress,
    )
    if config.out is not None:
        report.about = {**report.about, "notes": keep(edits, config.recipe(), config.out)}
    return report


def voices(config: GatesConfig) -> tuple[list[LabelledSound], list[LabelledSound]]:
    """Of the test split all clips with speech, also those without a text, and all of a voice without words."""
    sounds = config.dataset.sounds(None, "test", None, ("text", "label", "speech"))
    spoken = [one for one in sounds if (one.subset in config.speech if config.speech else has_speech(one.labels))]
    return spoken, [one for one in sounds if one.subset in config.sung and one not in spoken]


def keep(edits: Mapping[str, AddDirection], base: Recipe, out: Path) -> list[str]:
    """Save shifts with their gates, and a recipe of each where the options name the model."""
    notes = []
    for kind, edit in edits.items():
        gate = edit.when
        assert gate is not None
        site, model, files = gate.site, gate.probe.model, (f"{kind}.gate.safetensors", f"{kind}.shift.safetensors")
        gate.save(out / files[0])
        save_vectors({"shift": ControlVector(edit.vector, "no speech", "", site, model)}, out / files[1])
        if base.located(base.model) != model:
            continue
        values = {"add_direction": f"{files[1]}#shift", "site": site, "when": files[0]}
        named = {"model": base.located(base.model), "saes": {site: base.located(base.saes[site])}}
        recipe = Recipe.build(named, folder=Path.cwd()).to_dict(out) | {"edits": [values]}
        path = Recipe.build(recipe, f"{kind}.yaml", out).save(out / f"{kind}.yaml", force=True)
        notes.append(f"the gate by {kind} on the largest number of features, with the shift behind it, is {path}")
    return notes or ["gates and shifts are saved; there is no recipe, since the model was not opened by its name"]


def headline(report: Report) -> list[TableRow]:
    rows: dict[Any, Any] = {row["method"]: row for row in report.rows if row["case"] == "clean"}
    name = f"{gate_fits.ALL}, fitted shift"
    if name not in rows:
        return []
    gated, vad = rows[name], rows.get(f"{gate_fits.VAD}, chosen", gate_rows.EMPTY)
    return [
        line("invented words gone by a gate", gated["gone"], Silero_VAD=vad["gone"]),
        line("clips with speech that it changes", gated["changed"], Silero_VAD=vad["changed"]),
    ]


def figure(report: Report) -> Any:
    rows = [row for row in report.rows if row["case"] == "clean"]
    names = [str(row["method"]) for row in rows]
    shown: Any = {column: [row[column] for row in rows] for column in ("alarms", "WER")}
    titles = (("alarms", "Words where nobody speaks", "% of the clips"), ("WER", "Word errors", "WER in %"))
    chosen = [name for name in names if name.endswith("fitted shift") and "random" not in name]
    if not rows:
        return None
    return figures.figure(
        [figures.bars(title, unit, names, {"": shown[column]}, result=chosen) for column, title, unit in titles],
        report.title,
    )


GATES = Evaluator(
    name="gates",
    config=GatesConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=gate_rows.by_case,
    suits=suits,
    plan=lambda shared: "it takes long; run steer evaluate gates by itself",
    extras=(("matplotlib", "eval"), ("sklearn", "eval"), ("jiwer", "whisper")),
)
