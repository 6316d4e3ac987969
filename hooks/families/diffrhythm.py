"""DiffRhythm's VAE (arXiv 2503.01183), 44.1 kHz stereo, 21.5 frames a second: the TorchScript file `vae_model.pt`.

TorchScript takes no hooks, so nothing inside encoder and decoder can be reached. The file has two exported methods,
`encode_export` ([B, 2, N] -> mean and scale of a Gaussian side by side, [B, 128, T]) and `decode_export`
([B, 64, T] -> [B, 2, N]); here each is called through a thin module that takes hooks. Sites:

- `latent`: the mean, 64 wide, which is what `encode` returns and `decode` takes. SAEs are put here.
- `decoder_input`: what `decode_export` gets, 64 wide. DiffRhythm's own inference decodes what its diffusion model made,
  so that it passes this site and the next alone; an SAE for `latent` fits it too.
- `decoder_output`: the waveform.

Give `model.module` (a `ScriptedVAE`) to code that wants the script: it has the two methods, and `model.module.script`
is the file itself, past all hooks. `run`, `resynthesize`, `encode` and `decode` know that they begin where the
recording (or the time said with `at_time`) begins, and so does calling the model. The two exported methods do not,
since inference code calls them with one overlapping chunk after another: edits with `during` or curves are refused
there, unless the time is said with `at_time`.

A TorchScript file is a program of its author's. It is never Python: it runs in TorchScript's interpreter, which can do
little but compute. What of it reaches files or compiled code from elsewhere is looked for before the file is opened,
and such files are refused. A program that never ends or wants all memory cannot be told beforehand: open only files
from people whom you trust.

Half precision, copies and other devices work as the script does. On a GPU, TorchScript compiles a method anew during
its first calls, which may differ from later ones in the last bits.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.errors import ModelError, one_line
from hooks.families.oobleck import MeanSite
from hooks.family import Family
from hooks.hub import download
from hooks.model import Codec
from hooks.site import Site
from hooks.timing import at_time, current_time, sound_until
from hooks.weights import check_finite

FILE = "vae_model.pt"
METHODS = ("encode_export", "decode_export")
SAMPLE_RATE, CHANNELS, HOP_LENGTH, WIDTH = 44_100, 2, 2048, 64
CHUNK_FRAMES = 128 - 32
"""Step of the chunks, in frames, in which DiffRhythm's inference code calls `decode_export`."""
REACHES_OUT = re.compile(r"\b(?:save|from_file|classes)\b|\bops\b(?!\.(?:aten|prim)\.)[^\n]{0,40}")
"""Words by which TorchScript code writes or maps files, or calls compiled code that is not torch's own."""
MAX_CODE = 64 * 2**20


class ExportedMethod(nn.Module):
    """A method of a script as a module, so that it takes hooks."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def forward(self, script: Any, x_BDN: Tensor) -> Tensor:
        return getattr(script, self.method)(x_BDN)


class ScriptedVAE(nn.Module):
    """A script with its two exported methods within reach of hooks; its forward is the round trip of the mean."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self.script = script
        self.encoder, self.decoder = map(ExportedMethod, METHODS)

    def encode_export(self, audio_BCN: Tensor) -> Tensor:
        return self.encoder(self.script, audio_BCN)

    def decode_export(self, z_BDT: Tensor) -> Tensor:
        return self.decoder(self.script, z_BDT)

    def forward(self, audio_BCN: Tensor) -> Tensor:
        return self.decode_export(self.encode_export(audio_BCN).chunk(2, dim=1)[0])


