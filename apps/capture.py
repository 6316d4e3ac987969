"""`steer capture`: activations of a model over many sounds, into a store that `steer train --store` reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import SOUNDS, Cluster, Device, Journal, Json, Reports, RetryFailed, Workers

if TYPE_CHECKING:
    from apps.batch.report import BatchReport
    from hooks.store import ActivationStore

FAILED = 1
WHERE, STORE = "Where", "The store"


def capture(
    out: Annotated[Path, typer.Option("--out", "--output", "-o", help="Folder of the store.", show_default=False)],
    inputs: Annotated[list[str] | None, typer.Argument(help=SOUNDS)] = None,
    model: Annotated[
        str, typer.Option(help="Name or folder; see `steer models`.", rich_help_panel=WHERE)
    ] = "starter:codec",
    site: Annotated[
        str | None,
        typer.Option("--site", "--sites", help="Sites, with commas. Default: latent.", rich_help_panel=WHERE),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="all, or numbers such as 0,1: the sites encoder.N.", rich_help_panel=WHERE)
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32.", rich_help_panel=STORE)] = "float16",
    shard_s: Annotated[
        float, typer.Option(min=1, help="Seconds of sound in a file of it, about.", rich_help_panel=STORE)
    ] = 300.0,
    check: Annotated[
        bool, typer.Option("--check", help="Read all of it, and tell what is damaged.", rich_help_panel=STORE)
    ] = False,
    device: Device = "cpu",
    batch: Annotated[
        int, typer.Option(min=1, help="So many sounds of equal length run at once; each rounds as it likes.")
    ] = 1,
    journal: Journal = None,
    workers: Workers = 0,
    cluster: Cluster = "",
    retry_failed: RetryFailed = False,
    reports: Reports = None,
    as_json: Json = False,
) -> None:
    """Capture the activations of sounds into a store, for `steer train --store`.

    The same command does what is missing. Several commands may fill one store at once, each with a --journal.

    Exit codes: 0 done, 1 some files failed or the store is damaged, 2 wrong input.
    """
    from apps.batch.capture_work import CaptureTask
    from apps.batch.jobs import Job
    from apps.batch.report import BatchReport, check_names
    from apps.batch.run import How, do_batch
    from apps.flags import anywhere
    from apps.inputs import inputs_of
    from apps.train import sites_in
    from hooks.shards import HEAD, StoreError
    from hooks.store import ActivationStore, verify
    from hooks.store_writing import check_head, head_of
    from steer import open_model

    if check == bool(inputs):
        raise StoreError("name sounds to capture, or pass --check to read what is there")
    if check:
        wrong = verify(out)
        for line in wrong:
            print(line, file=sys.stderr)
        if not wrong:
            tell(None, ActivationStore(out), as_json)
        raise typer.Exit(FAILED if wrong else 0)
    check_names(reports or [])
    found, _ = inputs_of(inputs or [])
    opened = open_model(model)
    sites = sites_in(opened, site, layers)
    task = CaptureTask(anywhere(model), tuple(sites), dtype, out.absolute(), batch, device)
    held: dict[str, str] = {}
    if (out / HEAD).exists():
        store = ActivationStore(out)
        check_head(store, head_of(opened, sites, dtype))
        held = {name: str(out / file) for file, shard in store.shards.items() for name in shard.names}
    keys = dict.fromkeys(str(one.source) for one in found)
    jobs = [Job(Path(key), None, key, fingerprint=task.fingerprint()) for key in keys]
    how = How(workers, cluster, retry_failed=retry_failed, journal=journal)
    finished = do_batch(task, jobs, out, how, files=FILES, seconds=shard_s, held=held)
    report = BatchReport("captured", finished.rows, finished.this_call, finished.warning)
    if (out / HEAD).exists():
        store = ActivationStore(out)
        store.save_index()
        tell(report, store, as_json)
    else:  # not one sound could be captured
        report.complain()
    for path in reports or []:
        report.save(path)
    report.tell_notes()
    report.warn()
    raise typer.Exit(FAILED if report.failed else 0)


FILES = 4096
"""At most so many sounds in a file of the store."""


def tell(report: BatchReport | None, store: ActivationStore, as_json: bool) -> None:
    """What a store holds, and what a call did of it."""
    from rich.console import Console

    from apps.files import to_json

    about: dict[str, Any] = {
        "store": str(store.folder),
        "model": store.model,
        "sounds": len(store.sources),
        "files": len(store.shards),
        "bytes": sum(shard.size for shard in store.shards.values()),
        "frames": {site: len(store.frames(site)) for site in store.sites},
    }
    if as_json:
        print(to_json({**about, **({"report": report.to_dict()} if report else {})}))
        return
    if report:
        report.show(Console())
    frames = ", ".join(f"{count} frames at {site}" for site, count in about["frames"].items())
    megabytes = f"{about['bytes'] / 1e6:.1f} MB in {about['files']} files"
    print(f"{store.folder}: {about['sounds']} sounds of {store.model}, {frames}, {megabytes}")
