"""`steer features`: which features of an SAE a sound has most of, and what they mean (see `atlas`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import SOUNDS, Device, Force, Json, Many, Means, output, panel

if TYPE_CHECKING:
    from apps.batch.features_work import FeaturesTask
    from apps.batch.jobs import Job
    from apps.inputs import Input

of_atlas = panel("Atlas: what features mean")
ENDING = ".safetensors"


def features(
    *,
    inputs: Annotated[list[str] | None, typer.Argument(help=SOUNDS)] = None,
    means: Means,
    device: Device = "cpu",
    top: Annotated[int, typer.Option(min=1, help="How many features to list.")] = 10,
    out: Annotated[
        Path | None, output("Save all features, \\[frames, d_sae] a site: a .safetensors file, or a folder.")
    ] = None,
    atlas: Annotated[
        Path | None,
        of_atlas(
            help="File to read, or with --audio to build; starter:codec/latent for that SAE's. With several "
            "SAEs a folder, to build one of each in."
        ),
    ] = None,
    audio: Annotated[
        Path | None, of_atlas(help="Build from this folder: subsets with a manifest.csv each, or sounds.")
    ] = None,
    split: Annotated[str, of_atlas(help="Build from train, valid or test clips.")] = "test",
    clips: Annotated[int | None, of_atlas(min=1, help="Build from at most this many clips of a subset.")] = None,
    effects: Annotated[
        bool, of_atlas(help="Also measure what ablating the best feature of each label does to it; takes longer.")
    ] = False,
    label: Annotated[str | None, of_atlas(help="List the features that tell this label.")] = None,
    feature: Annotated[int | None, of_atlas(help="Show this feature.")] = None,
    many: Many,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """List the strongest features of sounds, by their mean over time; or what the features of an SAE mean.

    The latter is in an atlas: --atlas FILE --audio DIR builds one.

    Without --audio, --atlas FILE lists the features that tell a label best; with sounds, their features' labels.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input.
    """
    from apps.atlas import build_atlas, show_atlas
    from apps.batch.features_work import FeaturesTask
    from apps.flags import anywhere
    from evaluation.atlas import AtlasError

    if audio is not None and (atlas is None or inputs):
        raise AtlasError("--audio builds an atlas: pass --atlas FILE to write it to, and no other sounds")
    if (label is not None or feature is not None) and (atlas is None or inputs or audio is not None):
        raise AtlasError("--label and --feature look something up in an atlas: pass --atlas FILE, and no sounds")
    if out is not None and atlas is not None and not inputs:
        raise AtlasError("--out saves the features of sounds: name some")
    if atlas is not None and not inputs and audio is None:
        show_atlas(atlas, top, label, feature, as_json)
        return
    recipe = means.recipe()
    if atlas is not None and audio is not None:
        build_atlas(atlas, recipe, device, audio, split, clips, effects, force, as_json)
    else:
        task = FeaturesTask(recipe, top, anywhere(str(atlas)) if atlas else "", device)
        raise typer.Exit(list_features(task, inputs or [], out, many, force, as_json))


def list_features(
    task: FeaturesTask, inputs: list[str], out: Path | None, many: Many, force: bool, as_json: bool
) -> int:
    """Print the strongest features of each sound, with their labels if there is an atlas; gives the exit code."""
    from rich.console import Console

    from apps.batch.features_work import TOGETHER, TOGETHER_S
    from apps.batch.report import BatchReport
    from apps.batch.run import do_batch
    from apps.files import to_json
    from apps.inputs import inputs_of

    found, is_batch = inputs_of(inputs)
    many.check()
    jobs, folder = jobs_of(task.fingerprint(), found, out, is_batch, force)
    how = many.how(force, alone=not is_batch)
    report = BatchReport.of("read", do_batch(task, jobs, folder, how, files=TOGETHER, seconds=TOGETHER_S))
    lists = [entry for row in report.rows if not row.error for entry in row.result["lists"]]
    if as_json:
        print(to_json(lists))
    else:
        for entry in lists:
            Console().print(table_of(entry))
    report.complain()
    return many.end(report)


def jobs_of(
    fingerprint: str, inputs: Sequence[Input], out: Path | None, is_batch: bool, force: bool
) -> tuple[list[Job], Path | None]:
    """Jobs, and the folder whose journal they are in: none for a single file that goes to a single file.

    Raises:
        AudioFileError: several files for one, or a file that is there.
    """
    from apps.batch.jobs import Job, plan
    from hooks import AudioFileError
    from hooks.clip import check_target

    if out is not None and out.suffix == ENDING:
        if is_batch:
            raise AudioFileError(f"{out}: the features of several sounds go to a folder, a file each")
        check_target(out, force)
        return [Job(inputs[0].source, out, out.name, fingerprint=fingerprint)], None

    def target_of(name: Path) -> Path:
        return name.with_name(f"{name.name}{ENDING}")

    return plan(inputs, out, target_of, lambda name: None, lambda one: (None, fingerprint)), out


def table_of(entry: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{entry['file']} at {entry['site']}"))
    for head in ("feature", "mean", "share of frames", "peak", "at"):
        table.add_column(head, justify="right")
    if any("label" in row for row in entry["features"]):
        table.add_column("label (AUROC)")
    for row in entry["features"]:
        when = "–" if row["peak_s"] is None else f"{row['peak_s']:.2f} s"
        cells = [str(row["feature"]), f"{row['mean']:.3f}", f"{row['share']:.0%}", f"{row['peak']:.2f}", when]
        if row.get("label"):
            cells.append(f"{row['label']} ({row['auroc']:.2f})")
        table.add_row(*map(Text, cells))
    return table
