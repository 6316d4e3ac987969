"""Runs in a process of its own: what every model, and every command, does on `far` and on the CPU, as lines of JSON."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from apps.cli import main
from hooks.store import ActivationStore
from steer import SAE, Clamp, SteeredModel
from tests.devices import far
from tests.hooks.contract.case import Case
from tests.hooks.contract.test_contract import build, collect, few, listened, random_sae, seeded, tensors, ways_of


def tell(name: str, check: Callable[[], dict[str, Any]]) -> None:
    try:
        told = check()
    except Exception:
        told = {"error": traceback.format_exc(limit=-8)}
    print(json.dumps({"name": name, **told}), flush=True)


def run_family(case: Case) -> dict[str, Any]:
    """An edited pass on both: how far apart the outputs are, as a share of their spread."""
    model = build(case)
    _, passed = listened(case, model, ways_of(case)["run"])
    saes = {name: random_sae(passed[name][0].shape[2]) for name in few(list(model.sites))}

    def run() -> list[Tensor]:
        far.done.clear()
        return tensors(seeded(model.run, case.audio(model)))

    steered = SteeredModel(model, saes, check=False)
    edits = {name: Clamp([0], 3.0, during=(0.0, 0.2) if model.sites[name].frame_rate else None) for name in saes}
    with steered.edit(edits):
        near = run()
        steered.to("far")  # edits that are on come along
        away = run()
    apart = [float((one.cpu() - other).abs().max() / other.std()) for one, other in zip(away, near, strict=True)]
    return {"products": far.products(), "apart": max(apart)}


def run_command(folder: Path, arguments: Sequence[str], read: Callable[[Path], list[Tensor]]) -> dict[str, Any]:
    """A command on both: how far apart what it writes is, as a share of its spread."""
    found = {}
    for device in ("cpu", "far"):
        far.done.clear()
        out = folder / device
        sys.argv = ["steer", *(one.format(out=out) for one in arguments), "--device", device]
        with redirect_stdout(sys.stderr):
            try:
                main()
            except SystemExit as end:
                if end.code:
                    return {"error": f"exit code {end.code} on {device}"}
        found[device] = read(out)
    pairs = list(zip(found["far"], found["cpu"], strict=True))
    return {
        "products": far.products(),
        "apart": max(float((one - other).abs().max() / other.std()) for one, other in pairs),
    }


def sounds_in(out: Path) -> list[Tensor]:
    return [torch.from_numpy(soundfile.read(path)[0]) for path in sorted(out.glob("*.wav"))]


def features_in(out: Path) -> list[Tensor]:
    return [values for path in sorted(out.glob("*.safetensors")) for _, values in sorted(load_file(path).items())]


def frames_in(out: Path) -> list[Tensor]:
    store = ActivationStore(out)
    return [store.frames(site)[:].float() for site in store.sites]


def decoder_in(out: Path) -> list[Tensor]:
    return [SAE.load(out / "latent").W_dec.detach()]


def commands(folder: Path) -> None:
    sounds = folder / "sounds"
    sounds.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(2):
        noise = 0.1 * torch.randn(8_000 * (number + 1), generator=generator)
        soundfile.write(sounds / f"{number}.wav", noise.numpy(), 16_000)
    given = str(sounds)
    for name, arguments, read in (
        ("edit", ("edit", given, "-o", "{out}", "--clamp", "3=4.0", "--during", "0.1-0.4"), sounds_in),
        ("edit to a goal", ("edit", given, "-o", "{out}", "--loudness", "+2dB"), sounds_in),
        ("features", ("features", given, "-o", "{out}"), features_in),
        (
            "capture",
            ("capture", given, "-o", "{out}", "--model", "starter:ssl", "--layers", "0", "--dtype", "float32"),
            frames_in,
        ),
        (
            "train",
            ("train", given, "-o", "{out}", "--steps", "5", "--batch-size", "32", "--expansion", "2", "--k", "4"),
            decoder_in,
        ),
    ):
        place = folder / name
        place.mkdir()
        tell(name, lambda: run_command(place, arguments, read))  # noqa: B023


if __name__ == "__main__":
    torch.set_num_threads(1)
    far.set_up()
    commands(Path(sys.argv[1]))
    for parameters in collect():
        (case,) = parameters.values
        if case is not None:
            tell(case.name, lambda: run_family(case))  # noqa: B023
