import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hooks import AudioModel, Clip, Site
from hooks.store import ActivationStore
from hooks.store_writing import fill
from steer import matmul
from steer.checkpoints import CURVE, LOG, STATE, Run
from steer.errors import TrainingError
from steer.sae import SAE, SAEInfo
from steer.trainee import TrainConfig, Trainee, fold_scale, rate_at
from steer.training import measure, train_sae, train_saes

CPU = torch.device("cpu")
CONFIG = TrainConfig("topk", k=3, expansion=2, steps=40, batch_size=128, lr=2e-3)
KINDS = {
    "relu": replace(CONFIG, activation="relu", sparsity=1.0),
    "relu-rms": replace(CONFIG, activation="relu", sparsity=0.3, rms_norm=True),
    "topk": CONFIG,
    "topk-rms": replace(CONFIG, rms_norm=True),
    "batchtopk": replace(CONFIG, activation="batchtopk"),
    "jumprelu": replace(CONFIG, activation="jumprelu", sparsity=0.3),
    "gated": replace(CONFIG, activation="gated", sparsity=1.0),
}


def planted(frames: int = 6000, width: int = 16, features: int = 24) -> tuple[Tensor, Tensor]:
    """Frames that are sparse sums of known directions around a mean: what an SAE can take apart. And the directions."""
    g = torch.Generator().manual_seed(7)
    directions = nn.functional.normalize(torch.randn(features, width, generator=g), dim=1)
    active = torch.rand(frames, features, generator=g) < 0.1
    amounts = active * (1 + torch.rand(frames, features, generator=g))
    return 40 * (amounts @ directions + 0.3 * torch.randn(width, generator=g)), directions


def quietly(data: Tensor, config: TrainConfig, folder: Path | None = None, **options: Any) -> SAE:
    return train_sae(data, config, folder, progress=False, device="cpu", **options)


# --- what is learned ---


@pytest.mark.parametrize("kind", KINDS)
def test_explains_sparse_data_with_few_features(kind: str) -> None:
    data, _ = planted()
    config = replace(KINDS[kind], steps=500, dead_after=20_000)
    metrics = quietly(data, config).info.metrics
    # 2.4 of 24 directions are active on average; untrained SAEs explain at most 0.33, those without top-k with L0 16
    assert metrics["explained_variance"] > 0.7
    assert 1 < metrics["l0"] < 12
    assert metrics["dead_share"] < 0.5


def test_finds_the_directions_that_are_there() -> None:
    data, directions = planted()
    sae = quietly(data, replace(KINDS["batchtopk"], steps=1000, dead_after=20_000))
    found = nn.functional.normalize(sae.W_dec, dim=1)
    best = (directions @ found.T).amax(1)
    assert (best > 0.9).float().mean() > 0.8  # a random direction of 16 reaches 0.9 with a chance of about 1e-6


def test_more_penalty_means_fewer_features() -> None:
    data, _ = planted()
    for kind in ("relu", "jumprelu", "gated"):
        weak, strong = (
            quietly(data, replace(KINDS[kind], steps=300, sparsity=s)).info.metrics["l0"] for s in (0.1, 3.0)
        )
        assert strong < 0.8 * weak, kind


def test_batchtopk_threshold_stands_for_the_batch() -> None:
    data, _ = planted()
    sae = quietly(data, replace(KINDS["batchtopk"], steps=500))
    assert (sae.threshold > 0).all()
    assert measure(sae, data)["l0"] == pytest.approx(3, abs=0.5)  # the k of training, now frame by frame