class DiffRhythmVAE(Codec):
    """A `ScriptedVAE`; it takes the mean and draws no sample, so that it gives the same output every time."""

    module: Any
    quantize = has_quantizer = False
    hop_length = HOP_LENGTH

    def __init__(self, module: ScriptedVAE, name: str = "") -> None:
        rate = SAMPLE_RATE / HOP_LENGTH
        known: dict[str, Any] = {"width": WIDTH, "frame_rate": rate, "chunk_s": CHUNK_FRAMES / rate}
        sites = [
            MeanSite("latent", "encoder", "BDT", **known),
            # element 0 is the script
            Site("decoder_input", "decoder", "BDT", "input", 1, **known),
            Site("decoder_output", "decoder", "BDT", width=CHANNELS, frame_rate=SAMPLE_RATE, chunk_s=known["chunk_s"]),
        ]
        super().__init__(module, sites, name=name or "diffrhythm", sample_rate=SAMPLE_RATE, channels=CHANNELS)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with at_time(current_time() or 0.0):
            return self.module(*args, **kwargs)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        """The mean [B, T, D]. The end is filled up with silence to whole frames."""
        filled_BCN = nn.functional.pad(audio_BCN, (0, -audio_BCN.shape[-1] % HOP_LENGTH))
        with at_time(current_time() or 0.0):
            gaussian_BDT = self.module.encode_export(filled_BCN)
        return gaussian_BDT.chunk(2, dim=1)[0].transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        with at_time(current_time() or 0.0):
            return self.module.decode_export(z_BTD.transpose(1, 2))

    def _run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        with sound_until((current_time() or 0.0) + samples / SAMPLE_RATE):
            return self.decode(self.encode(audio_BCN))[..., :samples]


def wrap(module: nn.Module, name: str = "") -> Codec:
    """A script with the two methods, or a `ScriptedVAE`.

    Raises:
        ModelError: any other script.
    """
    if isinstance(module, ScriptedVAE):
        return DiffRhythmVAE(module, name)
    absent = [method for method in METHODS if not hasattr(module, method)]
    if absent:
        kind = getattr(module, "original_name", type(module).__name__)
        raise ModelError(
            f"{name or kind}: TorchScript takes no hooks, and this is not a VAE that could be edited between its calls "
            f"(it has no {' and no '.join(absent)}); wrap the module it was made from"
        )
    return DiffRhythmVAE(ScriptedVAE(module), name)


def open_name(rest: str, name: str) -> Codec:
    """`diffrhythm:/path/vae_model.pt`, a folder that holds it, or `diffrhythm:owner/name` of the hub.

    Raises:
        ModelError: no such file or repository, or a file that cannot be opened or is not to be trusted.
    """
    path = Path(rest)
    if not path.exists() and path.suffix != ".pt" and re.fullmatch(r"[\w.-]+/[\w.-]+", rest):
        path = download(rest, only=[FILE])
    return open_file(path / FILE if path.is_dir() else path, name)


def open_file(path: Path, name: str) -> Codec:
    check_script(path, name)
    try:
        script = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # there is no end to what torch raises for damaged files
        raise ModelError(f"{name}: {path} cannot be opened as TorchScript ({one_line(error)})") from error
    check_finite(script.state_dict(), name)
    return wrap(script, name)


def check_script(path: Path, name: str) -> None:
    """What can be told of a TorchScript file before torch opens it; opening may already run code of the file's.

    Raises:
        ModelError: it is not there, cut short, something else, or holds code that does more than compute.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # weights are stored as they are, only code is compressed
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > path.stat().st_size + MAX_CODE:
                raise ModelError(f"{name}: {path} would unpack to {unpacked:,} bytes; it is not to be trusted")
            sources = [entry for entry in entries if entry.filename.lower().endswith(".py")]
            found = (REACHES_OUT.search(archive.read(entry).decode()) for entry in sources)
            word = next((match[0] for match in found if match), None)
    except (OSError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError) as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise ModelError(f"{name}: {path} is no TorchScript file that can be read ({why})") from error
    if not sources:
        raise ModelError(f"{name}: {path} holds no TorchScript code; DiffRhythm's VAE is published as {FILE}")
    if word:
        raise ModelError(f"{name}: {path} holds code that does more than compute ({word!r}); it is not opened")


FAMILY = Family(
    "diffrhythm",
    names=("diffrhythm:ASLP-lab/DiffRhythm-vae",),
    classes=("hooks.families.diffrhythm.ScriptedVAE", "torch.jit._script.ScriptModule"),
    wrap=wrap,
    open_name=open_name,
)
