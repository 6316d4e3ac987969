"""`steer features`: which features of an SAE a sound has most of, and what they mean (see `atlas`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import (
    SOUNDS,
    Cluster,
    Device,
    Force,
    Journal,
    Json,
    Model,
    Reports,
    RetryFailed,
    Sae,
    SaeSite,
    Workers,
)

if TYPE_CHECKING:
    from apps.batch.features_work import FeaturesTask
    from apps.batch.jobs import Job
    from apps.batch.run import How
    from apps.inputs import Input

ATLAS = "Atlas: what features mean"
FAILED = 1
ENDING = ".safetensors"


def features(
    inputs: Annotated[list[str] | None, typer.Argument(help=SOUNDS)] = None,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
    device: Device = "cpu",
    top: Annotated[int, typer.Option(min=1, help="How many features to list.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            help="Save all features, \\[frames, d_sae] a site: a .safetensors file, or a folder.",
        ),
    ] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(
            help="File to read, or with --audio to build; starter:codec/latent for that SAE's.", rich_help_panel=ATLAS
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Build from this folder: subsets with a manifest.csv each, or sounds.", rich_help_panel=ATLAS
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Build from train, valid or test clips.", rich_help_panel=ATLAS)] = "test",
    clips: Annotated[
        int | None, typer.Option(min=1, help="Build from at most this many clips of a subset.", rich_help_panel=ATLAS)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="List the features that tell this label.", rich_help_panel=ATLAS)
    ] = None,
    feature: Annotated[int | None, typer.Option(help="Show this feature.", rich_help_panel=ATLAS)] = None,
    journal: Journal = None,
    workers: Workers = 0,
    cluster: Cluster = "",
    retry_failed: RetryFailed = False,
    reports: Reports = None,
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
    from apps.batch.run import How
    from apps.flags import anywhere, recipe_of
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
    recipe = recipe_of(None, {}, [], [], None, model, sae, site)
    if atlas is not None and audio is not None:
        build_atlas(atlas, recipe, device, audio, split, clips, force, as_json)
    else:
        task = FeaturesTask(recipe, top, anywhere(str(atlas)) if atlas else "", device)
        how = How(workers, cluster, force, retry_failed, journal=journal)
        raise typer.Exit(list_features(task, inputs or [], out, how, reports or [], as_json))


def list_features(
    task: FeaturesTask, inputs: list[str], out: Path | None, how: How, reports: list[Path], as_json: bool
) -> int:
    """The strongest features of each sound, with their labels if there is an atlas; gives the exit code."""
    from rich.console import Console

    from apps.batch.features_work import TOGETHER, TOGETHER_S
    from apps.batch.report import BatchReport, check_names
    from apps.batch.run import do_batch
    from apps.files import to_json
    from apps.inputs import inputs_of

    found, is_batch = inputs_of(inputs)
    check_names(reports)
    jobs, folder = jobs_of(task.fingerprint(), found, out, is_batch, how.force)
    finished = do_batch(task, jobs, folder, replace(how, alone=not is_batch), files=TOGETHER, seconds=TOGETHER_S)
    report = BatchReport("read", finished.rows, finished.this_call, finished.warning)
    lists = [entry for row in finished.rows if not row.error for entry in row.result["lists"]]
    if as_json:
        print(to_json(lists))
    else:
        for entry in lists:
            Console().print(table_of(entry))
    for path in reports:
        report.save(path)
    report.complain()
    report.tell_notes()
    return FAILED if report.failed else 0


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