@pytest.mark.parametrize("kind", KINDS)
def test_first_step_follows_the_gradient_of_the_loss(kind: str) -> None:
    """All parameters but the batchtopk threshold move, and a small step lowers the loss on its batch."""
    data, _ = planted(512)
    config = replace(KINDS[kind], lr=1e-4, steps=1)
    trainee = Trainee("", config, data, CPU)
    before = {name: value.detach().clone() for name, value in trainee.sae.named_parameters()}
    first = trainee.step(data, 0)
    still = {name for name, value in trainee.sae.named_parameters() if torch.equal(value, before[name])}
    assert not still
    assert trainee.step(data, 0)["loss"] < first["loss"]


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_trains_as_fp32_does(kind: str) -> None:
    """Rounded to 8 bits, products of the first step are off by 1 % at most, and the loss of thirty by no more."""
    data, _ = planted(512)
    losses = {}
    for bf16 in (False, True):
        trainee = Trainee("", replace(KINDS[kind], lr=1e-3, steps=30, bf16=bf16), data, CPU)
        losses[bf16] = [float(trainee.step(data, step)["loss"]) for step in range(30)]
        assert all(value.dtype == torch.float32 for value in trainee.sae.parameters())
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert losses[True] != losses[False]
    assert losses[True][-1] < losses[True][0]


# --- the normalised space ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 500.0])
def test_folded_weights_give_the_same_on_raw_activations(kind: str, size: float) -> None:
    data = planted(512)[0] * size
    trainee = Trainee("", KINDS[kind], data, CPU)
    for step in range(5):
        trainee.step(data, step)
    assert float((data * trainee.scale).norm(dim=1).mean()) == pytest.approx(4, rel=1e-4)  # sqrt(16)
    inside, outside = trainee.sae, trainee.finished()
    with torch.no_grad():
        f = inside.encode(data * trainee.scale)
        torch.testing.assert_close(outside.encode(data), f, atol=1e-4, rtol=1e-4)  # fp32 through other magnitudes
        expected = inside.decode(f) / trainee.scale
    torch.testing.assert_close(outside(data), expected, rtol=1e-3, atol=1e-4 * float(data.abs().max()))


@pytest.mark.parametrize("center", [True, False])
def test_folding_without_centring(random_sae: Callable[..., SAE], center: bool) -> None:
    sae, x = random_sae("gated", center=center), torch.randn(20, 12)
    f, y = sae.encode(x), sae(x)
    fold_scale(sae, 8.0)
    torch.testing.assert_close(sae.encode(x / 8), f, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x / 8), y / 8, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_rows_keep_length_one(kind: str) -> None:
    data, _ = planted(512)
    trainee = Trainee("", KINDS[kind], data, CPU)
    for step in range(5):
        trainee.step(data, step)
    if KINDS[kind].rms_norm:
        return
    torch.testing.assert_close(trainee.sae.W_dec.detach().norm(dim=1), torch.ones(32))
    # what Adam has stored is at right angles to the rows as they were: it never pulls at their length
    mean = trainee.optimizer.state[trainee.sae.W_dec]["exp_avg"]
    along = (mean * trainee.sae.W_dec.detach()).sum(1).abs()
    assert (along < 0.05 * mean.norm(dim=1) + 1e-9).all()  # rows turned a little since


def test_starts_at_the_centre_of_the_data() -> None:
    data, _ = planted()
    trainee = Trainee("", CONFIG, data, CPU)
    torch.testing.assert_close(trainee.sae.b_dec.detach() / trainee.scale, data.mean(0), rtol=1e-4, atol=1e-3)


# --- dead features ---


@pytest.mark.parametrize("kind", KINDS)
def test_dead_features_come_back(kind: str) -> None:
    data, _ = planted()
    shares = {}
    for dead_after in (2000, 10**9):
        trainee = Trainee("", replace(KINDS[kind], expansion=4, steps=300, lr=6e-3, dead_after=dead_after), data, CPU)
        with torch.no_grad():
            trainee.sae.b_enc[:40] = -6.0  # 40 of 64 hardly ever fire from here
        for step in range(300):
            trainee.step(data[torch.arange(128) + 128 * (step % 40)], step)
        shares[dead_after] = measure(trainee.finished(), data)["dead_share"]
    assert shares[10**9] > 0.5
    assert shares[2000] < 0.5 * shares[10**9]


