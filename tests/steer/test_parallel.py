"""Two processes against one. torchrun starts them once, for all checks; the last thing they do is to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hooks.errors import AudioSteerError
from steer import training
from steer.checkpoints import LOG, STATE, Run
from steer.errors import TrainingError
from steer.parallel import ALONE, own_device, process_group
from steer.sae import SAE
from steer.trainee import TrainConfig, Trainee
from steer.training import train_sae, train_saes

TWO_CONFIG = TrainConfig("topk", k=3, expansion=8, steps=60, batch_size=128, lr=2e-3, dead_after=300)
# so many features that some are dead at any time: a process that counts only its own rows ends elsewhere
TWO_KINDS = {
    "relu": replace(TWO_CONFIG, activation="relu", sparsity=1.0),
    "topk": TWO_CONFIG,
    "topk-rms": replace(TWO_CONFIG, rms_norm=True),
    "batchtopk": replace(TWO_CONFIG, activation="batchtopk"),
    "jumprelu": replace(TWO_CONFIG, activation="jumprelu", sparsity=0.3),
    "gated": replace(TWO_CONFIG, activation="gated", sparsity=1.0),
}
# bfloat16 rounds each process's share of a gradient to 8 bits
BF16 = replace(TWO_CONFIG, bf16=True, activation="batchtopk")
SAVED = 20
KILLED_AT = 40
SOON_S = 60.0

SCRIPT = """
import sys; sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_parallel import work
work(Path(sys.argv[1]))
"""


def run_here(config: TrainConfig, folder: Path | None = None, **options: Any) -> SAE:
    """Training on frames whose rows differ in loudness, so that a batch's largest features lie where they like."""
    g = torch.Generator().manual_seed(7)
    active = (torch.rand(6000, 24, generator=g) < 0.1) * (1 + torch.rand(6000, 24, generator=g))
    data = 40 * (active @ torch.randn(24, 16, generator=g) + 0.3) * (0.5 + torch.rand(6000, 1, generator=g))
    return train_sae(data, config, folder, progress=False, device="cpu", **options)


# --- what each of the two does ---


def work(folder: Path) -> None:
    torch.set_num_threads(1)
    training.LOG_EVERY = 1
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # loss curves take longer than the training
    rank, written, told = int(os.environ["RANK"]), [], {}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        makes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (makes or event in ("os.mkdir", "os.rename")) and str(folder) in str(arguments[0]):
            written.append(str(arguments[0]))

    sys.addaudithook(look)
    for name, config in {**TWO_KINDS, "bf16": BF16}.items():
        told[name] = run_here(config, folder / name).state_dict()
    run_here(TWO_CONFIG, folder / "from-one")
    told["gathered"] = gathered()
    told["failures"] = {name: failure(name, folder, rank) for name in FAILURES}
    told["initialised"], told["written"] = dist.is_initialized(), list(written)
    torch.save(told, folder / f"told-{rank}.pt")
    save = Run.save

    def deadly(run: Run, step: int) -> None:
        save(run, step)
        if step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.save = deadly  # type: ignore[method-assign]
    run_here(TWO_CONFIG, folder / "killed", checkpoint_every=SAVED)


def gathered() -> list[Any]:
    with process_group("cpu") as group:
        whole, first = group.gather(torch.arange(3.0)[: 3 * (1 - group.rank)])
        rows = group.rows(torch.arange(6))
        return [whole.tolist(), first, rows.tolist(), float(group.mean(torch.tensor(float(group.rank))))]


FAILURES = ["does not divide", "other configs", "not finite", "disk full", "one fails"]


def failure(name: str, folder: Path, rank: int) -> tuple[str, float]:
    """What is raised, and after how many seconds."""
    config, save, step, start = TWO_CONFIG, Run.save, Trainee.step, time.monotonic()

    def full(run: Run, done: int) -> None:
        raise TrainingError("no space left")

    def fails(trainee: Trainee, x: torch.Tensor, number: int, report: bool = True) -> dict[str, torch.Tensor]:
        if rank == 1 and number == 5:
            raise TrainingError("only here")
        return step(trainee, x, number, report)

    if name == "does not divide":
        config = replace(config, batch_size=127)
    elif name == "other configs":
        config = replace(config, lr=1e-3 * (1 + rank))
    elif name == "not finite":
        config = replace(config, lr=1e30)
    elif name == "disk full":
        Run.save = full  # type: ignore[method-assign]
    else:
        Trainee.step = fails  # type: ignore[method-assign]
    try:
        run_here(config, folder / name)
    except AudioSteerError as error:
        return str(error), time.monotonic() - start
    finally:
        Run.save, Trainee.step = save, step  # type: ignore[method-assign]
    return "nothing", 0.0


