"""`steer evaluate ablation`, `false-alarms` and `stability`: what SAEs of a speech model are good for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apps.options import MEANS, Model, Sae, SaeSite

if TYPE_CHECKING:
    from evaluation.false_alarms import Outcome
    from steer.recipe import Recipe


def ablation(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    audio: Annotated[Path | None, typer.Option(help="Folder of subsets, each with a manifest.csv.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Instead: columns of a CSV that has a column path: sounds.csv:label,speaker.")
    ] = None,
    concepts: Annotated[
        str, typer.Option(help="sound, keyword, digit, speaker, speech; or one of a kind: sound=rain. With commas.")
    ] = "",
    split: Annotated[str, typer.Option(help="Clips that are held out, with commas.")] = "valid,test",
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset and split.")] = 200,
    points: Annotated[int, typer.Option(min=2, help="How many numbers of features to try.")] = 12,
    draws: Annotated[int, typer.Option(min=0, help="Draws of random features.")] = 3,
    later: Annotated[str | None, typer.Option(help="Site to read at; else the encoder's last.")] = None,
    rank: Annotated[
        Literal["contribution", "fisher"], typer.Option(help="By what features carry of the concept, or tell of it.")
    ] = "contribution",
    mode: Annotated[
        Literal["reconstruct", "delta"], typer.Option(help="Without or with what the SAE cannot explain.")
    ] = "reconstruct",
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
) -> None:
    """How few features have to go until a concept cannot be read from the running model, and what else goes with it."""
    from apps.flags import RECOGNISER, recipe_of
    from apps.progress import track
    from apps.results import keep, results_in
    from evaluation.concept_sets import LabelError, from_csv, from_folder
    from evaluation.concepts import draw, evaluate
    from hooks.errors import require

    require("matplotlib", "eval")  # told before the work is done
    wanted = [name for name in concepts.split(",") if name]
    held_out = split.split(",")
    if (audio is None) == (labels is None):
        raise LabelError("say which clips: either --audio FOLDER or --labels FILE.csv:COLUMN")
    if audio is not None:
        kinds = dict.fromkeys(name.partition("=")[0] for name in wanted or ["sound"])
        sets = from_folder(audio, list(kinds), held_out, clips)
    else:
        file, colon, columns = str(labels).rpartition(":")
        sets = (
            from_csv(Path(file), columns.split(","), held_out) if colon else from_csv(Path(columns), held_out=held_out)
        )
    with results_in(out):
        name = model or (None if sae else RECOGNISER)
        steered = recipe_of(None, {}, [], [], None, name, sae, site).open()
        report = evaluate(
            steered,
            *sets,
            wanted,
            later=later,
            points=points,
            draws=draws,
            rank=rank,
            mode=mode,
            progress=lambda jobs: track(jobs, "ablation"),
        )
        keep(report, out, "ablation", draw(report))


def false_alarms(
    audio: Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    no_speech: Annotated[
        str | None, typer.Option(help="Subsets without speech; by default sounds, noise, music and notes.")
    ] = None,
    speech: Annotated[
        str | None, typer.Option(help="Subsets with speech, of them clips with a text; by default all that speak.")
    ] = None,
    clips: Annotated[
        int, typer.Option(min=1, help="At most this many clips of a subset and split (100 to learn from).")
    ] = 40,
    words: Annotated[
        int | None,
        typer.Option(min=0, help="Word errors more on validation clips; by default one in 200 words, at least one."),
    ] = None,
    counts: Annotated[str, typer.Option(help="Numbers of features to try, a site.")] = "10,30,100,300",
    strengths: Annotated[str, typer.Option(help="Strengths to try.")] = "1,3,9",
    fit_steps: Annotated[int, typer.Option(min=0, help="Steps in which factors are fitted; 0: only ranked.")] = 400,
    draws: Annotated[int, typer.Option(min=0, help="Draws of random features.")] = 5,
    model: Model = None,
    sae: Annotated[
        list[str] | None, typer.Option(help="Name or folder; once for each site.", rich_help_panel=MEANS)
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Instead: a recipe whose model and SAEs to take.", rich_help_panel=MEANS)
    ] = None,
) -> None:
    """Take away words that a recogniser writes where nobody speaks, beside what else is done about them.

    The edit that was chosen is saved as false-alarms.yaml, for `steer transcribe --recipe`.
    """
    from apps.flags import RECOGNISER, numbers_of, recogniser_recipe
    from apps.progress import track
    from apps.results import keep, results_in
    from evaluation import figures
    from evaluation.concept_sets import NO_SPEECH, SPEECH
    from evaluation.false_alarms import evaluate
    from evaluation.transcripts import sets_from_folder
    from hooks.errors import require
    from steer.recipe import Recipe

    require("matplotlib", "eval")
    tried = numbers_of("--counts", counts, int), numbers_of("--strengths", strengths, float)
    subsets = no_speech.split(",") if no_speech else NO_SPEECH, speech.split(",") if speech else SPEECH
    sets = sets_from_folder(audio, clips, *subsets)
    base = recogniser_recipe(Recipe.load(recipe, RECOGNISER) if recipe else None, model, sae or [])
    with results_in(out):
        outcome = evaluate(
            base.open(),
            *sets,
            words=words,
            counts=tried[0],
            strengths=tried[1],
            draws=draws,
            fit_steps=fit_steps,
            progress=lambda jobs: track(jobs, "false alarms"),
        )
        said = keep_recipe(outcome, base, out)
        keep(outcome.report, out, "false-alarms", figures.figure(figures.false_alarms(outcome.report)))
        print(said)


def keep_recipe(outcome: Outcome, base: Recipe, out: Path) -> str:
    """Save the edit that was chosen, in place of an earlier one, and say so."""
    for old in (out / "false-alarms.yaml", out / "false-alarms.safetensors"):
        old.unlink(missing_ok=True)
    chosen = outcome.recipe(base, out / "false-alarms.safetensors")
    if chosen is None:
        return "no edit was better than none within the limit: there is no recipe"
    return f"the edit is {chosen.save(out / 'false-alarms.yaml', force=True)}"


def stability(
    audio: Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    saes: Annotated[
        Path, typer.Option(help="Folder of SITE/seed-N/, as steer train writes several seeds.", show_default=False)
    ],
    split: Annotated[str, typer.Option(help="Which clips: train, valid or test.")] = "test",
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset.")] = 40,
    model: Model = None,
) -> None:
    """Which share of an SAE's features SAEs of other seeds have too, at each site and by three measures."""
    from apps.flags import RECOGNISER
    from apps.progress import track
    from apps.results import keep, results_in
    from evaluation import figures
    from evaluation.labels import labelled_sounds
    from evaluation.seeds import seeds_in
    from evaluation.stability import of_sounds
    from hooks import open_model
    from hooks.errors import require

    require("matplotlib", "eval")
    seeds = seeds_in(saes)
    told = next((sae.info.model for some in seeds.values() for sae in some if sae.info.model), None)
    opened = open_model(model or told or RECOGNISER)
    with results_in(out):
        report = of_sounds(
            opened,
            seeds,
            labelled_sounds(audio, None, split, clips),
            progress=lambda jobs: track(jobs, "stability"),
        )
        keep(report, out, "stability", figures.figure([figures.stability(report)]))