# --- metrics ---


def test_metrics_by_hand(random_sae: Callable[..., SAE]) -> None:
    sae, x = random_sae("topk"), torch.randn(20_000, 12) * 3 + 50  # more than one block, far from zero
    f = sae.encode(x)
    error, spread = (x - sae.decode(f)).square().sum(), (x - x.mean(0)).square().sum()
    metrics = measure(sae, x)
    assert metrics["explained_variance"] == pytest.approx(float(1 - error / spread), rel=1e-4)
    assert metrics["l0"] == pytest.approx(float((f > 0).sum(1).float().mean()))
    assert metrics["dead_share"] == pytest.approx(float((f.amax(0) == 0).float().mean()))
    spans = [(0, 100), (700, 9000)]
    some = measure(sae, x, spans)
    assert some == pytest.approx(measure(sae, torch.cat([x[a:b] for a, b in spans])), rel=1e-6)


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
def test_metrics_of_saes_that_normalise_each_activation(random_sae: Callable[..., SAE], normalize: str) -> None:
    sae, x = random_sae("relu", normalize=normalize), torch.randn(500, 12) * 3
    error, spread = (x - sae(x)).square().sum(), (x - x.mean(0)).square().sum()
    assert measure(sae, x)["explained_variance"] == pytest.approx(float(1 - error / spread), rel=1e-4)


def test_metrics_need_no_float64(random_sae: Callable[..., SAE], monkeypatch: pytest.MonkeyPatch) -> None:
    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            return result

    sae, x = random_sae("relu"), torch.randn(500, 12)
    expected = measure(sae, x)
    monkeypatch.setattr("steer.training.widest", lambda device: torch.float32)
    with NoFloat64():
        assert measure(sae, x) == pytest.approx(expected, rel=1e-5)


def test_the_finished_sae_draws_no_random_numbers() -> None:
    trainee = Trainee("s", CONFIG, torch.randn(50, 8), CPU)
    before = torch.get_rng_state()
    trainee.finished()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mean_explains_nothing(random_sae: Callable[..., SAE]) -> None:
    sae, x = random_sae("relu"), torch.randn(500, 12) + 9
    sae.b_enc.fill_(-1e6)
    sae.b_dec.copy_(x.mean(0))
    assert measure(sae, x)["explained_variance"] == pytest.approx(0, abs=1e-5)


def test_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[49] == rates[700] == 1
    assert rates[900] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.01
    assert all(0 < rate_at(step, steps) <= 1 for steps in (1, 2, 5) for step in range(steps))


# --- several at once ---


