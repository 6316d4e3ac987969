"""What all tests share."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.machine import processor
from hooks import Site, Transcriber, Transcript
from hooks.model import Source
from hooks.networks.source_filter import SourceFilter
from steer.editing import trials
from steer.matmul import backend
from tests.real_weights import UNAVAILABLE, VARIABLE, WEIGHTS
from tests.tiny_codec import codec_folder, sae_folder, sound  # noqa: F401 - fixtures

# several workers share the cores: with two threads each they would wait for each other most of the time
THREADS = int(os.environ.get("AUDIOSTEER_TEST_THREADS", "1"))
torch.set_num_threads(THREADS)
for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # of processes that tests start; numba is not loaded yet
    os.environ.setdefault(variable, str(THREADS))
os.environ["AUDIOSTEER_CONFIG"] = ""  # the defaults of whoever runs the tests do not count
if os.environ.get("AUDIOSTEER_TEST_ONEDNN") == "0":
    torch.backends.mkldnn.enabled = False


def pytest_report_header() -> str:
    """What rounding depends on: the processor, torch's instructions and version, threads, and the matmul libraries."""
    onednn = "on" if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else "off"
    return (
        f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} threads, "
        f"oneDNN {onednn}, large products by {backend()}"
    )


LONG = (
    "test_real_gates",
    "test_real_weights",
    "interop",
    "devices",
    "test_kills",
    "test_edit_tab",
    "fuzz",
    "test_interpreter",
    "test_compiled",
)
"""Modules, or folders of them, with tests of ten seconds and more, or with fixtures that take as long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: near the end workers of xdist take tests from each other, and one would wait for them."""
    items.sort(key=lambda item: not set(LONG) & {item.path.stem, item.path.parent.name})


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look through it again takes the garbage collector a third of a second."""
    gc.collect()
    gc.freeze()


# a shell has what runs in its background ignore Ctrl-C, and so would all that tests start, to see what it does then
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda number, frame: None)

SHARED = Path(__file__).parents[2] / "shared"
RECORDINGS = SHARED / "audio"
PROTOTYPE = SHARED / "prototypes" / "source_filter"

if os.environ.get("CI"):

    def required(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        """CI installs every package that tests use: there a missing one is an error and no reason to skip."""
        return importlib.import_module(name)

    pytest.importorskip = required


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings, one subset each with a manifest.csv."""
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings are not on this machine (../shared/audio)")
    return RECORDINGS


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder of OpenAI's own weights that `python -m tests.real_weights` filled; only a registry without them is a
    reason to skip where the folder is named."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"OpenAI's weights: run `python -m tests.real_weights DIR`, and set {VARIABLE} to DIR")
    folder = Path(os.environ[VARIABLE])
    if (folder / UNAVAILABLE).is_file():
        pytest.skip((folder / UNAVAILABLE).read_text())
    assert all((folder / f"{name}.pt").is_file() for name in WEIGHTS), f"{folder}: run `python -m tests.real_weights`"
    return folder


@pytest.fixture(scope="session")
def prototype() -> Path:
    """The folder of the experiment that the source-filter codec was made after, with its weights and outputs."""
    if not PROTOTYPE.is_dir():
        pytest.skip("the prototype is not on this machine (../shared/prototypes/source_filter)")
    return PROTOTYPE


@pytest.fixture(scope="session")
def source_filter(prototype: Path) -> SourceFilter:
    """A source-filter codec with the prototype's weights; shared by all tests, so none may change it."""
    from training.train_codec import renamed

    module = SourceFilter().eval()
    module.load_weights_(renamed(load_file(prototype / "model.safetensors")))
    return module


class Ear(nn.Module):
    """Frames of 10 ms; axis 0 is how far above zero a frame's mean is, axis 1 how far below."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, audio_BCN: Tensor) -> Tensor:
        frames_BT = audio_BCN[:, 0].unfold(1, 160, 160).mean(-1)
        none_BT = torch.zeros_like(frames_BT)
        x_BTD = torch.stack([frames_BT.relu(), (-frames_BT).relu(), none_BT, none_BT], dim=-1)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return x_BTD


class Listener(Transcriber):
    """A recogniser of which all is known: it writes "hello" unless axis 1 is above 0.8 on average."""

    def __init__(self) -> None:
        sites = [Site(f"ear.{i}", f"layers.{i}", width=4, frame_rate=100.0) for i in range(2)]
        super().__init__(Ear(), sites, name="listener", sample_rate=16_000)

    def transcribe(self, source: Source, **options: Any) -> Transcript:
        x_BTD = self.module(self.prepare(source))
        text = "" if x_BTD[..., 1].mean() > 0.8 else "hello"
        return Transcript(text, [{"start": 0.0, "end": x_BTD.shape[1] / 100, "text": text, "tokens": []}], "en")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads() -> None:
    """As at the beginning, whatever a test before called: numba, for one, gives all cores to OpenMP."""
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def few_pitch_frames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tiny codec, of which no edit moves the pitch, CREPE reads few frames; it takes most of an edit."""
    if "codec_folder" in request.fixturenames:
        monkeypatch.setattr(trials, "PITCH_FRAMES", 10)
        monkeypatch.setattr(trials, "ROUND_TRIP_FRAMES", 5)
        monkeypatch.setattr(trials, "LARGER_CREPE", "tiny")
