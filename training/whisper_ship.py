"""SAEs of a public Whisper as they ship: `python -m training.whisper_ship CHECKPOINT AUDIO --run RUN --model tiny.en`.

Copies one seed's SAEs of all blocks from a run of `training.whisper_saes`, builds their atlases with effects on the
valid split, measures on test clips what each reconstruction costs in word errors, and writes the cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from evaluation.atlas import Atlas, Effect
from evaluation.atlas_build import build
from evaluation.atlas_effects import with_effects
from evaluation.dataset import Dataset
from evaluation.report import Interval, Share
from evaluation.transcripts import clips_of, defaults, errors_in, listen, over_clips, ratio, rise_in_points
from hooks import open_model
from hooks.model import Transcriber
from steer import SAE, SteeredModel
from training.whisper_saes import LICENSE

CARD = """# {name}

A BatchTopK SAE (k = {k}, {d_sae:,} features, {expansion} times as many as channels) on the site `{site}` of OpenAI's
Whisper {model} (`whisper:{model}`), 50 frames a second, in SAELens's files; the threshold is calibrated.

k is the first of those that were tried with an explained variance of at least 0.85 and less than 5 % dead features in
a short training.

## Data

{data}.

## Licence

{license}. (The weights of Whisper, which are not here, are MIT.)

## Command

    python -m training.whisper_saes train PREPARED --pack PACK --out RUN --models {model} --seeds {seed} \\
        --steps {steps} --rate {lr}
    python -m training.whisper_ship CHECKPOINT AUDIO --run RUN --model {model} --seed {seed}

{steps} steps of {batch:,} of {frames:,} frames, saved in fp16: 3 to 7 minutes of one CPU core.

## Quality

Frames of valid clips: explained variance {explained:.3f} ({by_channel:.3f} in the mean of channels), L0 {l0:.1f}; of
the features {silent:.1%} are silent in these {seconds:.0f} s, and {dead:.1%} in the {hours:.1f} hours of training.
Word errors on {clips} test clips with speech and the reconstruction in place of the activation:
{wer} against {plain}, {change} points.

## Atlas

`atlas.safetensors` says where each feature fires most and which labels it tells, in all
{sounds} clips of the valid split, on which no weights were trained. Of {labels} labels with enough clips the best
feature tells {told} at 0.1 or more above chance (the best feature with labels shuffled). Median AUROC {auroc:.3f},
picked on the other half of the clips {picked:.3f}.{ablated}
"""
EFFECTS = """ Ablating it takes away {lost:.0%} of a label's read-out where
the encoder ends (median of {effects}; another feature {control:.0%}), and changes the words of {words:.0%} of the
clips."""


def main(
    checkpoint: Annotated[Path, typer.Argument(help=".pt file of openai-whisper")],
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    run: Annotated[Path, typer.Option(help="folder of a run of training.whisper_saes")],
    model: Annotated[str, typer.Option(help="its name there")] = "tiny.en",
    seed: Annotated[int, typer.Option(help="which of the SAEs")] = 0,
    clips: Annotated[int, typer.Option(help="test clips of a subset, for word errors")] = 40,
    effects: Annotated[str | None, typer.Option(help="sites, with commas, for whose labels they are measured")] = None,
    out: Annotated[Path | None, typer.Option(help="by default where they ship")] = None,
) -> None:
    folder = out or Path("steer/starter") / f"whisper-{model}"
    whisper = open_model(f"whisper:{checkpoint}")
    assert isinstance(whisper, Transcriber)
    saes = {path.parent.name: SAE.load(path) for path in sorted((run / model).glob(f"encoder.*/seed-{seed}"))}
    for site, sae in saes.items():
        sae.info.license = sae.info.license or LICENSE
        sae.save(folder / site, torch.float16)
    steered = SteeredModel(whisper, saes)
    dataset = Dataset(audio)
    sounds = dataset.sounds(None, "valid")
    atlases = build(steered, sounds)
    about = {"audio": "shared recordings", "split": "valid"}
    speech = clips_of(dataset, "test", clips).speech
    plain_M, lengths_M = errors_in(speech, listen(whisper, speech, defaults(whisper)))
    who = [sound.speaker for sound in speech]
    for site, sae in saes.items():
        with steered.edit(mode="reconstruct", padding=False, site=site):
            errors_M, _ = errors_in(speech, listen(whisper, speech, defaults(whisper)))
        over = partial(over_clips, speakers=who)
        cells = {
            "plain": over(ratio, plain_M, lengths_M, kind=Share),
            "wer": over(ratio, errors_M, lengths_M, kind=Share),
            "change": over(rise_in_points, errors_M, plain_M, lengths_M, kind=Interval),
        }
        named = replace(atlases[site], model=f"whisper:{model}", sae=f"whisper:{model}/{site}")
        atlas = replace(named, about=named.about | about)
        if effects is None or site in effects.split(","):
            atlas = with_effects(steered, atlas, sounds)
        atlas.save(folder / site / "atlas.safetensors")
        (folder / site / "README.md").write_text(card(sae, atlas, cells, len(speech), seed, model), encoding="utf-8")
        print(f"{folder / site}: {cells['wer']} ({cells['change']} points)", flush=True)


def card(sae: SAE, atlas: Atlas, cells: dict[str, Any], clips: int, seed: int, model: str) -> str:
    info, known = sae.info, [one for one in atlas.concepts if one.chance is not None]
    best_C = torch.tensor(
        [float(atlas.auroc[n].max()) for n, one in enumerate(atlas.concepts) if one.chance is not None]
    )
    chance_C = torch.tensor([one.chance or 0.0 for one in known])
    effects = [one.effect for one in known if one.effect]
    picked = [one.picked for one in known if one.picked is not None]
    metrics, training = info.metrics, info.extra["training"]
    return CARD.format(
        name=atlas.sae,
        k=training["k"],
        d_sae=sae.d_sae,
        expansion=training["expansion"],
        site=info.site,
        model=model,
        data=info.data[0].upper() + info.data[1:],
        license=info.license,
        seed=seed,
        steps=training["steps"],
        lr=training["lr"],
        batch=training["batch_size"],
        frames=training["dead_after"],
        explained=metrics["explained_variance"],
        by_channel=metrics["explained_by_channel"],
        l0=metrics["l0"],
        silent=metrics["dead_share"],
        dead=metrics["dead_in_training"],
        seconds=metrics["frames"] / (info.frame_rate or 1),
        hours=training["dead_after"] / (info.frame_rate or 1) / 3600,
        clips=clips,
        sounds=len(atlas.clips),
        labels=len(known),
        told=int((best_C - chance_C >= 0.1).sum()),
        auroc=float(best_C.median()),
        picked=median(picked),
        ablated=ablated(effects),
        **cells,
    )


def ablated(effects: Sequence[Effect]) -> str:
    if not effects:
        return ""
    words = [one.words for one in effects if one.words is not None]
    return EFFECTS.format(
        lost=median(one.lost for one in effects),
        control=median(one.control for one in effects),
        effects=len(effects),
        words=sum(words) / max(len(words), 1),
    )


if __name__ == "__main__":
    typer.run(main)