def test_trained_together_is_as_trained_alone() -> None:
    a, b = planted()[0], planted(3000, 8)[0]
    configs = [CONFIG, replace(CONFIG, seed=1), KINDS["jumprelu"]]
    together = train_saes({"a": a, "b": b}, configs, progress=False, device="cpu")
    assert [sae.info.site for sae in together] == ["a", "a", "a", "b", "b", "b"]
    alone = [quietly(data, config) for data in (a, b) for config in configs]
    for one, other in zip(together, alone, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(together[0].W_enc, together[1].W_enc)


def test_from_a_store(tmp_path: Path) -> None:
    model = AudioModel(
        nn.Conv1d(1, 8, 10, 10), [Site("conv", "", "BDT", frame_rate=800.0)], name="conv", sample_rate=8000
    )
    store = fill(tmp_path, model, [Clip(torch.rand(8000) - 0.5, 8000, str(i)) for i in range(4)], ["conv"])
    sae = train_sae(store, CONFIG, progress=False, device="cpu", info=SAEInfo(data="noise", license="CC0"))
    info = sae.info
    assert (info.model, info.site, info.sample_rate, info.frame_rate) == ("conv", "conv", 8000, 800.0)
    assert (info.data, info.license) == ("noise", "CC0")
    assert info.extra["training"]["activation"] == "topk"
    from_memory = quietly(store.frames("conv")[:], CONFIG)
    assert torch.equal(sae.W_enc, from_memory.W_enc)


def test_a_store_of_several_writers_trains_the_same_weights(tmp_path: Path) -> None:
    clips = [Clip(torch.rand(3000 + 100 * i) - 0.5, 8000, f"{i:02d}") for i in range(12)]
    torch.manual_seed(0)
    module = nn.Conv1d(1, 8, 10, 10)

    def write(name: str, part: slice) -> ActivationStore:
        model = AudioModel(deepcopy(module), [Site("conv", "", "BDT", frame_rate=800.0)], name="conv", sample_rate=8000)
        return fill(tmp_path / name, model, clips[part], ["conv"], shard_bytes=10_000)

    one = write("one", slice(None))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, ["three"] * 3, [slice(6, None), slice(0, None, 2), slice(9, None, -1)]))
    three = ActivationStore(tmp_path / "three")
    assert three.shards.keys() != one.shards.keys()
    assert len(three.shards) > 3
    assert three.sources == one.sources
    weights = [quietly(store, CONFIG).state_dict() for store in (one, three)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# --- files ---


def test_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the loss curve")
    sae = quietly(planted()[0], replace(CONFIG, steps=150), tmp_path, checkpoint_every=60)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [60, 100, 120, 150]
    assert lines[-1]["loss"][0] < lines[0]["loss"][0]
    assert (tmp_path / CURVE).read_bytes().startswith(b"\x89PNG")
    loaded = SAE.load(tmp_path)
    assert torch.equal(loaded.W_enc, sae.W_enc)
    assert loaded.info.metrics == sae.info.metrics
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


TRAIN = """
import sys; sys.path[:0] = sys.argv[2:]
import torch; torch.set_num_threads(1)
from pathlib import Path
from test_training import RESUMED, planted, quietly
quietly(planted()[0], RESUMED, Path(sys.argv[1]), checkpoint_every=7)
"""
# so many features that some are dead at any time: who forgets since when ends elsewhere
RESUMED = replace(KINDS["batchtopk"], steps=300, expansion=8, dead_after=300)


def test_killed_and_resumed_ends_at_the_same_weights(tmp_path: Path) -> None:
    here = Path(__file__)
    paths = [str(here.parent), str(here.parents[2])]
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(tmp_path), *paths])
    while process.poll() is None and not (tmp_path / STATE).exists():
        time.sleep(0.01)
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = torch.load(tmp_path / STATE, weights_only=True)["step"]
    assert 0 < done < 300
    data, _ = planted()
    resumed = quietly(data, RESUMED, tmp_path)
    undisturbed = quietly(data, RESUMED)
    for name, value in undisturbed.named_parameters():
        assert torch.equal(resumed.get_parameter(name), value), name
    steps = [json.loads(line)["step"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 300


LARGE = replace(KINDS["topk"], steps=30, expansion=2, batch_size=4096)
"""With 64 channels its products, by 1024 rows, are of 2**23 multiplications: large enough for oneDNN."""


@pytest.fixture
def other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second library that surely rounds otherwise: it adds up the products from the last to the first."""
    monkeypatch.setattr(matmul, "onednn", lambda x, W, b: matmul.plain(x.flip(-1), W.flip(0), b))
    monkeypatch.setattr(matmul, "precise", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)  # or that library would not be asked


class Stopped(Exception):
    """What ends a training in these tests."""


def stop_after(step: int, data: Tensor, config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and end as a process that is killed does right after the checkpoint of a step."""
    save = Run.save

    def save_and_stop(run: Run, done: int) -> None:
        save(run, done)
        if done == step:
            raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Run, "save", save_and_stop)
        quietly(data, config, folder, checkpoint_every=step)


def test_a_resumed_run_multiplies_as_its_checkpoint_did(
    tmp_path: Path, other_order: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = planted(9000, width=64)
    with matmul.using("oneDNN"):
        undisturbed = quietly(data, LARGE)
        stop_after(10, data, LARGE, tmp_path, monkeypatch)
    assert torch.load(tmp_path / STATE, weights_only=True)["arithmetic"]["product"] == "oneDNN"
    with matmul.using("addmm"):
        other = quietly(data, LARGE)
        resumed = quietly(data, LARGE, tmp_path)
    assert not torch.equal(other.W_enc, undisturbed.W_enc)
    for name, value in undisturbed.named_parameters():
        assert torch.equal(resumed.get_parameter(name), value), name
    assert torch.load(tmp_path / STATE, weights_only=True)["arithmetic"]["product"] == "oneDNN"


def test_a_checkpoint_says_how_it_was_computed(tmp_path: Path) -> None:
    quietly(planted()[0], CONFIG, tmp_path)
    assert torch.load(tmp_path / STATE, weights_only=True)["arithmetic"] == matmul.arithmetic(CPU)
    assert matmul.arithmetic(CPU)["threads"] == str(torch.get_num_threads())


@pytest.mark.parametrize(
    ("name", "then"), [("torch", "2.9.1"), ("processor", "a Z80"), ("threads", "64"), ("product", "blis")]
)
def test_a_resumed_run_warns_where_it_will_round_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, then: str
) -> None:
    data, _ = planted()
    stop_after(20, data, CONFIG, tmp_path, monkeypatch)
    state = torch.load(tmp_path / STATE, weights_only=True)
    state["arithmetic"][name] = then
    torch.save(state, tmp_path / STATE)
    with pytest.warns(UserWarning, match=f"{name} was {then} and is .*bit for bit"):
        quietly(data, CONFIG, tmp_path)


def test_a_resumed_run_says_nothing_where_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = planted()
    stop_after(20, data, CONFIG, tmp_path, monkeypatch)
    state = torch.load(tmp_path / STATE, weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quietly(data, CONFIG, tmp_path)
        del state["arithmetic"]  # a checkpoint of an earlier version
        torch.save(state, tmp_path / STATE)
        quietly(data, CONFIG, tmp_path)


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    data, _ = planted()
    first = quietly(data, CONFIG, tmp_path)
    state = (tmp_path / STATE).stat().st_mtime_ns
    again = quietly(data, CONFIG, tmp_path)
    assert torch.equal(first.W_enc, again.W_enc)
    assert (tmp_path / STATE).stat().st_mtime_ns == state


# --- errors ---


def test_another_training_is_not_continued(tmp_path: Path) -> None:
    data, _ = planted()
    quietly(data, CONFIG, tmp_path)
    for other, config in ((data, replace(CONFIG, lr=1e-3)), (data[:-1], CONFIG)):
        with pytest.raises(TrainingError, match="checkpoint of another training"):
            quietly(other, config, tmp_path)
    (tmp_path / STATE).write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="cannot be read"):
        quietly(data, CONFIG, tmp_path)


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    data, _ = planted(600)
    for bad, config, message in [
        (data, replace(CONFIG, steps=0), "positive"),
        (data, replace(CONFIG, activation="soft"), "unknown activation"),
        (data, replace(CONFIG, k=99), "needs k between"),
        (data[:10], CONFIG, "32 or more"),
        (data[None], CONFIG, r"frames \[N, D\]"),
        (data.masked_fill(data > 60, torch.nan), CONFIG, "not finite"),
        ({"a": data, "b": data}, CONFIG, "several sites"),
    ]:
        with pytest.raises(TrainingError, match=message):
            quietly(bad, config)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="the same batch_size"):
        train_saes(data, [CONFIG, replace(CONFIG, batch_size=64)])
    with pytest.raises(TrainingError, match="nothing to train"):
        train_saes(data, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot write there"):
        quietly(data, CONFIG, tmp_path / "file")


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is not finite"):
        quietly(planted()[0], replace(CONFIG, lr=1e30), tmp_path)
    assert not (tmp_path / STATE).exists()