# --- what is looked at afterwards ---


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes leave; `from-one` was begun by one process."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        save = Run.save

        def interrupted(run: Run, step: int) -> None:
            save(run, step)
            raise KeyboardInterrupt

        patch.setattr(Run, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_here(TWO_CONFIG, folder / "from-one", checkpoint_every=SAVED)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    here = Path(__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    paths = [str(folder), str(here.parent), str(here.parents[2])]
    ended = subprocess.run([*command, *paths], capture_output=True, text=True, timeout=300, check=False)
    assert (folder / "told-0.pt").exists() and (folder / "told-1.pt").exists(), ended.stderr
    assert ended.returncode != 0  # it was killed
    return folder


@pytest.fixture(scope="module")
def told(two: Path) -> list[dict[str, Any]]:
    return [torch.load(two / f"told-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainConfig], tuple[SAE, list[dict[str, Any]]]]:
    """The SAE and the log of a config that one process trained."""

    def train(config: TrainConfig) -> tuple[SAE, list[dict[str, Any]]]:
        folder = tmp_path_factory.mktemp("one")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "LOG_EVERY", 1)
            sae = run_here(config, folder)
        return sae, lines(folder)

    return train


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def close(ours: SAE, theirs: SAE, tolerance: float) -> None:
    for name, value in theirs.named_parameters():
        size = float(value.abs().max())
        torch.testing.assert_close(ours.get_parameter(name), value, rtol=0, atol=tolerance * size, msg=name)


@pytest.mark.parametrize("kind", TWO_KINDS)
def test_same_losses_and_weights_as_one_process(
    kind: str, two: Path, one: Callable[[TrainConfig], tuple[SAE, list[dict[str, Any]]]]
) -> None:
    """The order in which fp32 numbers are added is all that differs: losses by 1e-5 at every step, weights by 1e-4."""
    sae, expected = one(TWO_KINDS[kind])
    found = lines(two / kind)
    assert [line["step"] for line in found] == list(range(1, 61))
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("loss", "explained_variance", "l0", "dead_share"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), (ours["step"], name)
    assert expected[-1]["loss"][0] < 0.9 * expected[0]["loss"][0]
    if "topk" in kind:
        assert max(line["dead_share"][0] for line in expected) > 0.05  # the auxiliary loss is at work
    trained = SAE.load(two / kind)
    close(trained, sae, 1e-4)
    assert trained.info.metrics == pytest.approx(sae.info.metrics, rel=1e-3)


def test_bf16_is_as_near_as_its_rounding(
    two: Path, one: Callable[[TrainConfig], tuple[SAE, list[dict[str, Any]]]]
) -> None:
    _, expected = one(BF16)
    for ours, theirs in zip(lines(two / "bf16"), expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.03)


def test_all_processes_get_the_same_sae(two: Path, told: list[dict[str, Any]]) -> None:
    for kind in TWO_KINDS:
        saved = SAE.load(two / kind).state_dict()
        for name, value in told[0][kind].items():
            assert torch.equal(told[1][kind][name], value), (kind, name)
            assert torch.equal(saved[name], value), (kind, name)


def test_only_the_first_writes(two: Path, told: list[dict[str, Any]]) -> None:
    assert any(STATE in path for path in told[0]["written"])
    assert told[1]["written"] == []


def test_begun_by_one_ended_by_two(two: Path, one: Callable[[TrainConfig], tuple[SAE, list[dict[str, Any]]]]) -> None:
    close(SAE.load(two / "from-one"), one(TWO_CONFIG)[0], 1e-4)
    # one noted its last step, two all of theirs
    assert [line["step"] for line in lines(two / "from-one")] == list(range(SAVED, 61))


def test_killed_with_two_ended_by_one(
    two: Path, one: Callable[[TrainConfig], tuple[SAE, list[dict[str, Any]]]]
) -> None:
    assert torch.load(two / "killed" / STATE, weights_only=True)["step"] == KILLED_AT
    close(run_here(TWO_CONFIG, two / "killed"), one(TWO_CONFIG)[0], 1e-4)
    assert lines(two / "killed")[-1]["step"] == 60


def test_what_is_gathered(told: list[dict[str, Any]]) -> None:
    assert told[0]["gathered"] == [[0, 1, 2], 0, [0, 1, 2], 0.5]
    assert told[1]["gathered"] == [[0, 1, 2], 3, [3, 4, 5], 0.5]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        (
            "does not divide",
            "2 processes cannot share batches of 127 frames",
            "2 processes cannot share batches of 127",
        ),
        ("other configs", "other data or configs", "other data or configs"),
        ("not finite", "the loss is not finite", "the loss is not finite"),
        ("disk full", "no space left", "process 0: no space left"),
        ("one fails", "another process of this training has ended", "only here"),
    ],
)
def test_an_error_in_one_ends_both(name: str, first: str, second: str, told: list[dict[str, Any]]) -> None:
    for rank, message in enumerate((first, second)):
        found, seconds = told[rank]["failures"][name]
        assert message in found
        assert seconds < SOON_S


def test_what_was_started_is_ended(told: list[dict[str, Any]]) -> None:
    assert not told[0]["initialised"] and not told[1]["initialised"]


# --- without others ---


def test_one_process_alone_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(6.0)
    for size in (None, "1"):
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "1") if size else monkeypatch.delenv(name, raising=False)
        with process_group() as group:
            assert group is ALONE
            assert not dist.is_initialized()
            assert group.sum(x) is x and group.mean(x) is x and group.least(x) is x and group.gather(x)[0] is x
            assert torch.equal(group.rows(x), x)
            assert group.once(lambda: 3) == 3


def test_devices_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="on cpu or cuda, not on meta"), process_group("meta"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match="process 2 of this machine has no GPU: there are 2"):
        train_saes(torch.zeros(100, 4), [TWO_CONFIG], device="cuda")
