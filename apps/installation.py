"""What is installed on this machine, what it is for, and how to get what is missing: the facts of `steer doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

OURS = "audiosteer"


@dataclass(frozen=True)
class Library:
    """A library, by the name that pip knows, and one of the extras that install it: "" for a required one."""

    name: str
    use: str
    extra: str = ""
    module: str = ""

    @property
    def imported_as(self) -> str:
        return self.module or self.name.replace("-", "_")


LIBRARIES = (
    Library("torch", "every model"),
    Library("numpy", "arrays"),
    Library("soundfile", "sound files"),
    Library("soxr", "resampling"),
    Library("safetensors", "weights"),
    Library("huggingface_hub", "downloads: hf:owner/name"),
    Library("pydantic", "recipes"),
    Library("pyyaml", "recipes", module="yaml"),
    Library("typer", "this command"),
    Library("rich", "tables and progress"),
    Library("packaging", "steer doctor"),
    Library("openai-whisper", "whisper:NAME, starter:asr", "whisper", "whisper"),
    Library("transformers", "hf:NAME: Whisper, HuBERT, WavLM, MERT, AST, Mimi", "ssl"),
    Library("encodec", "encodec:NAME", "encodec"),
    Library("descript-audio-codec", "dac:NAME", "dac", "dac"),
    Library("snac", "snac:NAME", "snac"),
    Library("speechtokenizer", "speechtokenizer:NAME", "speechtokenizer"),
    Library("beartype", "speechtokenizer:NAME", "speechtokenizer"),
    Library("diffusers", "oobleck:NAME (Stable Audio's VAE)", "vae"),
    Library("torchcrepe", "pitch: --pitch, pitch of voices, crepe:NAME", "eval"),
    Library("torchaudio", "AST, EnCodec, DAC, SpeechTokenizer, CREPE", "eval"),
    Library("nnsight", "SteeredModel.trace", "nnsight"),
    Library("gradio", "steer demo", "demo"),
    Library("dask", "--workers and --cluster", "cluster", "distributed"),
    Library("matplotlib", "--plot and figures", "eval"),
    Library("librosa", "steer evaluate", "eval"),
    Library("pyloudnorm", "loudness in LUFS", "eval"),
    Library("scikit-learn", "steer evaluate", "eval", "sklearn"),
    Library("pystoi", "STOI: --details, steer evaluate", "eval"),
    Library("pesq", "PESQ in steer evaluate", "eval"),
    Library("jiwer", "word errors in steer evaluate", "eval"),
    Library("silero-vad", "steer evaluate gates", "eval"),
    Library("speechmos", "DNSMOS in steer evaluate", "mos"),
    Library("onnxruntime", "DNSMOS in steer evaluate", "mos"),
    Library("requests", "DNSMOS in steer evaluate", "mos"),
    Library("tqdm", "DNSMOS in steer evaluate", "mos"),
)


@dataclass(frozen=True)
class Program:
    """A program that is called, and the packages of apt, brew and winget that bring it: "" where there is none."""

    name: str
    use: str
    apt: str
    brew: str
    winget: str = ""
    version_flag: str = "--version"

    @property
    def remedy(self) -> str:
        """How it is installed on this system."""
        if sys.platform == "darwin":
            return f"brew install {self.brew}"
        if sys.platform == "win32":
            return f"winget install {self.winget}" if self.winget else "see its site"
        return f"apt install {self.apt}"


PROGRAMS = (
    Program("ffmpeg", "m4a, mp4, webm and other media", "ffmpeg", "ffmpeg", "ffmpeg", "-version"),
    Program("ffprobe", "m4a, mp4, webm and other media", "ffmpeg", "ffmpeg", "ffmpeg", "-version"),
    Program(
        "espeak-ng", "speech for training scripts (checkout only)", "espeak-ng", "espeak-ng", "eSpeak-NG.eSpeak-NG"
    ),
    Program("rubberband", "pitch for training scripts (checkout only)", "rubberband-cli", "rubberband"),
)


def own_version() -> str:
    """Of the installed package, or that it is not installed."""
    return version_of(OURS) or "unknown: run from a checkout that is not installed"


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def wanted_versions() -> dict[str, SpecifierSet]:
    """{library: versions that AudioSteer takes}, of its package's own requirements."""
    try:
        texts = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        texts = []
    found: dict[str, SpecifierSet] = {}
    for one in map(Requirement, texts):
        name = canonicalize_name(one.name)
        found[name] = found.get(name, SpecifierSet()) & one.specifier
    return found


def library_facts(library: Library, load: bool) -> dict[str, Any]:
    """Its version (None if it is not installed) and its problem. With `load`, and of torch always, that it
    cannot be imported is a problem too."""
    version, problem = version_of(library.name), ""
    wanted = wanted_versions().get(canonicalize_name(library.name), SpecifierSet())
    remedy = f"pip install '{OURS}[{library.extra}]'" if library.extra else f"pip install '{library.name}{wanted}'"
    if version is None:
        problem = "" if library.extra else f"is not installed: {remedy}"
    elif not wanted.contains(version, prereleases=True):
        problem = f"is version {version}, but AudioSteer needs {wanted}: pip install '{library.name}{wanted}'"
    elif (load or library.name == "torch") and (why := cannot_load(library.imported_as)):
        problem = f"is installed but does not load ({why}): pip install --force-reinstall '{library.name}=={version}'"
    return {
        "name": library.name,
        "version": version,
        "use": library.use,
        "extra": library.extra or None,
        "get": remedy if version is None else None,
        "problem": problem or None,
    }


def cannot_load(module: str) -> str:
    """Why a module cannot be imported, or ""."""
    try:
        import_module(module)
    except Exception as error:  # a torchaudio of another CUDA build raises OSError
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


def program_facts(program: Program) -> dict[str, Any]:
    """Its version, "" where it does not say, and None if it is not installed."""
    path = shutil.which(program.name)
    return {
        "name": program.name,
        "version": said_version([path, program.version_flag]) if path else None,
        "use": program.use,
        "get": None if path else program.remedy,
    }


def said_version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else ""


def machine_facts() -> dict[str, Any]:
    """Python, the system, and what torch computes on; the latter is None where torch does not load."""
    facts: dict[str, Any] = {
        OURS: own_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if cannot_load("torch"):
        return {**facts, "torch": None}
    return {**facts, "torch": torch_facts()}


def torch_facts() -> dict[str, Any]:
    """Its build, devices, and threads."""
    import torch

    from hooks.threads import cores

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    devices = ["cpu"]
    for number in range(torch.cuda.device_count()) if torch.cuda.is_available() else ():
        about = torch.cuda.get_device_properties(number)
        devices.append(f"cuda:{number} ({about.name}, {about.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "version": str(torch.__version__),
        "build": build,
        "devices": devices,
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def download_facts() -> dict[str, Any] | None:
    """Where downloads from the Hugging Face hub are kept, and the space there in GB; None without its library."""
    if version_of("huggingface_hub") is None or cannot_load("huggingface_hub.constants"):
        return None
    from huggingface_hub import constants

    folder = str(constants.HF_HUB_CACHE)
    there = folder
    while not os.path.exists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    return {
        "folder": folder,
        "free_gb": round(shutil.disk_usage(there).free / 1e9, 1),
        "offline": bool(constants.HF_HUB_OFFLINE),
    }
