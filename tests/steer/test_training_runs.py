"""What is seen of a training while it runs, when it is saved, how it is stopped, and sounds as its data."""

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioModel, Clip, Site
from hooks.store import ActivationStore
from hooks.store_writing import fill
from steer.checkpoints import LOG, STATE, Run
from steer.errors import TrainingError
from steer.sae import SAE
from steer.schedule import Schedule
from steer.trainee import TrainConfig
from steer.training import train_sae, train_saes

CONFIG = TrainConfig("topk", k=3, expansion=2, steps=40, batch_size=128, lr=2e-3)
# so many features that some are dead at any time: who forgets since when ends elsewhere
RESUMED = replace(CONFIG, activation="batchtopk", expansion=8, dead_after=300)
DATA = torch.randn(3000, 16, generator=torch.Generator().manual_seed(1)).relu() @ torch.randn(
    16, 16, generator=torch.Generator().manual_seed(2)
)


def quietly(data: Tensor | ActivationStore, config: TrainConfig, folder: Path | None = None, **options: Any) -> SAE:
    return train_sae(data, config, folder, progress=False, device="cpu", **options)


# --- what is seen of it, and how it is stopped ---


def test_a_callback_gets_each_line_of_the_log(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    data = DATA
    configs = [replace(CONFIG, steps=150), replace(CONFIG, steps=150, seed=1)]
    train_saes(data, configs, tmp_path, progress=False, device="cpu", checkpoint_every=60, callback=lines.append)
    assert [line["step"] for line in lines] == [60, 100, 120, 150]
    assert lines == [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert all(len(line[name]) == 2 for line in lines for name in ("loss", "explained_variance", "l0", "dead_share"))


def test_checkpoints_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[float | None, list[int]] = {}
    own, data, config = Run.save, DATA, replace(CONFIG, steps=12)
    for minutes in (None, 1e9, 0.0):
        steps = saved[minutes] = []
        monkeypatch.setattr(Run, "save", lambda run, step, steps=steps: (steps.append(step), own(run, step)))
        quietly(data, config, tmp_path / str(minutes), checkpoint_every=7, checkpoint_minutes=minutes)
    assert saved == {None: [7, 12], 1e9: [7, 12], 0.0: list(range(1, 13))}
    # the log does not depend on how fast the machine is
    assert (tmp_path / "0.0" / LOG).read_text() == (tmp_path / "None" / LOG).read_text()


class Group3:
    """The second of three processes; the clock of the first one says `late`, and Ctrl-C was pressed in the last one."""

    size, rank, late, pressed = 3, 1, False, False

    def together(self, job: Callable[[], tuple[bool, bool]]) -> list[tuple[bool, bool]]:
        return [(self.late, False), job(), (False, self.pressed)]


def test_several_processes_agree_on_when() -> None:
    group: Any = Group3()
    schedule = Schedule(group, steps=100, every=30, minutes=0.0)
    assert [step for step in range(1, 101) if schedule.due(step)] == [30, 60, 90, 100]  # not by its own clock
    group.late = True
    assert [step for step in range(1, 101) if schedule.due(step)] == [20, 30, 40, 60, 80, 90, 100]
    group.late, group.pressed = False, True
    assert next(step for step in range(1, 60) if schedule.due(step)) == 20 and schedule.stopped


def test_ctrl_c_saves_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGINT)
    config, data = replace(RESUMED, steps=130), DATA

    def press(line: dict[str, Any]) -> None:
        if line["step"] == 100:
            os.kill(os.getpid(), signal.SIGINT)

    options: dict[str, Any] = {"device": "cpu", "callback": press, "checkpoint_every": 10_000}
    with pytest.raises(KeyboardInterrupt):
        train_sae(data, config, tmp_path, **options)
    assert "stopped after step 101; the same call goes on from there" in caplog.text
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 101
    resumed, undisturbed = quietly(data, config, tmp_path), quietly(data, config)
    for name, value in undisturbed.named_parameters():
        assert torch.equal(resumed.get_parameter(name), value), name


def test_ctrl_c_in_the_last_step_and_twice_and_without_a_folder(tmp_path: Path) -> None:
    data, config = DATA, replace(CONFIG, steps=100)
    for name, times, steps, saved in (("last", 1, 100, True), ("twice", 2, 130, False), (None, 1, 130, False)):

        def press(line: dict[str, Any], times: int = times) -> None:
            for _ in range(times if line["step"] == 100 else 0):
                os.kill(os.getpid(), signal.SIGINT)

        folder = tmp_path / name if name else None
        options: dict[str, Any] = {"progress": False, "device": "cpu", "callback": press}
        with pytest.raises(KeyboardInterrupt):
            train_sae(data, replace(config, steps=steps), folder, **options)
        assert (folder is not None and (folder / STATE).exists()) == saved
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupts_are_the_main_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        sae = pool.submit(quietly, DATA, CONFIG, tmp_path).result()
    assert sae.d_sae == 32 and (tmp_path / STATE).exists()


def test_busy_cores_are_told_to_people(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("steer.training.busy_notice", lambda: "the cores are busy")
    for progress in (True, False):
        train_sae(DATA, CONFIG, progress=progress, device="cpu")
        assert ("the cores are busy" in caplog.text) == progress
        caplog.clear()


# --- from sounds ---


class Counting(AudioModel):
    """A convolution that counts how often it is run."""

    runs = 0

    def __init__(self) -> None:
        sites = [Site("conv", "", "BDT", frame_rate=800.0)]
        torch.manual_seed(0)
        super().__init__(nn.Conv1d(1, 8, 10, 10), sites, name="conv", sample_rate=8000)

    def run(self, audio_BCN: Tensor) -> Any:
        type(self).runs += 1
        return super().run(audio_BCN)


def test_from_sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "runs", 0)
    model, generator = Counting(), torch.Generator().manual_seed(3)
    clips = [Clip(torch.rand(8000, generator=generator) - 0.5, 8000, str(i)) for i in range(4)]
    from_store = quietly(fill(tmp_path / "store", model, clips, "conv", batch=4), CONFIG)
    direct = quietly(clips, CONFIG, model=model, sites="conv")
    kept = quietly(clips, CONFIG, tmp_path / "out", model=model, sites=["conv"])
    assert Counting.runs == 3  # four sounds of equal length at once
    again = quietly(clips, CONFIG, tmp_path / "out", model=model, sites="conv")  # what is stored is not run again
    assert Counting.runs == 3
    for sae in (direct, kept, again):
        assert torch.equal(sae.W_enc, from_store.W_enc) and sae.info == from_store.info
    assert (direct.info.model, direct.info.site, direct.info.frame_rate) == ("conv", "conv", 800.0)
    assert list(ActivationStore(tmp_path / "out" / "activations").sites) == ["conv"]


def test_sounds_need_a_site() -> None:
    with pytest.raises(TrainingError, match=r"where in the model: pass sites="):
        quietly([], CONFIG, model=Counting())
    with pytest.raises(TrainingError, match="there are several sites: use train_saes"):
        quietly([], CONFIG, model=Counting(), sites=["conv", "other"])
