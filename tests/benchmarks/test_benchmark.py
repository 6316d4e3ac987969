"""The statistics by exact arithmetic, and every line at tiny sizes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import peers, timing
from benchmarks.__main__ import main
from benchmarks.growth import drawn
from benchmarks.lines import LINES, measure
from benchmarks.machine import describe
from benchmarks.models import hubert, random_sae, sharing, threshold
from benchmarks.settings import Aim, Settings, row
from benchmarks.timing import Sample, Spread, Timing, Variant, calmest, compare, peak_bytes
from evaluation.report import Interval, Report
from hooks.errors import MissingExtraError

QUICK = Settings(rounds=1, quick=True)


def samples(*pairs: tuple[float, float]) -> tuple[Sample, ...]:
    return tuple(Sample(seconds, waited) for seconds, waited in pairs)


def test_a_spread_is_the_median_and_its_quartiles() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(3, 2, 4, 5)
    assert Spread.of([4, 1, 3, 2]) == Spread(2.5, 1.75, 3.25, 4)
    assert Spread.of([7.0]) == Spread(7, 7, 7, 1)


def test_ratios_are_of_the_same_round() -> None:
    # the machine slows down threefold, the ratio stays
    timing = Timing(samples((2, 0), (4, 0), (6, 0)), samples((1, 0), (2, 0), (3, 0)))
    assert timing.ratio == Spread(2, 2, 2, 3)
    assert timing.seconds == Spread(4, 3, 5, 3)
    assert timing.extra_s == Spread(2, 1.5, 2.5, 3)


def test_rounds_in_which_either_was_disturbed_do_not_count() -> None:
    own = samples((2, 0), (90, 0.5), (2, 0), (2, 0.01), (2, 0))
    base = samples((1, 0), (1, 0), (90, 0.2), (1, 0), (1, 0.02))
    timing = Timing(own, base)
    assert timing.kept == [0, 3, 4]
    assert not timing.disturbed
    assert timing.ratio == Spread(2, 2, 2, 3)


def test_where_all_rounds_are_disturbed_the_calmest_count_and_it_is_said() -> None:
    own = samples((2, 0.4), (2, 0.1), (9, 0.9), (4, 0.2), (2, 0.0))
    timing = Timing(own, samples(*[(1, 0.0)] * 5))
    assert timing.kept == [1, 3, 4]
    assert timing.disturbed
    assert timing.ratio.value == 2
    assert row("x", "y", timing)["disturbed"] == "yes"
    assert Timing(own[:1], own[:1]).kept == [0]


def test_a_disturbed_sample_is_taken_again() -> None:
    waited = iter([0.5, 0.2, 0.01, 0.0])
    assert calmest(lambda: Sample(1.0, next(waited))).waited == 0.01
    waited = iter([0.5, 0.2, 0.3, 0.0])
    assert calmest(lambda: Sample(1.0, next(waited))).waited == 0.2  # no fourth try


def test_variants_take_turns_and_what_is_around_them_is_not_timed() -> None:
    calls: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        calls.append("on")
        time.sleep(0.02)
        yield
        calls.append("off")

    variants = {"a": lambda: calls.append("a"), "b": Variant(lambda: calls.append("b"), around)}
    times = compare(variants, "a", rounds=2, sample_s=0.0)
    tries = [name for name, next_name in zip(calls, [*calls[1:], ""], strict=True) if name != next_name]
    # first each once to see how long it takes, then the rounds
    assert tries == ["a", "on", "b", "off", "a", "on", "b", "off", "on", "b", "off", "a"]
    assert times["b"].seconds.high < 0.02
    assert times["a"].ratio == Spread(1, 1, 1, 2)


def test_short_calls_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats: list[int] = []

    def noted(run: object, count: int) -> Sample:
        repeats.append(count)
        return Sample(0.01)

    monkeypatch.setattr(timing, "measured", noted)
    compare({"a": lambda: None}, "a", rounds=1, sample_s=0.05)
    assert repeats == [1, 5]


def test_the_time_that_a_sleep_takes_is_not_waiting_for_a_core() -> None:
    sample = timing.measured(lambda: time.sleep(0.05), 2)
    assert 0.05 <= sample.seconds < 0.5
    assert 0 <= sample.waited < 1


def test_peak_memory_is_that_of_what_is_alive_at_once() -> None:
    def both() -> None:
        first, second = torch.empty(1000), torch.empty(2000)
        del first, second

    def one_after_another() -> None:
        torch.empty(1000)
        torch.empty(2000)

    assert peak_bytes(both) == 12_000
    assert peak_bytes(one_after_another) == 8000


def test_aims() -> None:
    assert str(Aim("<=", 1.02)) == "<= 1.02"
    assert Aim("<=", 1.02).reached(1.02) and not Aim("<=", 1.02).reached(1.03)
    assert Aim(">=", 2.2).reached(3.0) and not Aim(">=", 2.2).reached(2.1)
    slow = Timing(samples((3, 0)), samples((1, 0)))
    assert row("x", "y", slow, aim=Aim("<=", 2))["reached"] == "no"
    # the aim is for the number where there is one
    assert row("x", "y", slow, number=1.0, aim=Aim("<=", 2))["reached"] == "yes"


def test_saes_that_share_weights_have_as_many_active_features() -> None:
    sae, x_ND = random_sae(16, 128, "topk", 4), torch.randn(200, 16)
    jumprelu = sharing(sae, "jumprelu", x_ND)
    assert jumprelu.W_enc is sae.W_enc and jumprelu.W_dec is sae.W_dec
    assert float((jumprelu.encode(x_ND) > 0).sum(-1).float().mean()) == pytest.approx(4, abs=0.05)
    assert threshold(sae, x_ND) == float(jumprelu.threshold[0])


@cache
def measured(line: str) -> Any:
    return LINES[line](QUICK)


@pytest.mark.parametrize("line", LINES)
def test_every_line_gives_finite_positive_numbers(line: str) -> None:
    try:
        told = measured(line)
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert len(told.rows) >= 2
    for one in told.rows:
        assert list(one) == list(told.rows[0])
        assert one["ms"] is not None or one["number"] is not None
        for value in (one["ms"], one["x base"]):
            if value is not None:
                assert all(0 < part < math.inf for part in (value.low, value.value, value.high))
        if one["number"] is not None and one["unit"] != "us a layer":  # a difference, which noise can turn
            assert 0 < one["number"] < math.inf
    variants = [(one["line"], one["variant"]) for one in told.rows]
    assert len(set(variants)) == len(variants)


def test_growth_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figure")
    pytest.importorskip("transformers", reason="HuBERT's own code")
    rows = measured("growth").rows
    figure = drawn(rows)
    assert [axes.get_title() for axes in figure.axes] == list(dict.fromkeys(one["line"] for one in rows))
    (ms, megabytes) = figure.axes[0].lines[0], figure.axes[0].lines[-1]
    assert ms.get_ydata().tolist() == [one["ms"].value for one in rows[: len(ms.get_ydata())]]
    assert list(megabytes.get_ydata()) == [one["number"] for one in rows[: len(ms.get_ydata())]]
    assert drawn([row("hook", "x", number=1.0)]) is None


def test_no_edit_is_said_to_be_bit_identical() -> None:
    pytest.importorskip("whisper", reason="Whisper's own code")
    rows = measured("whisper").rows
    assert "wrapped, no edit (bit-identical)" in [one["variant"] for one in rows]
    assert {one["variant"].split(",")[0] for one in rows} >= {"plain", "relu", "jumprelu", "batchtopk", "topk"}


def test_the_models_are_of_published_size() -> None:
    pytest.importorskip("transformers", reason="HuBERT's own code")
    with torch.device("meta"):
        subject = hubert(Settings())
    assert sum(parameter.numel() for parameter in subject.root.parameters()) == 94_371_712  # as published
    assert len(subject.sites) == 12


def test_peers_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MODULES", {"eai-sparsify": "no_such_module", "nnsight": "json"})
    peers.load.cache_clear()
    monkeypatch.setattr(peers, "version_of", {"nnsight": "1.2"}.get)
    try:
        assert peers.remark("nnsight", "eai-sparsify") == "peers: nnsight 1.2; not here: eai-sparsify"
        assert peers.remark("eai-sparsify") == "not here: eai-sparsify"
    finally:
        peers.load.cache_clear()


def test_a_line_whose_library_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(settings: Settings) -> None:
        raise MissingExtraError("transformers is not installed: pip install 'audiosteer[ssl]'")

    monkeypatch.setitem(LINES, "hubert", missing)
    *_, report = measure(["hook", "hubert"], QUICK)
    assert {one["line"] for one in report.rows} == {"hook"}
    assert report.about["remarks"]["hubert"].startswith("left out: transformers is not installed")


def test_the_machine_is_described() -> None:
    about = describe()
    assert about["threads"] == torch.get_num_threads()
    assert torch.__version__.startswith(about["versions"]["torch"].partition("+")[0])
    assert about["processor"] and about["backend"]
    assert "Build settings" not in about["torch_build"]
    json.dumps(about)


@pytest.fixture
def ran(tmp_path: Path) -> tuple[str, Report]:
    import typer

    app = typer.Typer()
    app.command()(main)
    threads = torch.get_num_threads()
    arguments = [
        "--lines",
        "hook,edit",
        "--quick",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == threads
    return result.output, Report.load(tmp_path / "out" / "benchmark.json")


def test_the_table_and_the_json_hold_the_same(ran: tuple[str, Report], tmp_path: Path) -> None:
    printed, report = ran
    assert report.about["threads"] == 1 and report.about["quick"] is True
    assert {one["line"] for one in report.rows} == {"hook", "edit"}
    for one in report.rows:
        if one["ms"] is not None:
            assert isinstance(one["ms"], Interval) and one["ms"].count == 1
        assert one["variant"].split()[0] in printed
    assert report.to_dict() == json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert (tmp_path / "out" / "benchmark.md").read_text().count("\n") == 2 + len(report.rows)


def test_as_a_command_every_line_has_its_own_process() -> None:
    command = [sys.executable, "-m", "benchmarks", "--lines", "hook", "--quick", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr
    assert "our hooks" in done.stdout


def test_an_unknown_line_is_refused() -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--lines", "hook,speed"])
    assert result.exit_code == 2
    assert "speed" in result.output


def test_the_lines_of_a_gpu_are_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, said in (("cuda", "cannot use a GPU"), ("tpu", "no device")):
        result = CliRunner().invoke(app, ["--device", device])
        assert result.exit_code == 2 and said in " ".join(result.output.split())


def test_a_gpu_times_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events say how long; the clock is not asked for that."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None: ...

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: object) -> float:
            return 60.0  # ms

    calls: list[int] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert timing.measured_by_events(lambda: calls.append(1), 3).seconds == pytest.approx(0.02)
    assert len(calls) == 3
    times = Settings(rounds=1, quick=True, device="cuda").compare({"a": lambda: None}, "a")
    assert times["a"].seconds.value == pytest.approx(0.06)


def test_the_check_of_a_gpu_runs_on_a_cpu_at_tiny_sizes(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "gpu_check.sh"
    environment = {**os.environ, "DEVICE": "cpu", "LINES": "ceilings", "PYTHON": sys.executable}
    done = subprocess.run([script, tmp_path], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = Report.load(tmp_path / "benchmark.json")
    assert {one["variant"] for one in report.rows} == {"copy", "product, fp32", "product, bf16"}
    assert report.about["device"] == "cpu"
