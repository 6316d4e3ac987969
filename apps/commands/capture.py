"""`steer capture`: activations of a model over many sounds, into a store that `steer train --store` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.exit_codes import FAILED
from apps.messages import log
from apps.options import SOUNDS, Batch, Device, Json, Layers, Many, of_where, output, panel, sites_option

if TYPE_CHECKING:
    from apps.batch.report import BatchReport
    from hooks.store import ActivationStore

of_store = panel("The store")
FILES = 4096
"""Maximum number of sounds in a file of the store."""


def capture(
    *,
    out: Annotated[Path, output("Folder of the store.")],
    inputs: Annotated[list[str] | None, typer.Argument(help=SOUNDS)] = None,
    model: Annotated[str, of_where(help="Name or folder; see `steer models`.")] = "starter:codec",
    site: Annotated[str | None, sites_option("latent")] = None,
    layers: Layers = None,
    dtype: Annotated[str, of_store(help="float16 or float32.")] = "float16",
    shard_s: Annotated[float, of_store(min=1, help="Seconds of sound in a file of it, about.")] = 300.0,
    check: Annotated[bool, of_store("--check", help="Read all of it, and report what is damaged.")] = False,
    device: Device = "cpu",
    batch: Batch = 1,
    many: Many,
    as_json: Json = False,
) -> None:
    """Capture the activations of sounds into a store, for `steer train --store`.

    The same command does what is missing. Several commands may fill one store at once, each with a --journal.

    Exit codes: 0 done, 1 some files failed or the store is damaged, 2 wrong input.
    """
    from apps.batch.capture_work import CaptureTask
    from apps.batch.jobs import Job
    from apps.batch.report import BatchReport
    from apps.batch.run import do_batch
    from apps.flags import anywhere, sites_in
    from apps.inputs import inputs_of
    from hooks.shards import HEAD, StoreError
    from hooks.store import ActivationStore, verify
    from hooks.store_writing import check_head, head_of
    from steer import open_model

    if check == bool(inputs):
        raise StoreError("name sounds to capture, or pass --check to read what is there")
    if check:
        wrong = verify(out)
        for line in wrong:
            log.error(line)
        if not wrong:
            show(None, ActivationStore(out), as_json)
        raise typer.Exit(FAILED if wrong else 0)
    many.check()
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
    finished = do_batch(task, jobs, out, many.how(), files=FILES, seconds=shard_s, held=held)
    report = BatchReport.of("captured", finished)
    if (out / HEAD).exists():
        store = ActivationStore(out)
        store.save_index()
        show(report, store, as_json)
    else:  # not one sound could be captured
        report.complain()
    raise typer.Exit(many.end(report))


def show(report: BatchReport | None, store: ActivationStore, as_json: bool) -> None:
    """Print what a store holds, and what this call did."""
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
