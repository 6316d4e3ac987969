"""An activation, an edit, a format, an objective, a family, a goal and an evaluator of one's own: a class or function
and a line, then used in Python, in a recipe and by the commands."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from evaluation.config import Config
from evaluation.dataset import read_sounds
from evaluation.evaluators import EVALUATORS
from evaluation.everything import EverythingConfig, plan, summarise
from evaluation.frame import Evaluator
from evaluation.report import Progress, Report
from hooks import AudioModel, capture, open_model, wrap_model
from hooks.extensions import Registry
from hooks.family import Family
from hooks.registry import FAMILIES
from hooks.store import ActivationStore
from steer import SAE, FeatureEdit, Recipe, Scale, TrainConfig, edit_sound, train_sae
from steer.activations import ACTIVATIONS, Activation
from steer.delta import FullEdit, PickedEdit, site_edit
from steer.encoder import Encoder
from steer.errors import RecipeError, SAEError, TrainingError
from steer.formats import FORMATS, Format, find_folder, load_sae, writable, write_sae
from steer.formats.assemble import assemble
from steer.formats.checkpoint import Checkpoint
from steer.goals import GOALS, Goal
from steer.objectives import OBJECTIVES
from steer.passes import Pass
from steer.recipe import VECTORS
from steer.recipe_edits import RECIPE_EDITS, of_features
from steer.values import Frames
from steer.vectors import ControlVector, load_vectors, save_vectors
from tests.hooks.tiny import SITES, Tiny, tiny_model

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
DATA = torch.randn(600, 12, generator=torch.Generator().manual_seed(1)).relu() @ torch.randn(
    12, 12, generator=torch.Generator().manual_seed(2)
)
SMALL = ("--expansion", 2, "--batch-size", 64, "--steps", 20)


@pytest.fixture
def edit(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path) -> Callable[..., Tensor]:
    """The sound that `steer edit --recipe` makes with an SAE in a folder and edits."""

    def run(sae: Path, edits: list[dict[str, Any]]) -> Tensor:
        source = tmp_path / "a.wav" if (tmp_path / "a.wav").exists() else sound("a.wav", 1.0)
        values = {"model": str(codec_folder), "saes": {"latent": str(sae)}, "edits": edits}
        recipe = Recipe.build(values).save(tmp_path / "r.yaml", force=True)
        code, _, told = steer("edit", source, "-o", tmp_path / "out.wav", "--recipe", recipe, "--force")
        assert code == 0, told
        return torch.from_numpy(soundfile.read(tmp_path / "out.wav")[0])

    return run


class Swell(Activation):
    """Rectified, times a gain of its own."""

    parameters = ("gain",)
    penalty = "l1"

    def encode(self, encoder: Encoder, x_XD: Tensor) -> Tensor:
        return encoder.preactivation(x_XD).relu() * encoder.own["gain"].exp()


def test_an_activation(
    steer: Run, sound: Write, codec_folder: Path, edit: Callable[..., Tensor], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as added:
        added.setitem(ACTIVATIONS, "swell", Swell())
        # Python: it is trained with its parameter, edited at the cost of the edit, and written
        config = TrainConfig("swell", expansion=2, sparsity=0.1, steps=40, batch_size=64, lr=1e-2, dead_after=10**6)
        sae = train_sae(DATA, config, progress=False, device="cpu")
        assert sae.gain.abs().max() > 0.01  # type: ignore[operator, union-attr]
        assert sae.info.metrics["explained_variance"] > 0.3
        frames, x = Frames.of(DATA[None], 50.0, 0.0), DATA[None]
        picked = site_edit(sae, [Scale([3, 7], 2.0)])
        assert isinstance(picked, PickedEdit)
        whole = FullEdit(sae, [Scale([3, 7], 2.0)])
        torch.testing.assert_close(picked(x, frames), whole(x, frames), atol=1e-4, rtol=1e-4)
        sae.save(tmp_path / "mine")
        assert torch.equal(load_sae(tmp_path / "mine").encode(DATA), sae.encode(DATA))
        # SAELens refuses what it has no name for; nobody else's format takes it
        assert json.loads((tmp_path / "mine" / "cfg.json").read_text())["architecture"] == "audiosteer_swell"
        for to in set(writable()) - {"saelens"}:
            with pytest.raises(SAEError, match="swell"):
                write_sae(sae, tmp_path / to, to)
        rms = SAE(12, 24, "swell", rms_norm=True)
        rms.save(tmp_path / "rms")
        assert load_sae(tmp_path / "rms").activation == "swell" and load_sae(tmp_path / "rms").rms_norm
        # the command, and a recipe with what it made
        flags = ("--model", codec_folder, *SMALL, "--activation", "swell", "--json")
        code, shown, told = steer("train", sound("b.wav", 2.0), "-o", tmp_path / "out", *flags)
        assert code == 0, told
        assert SAE.load(json.loads(shown)["saes"][0]["folder"]).activation == "swell"
        features = [{"scale": dict.fromkeys(range(32), 0.0)}], [{"scale": dict.fromkeys(range(32), 1.0)}]
        silenced, same = (edit(tmp_path / "out" / "latent", edits) for edits in features)
        assert not torch.equal(silenced, same)
    with pytest.raises(SAEError, match="unknown activation 'swell'; there are relu"):
        load_sae(tmp_path / "mine")
    code, _, told = steer("train", tmp_path / "b.wav", "-o", tmp_path / "no", *flags)
    assert (code, "unknown activation 'swell'" in told, (tmp_path / "no").exists()) == (2, True, False)


class Halve(FeatureEdit):
    """Half of each feature."""

    kind = "halve"

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return f_BTS / 2


def test_an_edit(sae_folder: Path, edit: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPE_EDITS, "halve", of_features(Halve))
    # Python
    sae, x = load_sae(sae_folder), torch.randn(1, 9, 16)
    frames = Frames.of(x, 50.0, 0.0)
    assert torch.equal(site_edit(sae, [Halve([0, 5])])(x, frames), site_edit(sae, [Scale([0, 5], 0.5)])(x, frames))
    # a recipe, and the command
    values = {"model": "m", "saes": {"latent": "s"}, "edits": [{"halve": [0, 5], "during": [[0.0, 0.5]]}]}
    assert Recipe.build(values).edits_for()["latent"] == [Halve([0, 5], during=(0.0, 0.5))]
    assert Recipe.build(values).to_dict()["edits"] == values["edits"]
    with pytest.raises(RecipeError, match=r"no key 'edits.0.halves'; did you mean 'halve'"):
        Recipe.build({**values, "edits": [{"halves": [0]}]})
    everything = list(range(32))
    halved = edit(sae_folder, [{"halve": everything}])
    assert torch.equal(halved, edit(sae_folder, [{"scale": dict.fromkeys(everything, 0.5)}]))
    assert not torch.equal(halved, edit(sae_folder, [{"scale": {0: 1.0}}]))


def test_a_format(steer: Run, sae_folder: Path, edit: Callable[..., Tensor], tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def save(sae: SAE, folder: Path) -> None:
        tensors = {f"mine.{name}": value.contiguous() for name, value in sae.state_dict().items()}
        save_file(tensors, folder / "mine.safetensors", {"k": str(sae.k)})

    def build(checkpoint: Checkpoint) -> SAE:
        state = {name.removeprefix("mine."): value for name, value in checkpoint.state.items()}
        return assemble(checkpoint.name, "topk", state, checkpoint.k or 4)

    known = Format(lambda checkpoint: "mine.W_enc" in checkpoint.state, build, save, "mine.safetensors")
    monkeypatch.setitem(FORMATS, "mine", known)
    # Python
    sae = SAE(12, 24, "topk", 4).requires_grad_(False)
    assert "mine" in writable()
    assert torch.equal(load_sae(write_sae(sae, tmp_path / "one", "mine")).encode(DATA), sae.encode(DATA))
    # the command, and a recipe with what it wrote
    SAE(16, 32, "topk", 4).save(tmp_path / "ours")
    code, _, told = steer("convert", tmp_path / "ours", "-o", tmp_path / "two", "--to", "mine")
    assert code == 0, told
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["mine.safetensors"]
    louder = [{"scale": dict.fromkeys(range(32), 2.0)}]
    assert torch.equal(edit(tmp_path / "two", louder), edit(tmp_path / "ours", louder))


def test_an_objective(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path,
                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def absolute(run: Pass, weight: float) -> Tensor:
        return (run.y_ND - run.x_ND).abs().sum(1).mean() + run.own

    monkeypatch.setitem(OBJECTIVES, "absolute", absolute)
    # Python
    config = TrainConfig("topk", k=4, expansion=2, steps=400, batch_size=64, lr=1e-2)
    mine, usual = (train_sae(DATA, config, objective=one, progress=False, device="cpu") for one in ("absolute", ""))
    errors = [float((sae(DATA) - DATA).abs().mean()) for sae in (mine, usual)]
    assert mine.info.extra["training"]["objective"] == "absolute" and errors[0] < errors[1]
    # the command; recipes do not train
    flags = ("--model", codec_folder, *SMALL, "--activation", "topk", "--k", 4, "--objective")
    code, _, told = steer("train", sound("a.wav", 2.0), "-o", tmp_path / "out", *flags, "absolute")
    assert code == 0, told
    assert SAE.load(tmp_path / "out" / "latent").info.extra["training"]["objective"] == "absolute"
    code, _, told = steer("train", tmp_path / "a.wav", "-o", tmp_path / "no", *flags, "relative")
    assert (code, "unknown objective 'relative'; there are plain" in told) == (2, True)
    assert not (tmp_path / "no").exists()


TINY = Family(
    "tinies",
    names=("tinies:one",),
    classes=(f"{Tiny.__module__}.{Tiny.__qualname__}",),
    wrap=lambda module: AudioModel(module, tiny_model().sites.values(), name="tinies:wrapped", sample_rate=8000),
    open_name=lambda rest, name: tiny_model(name),
)


@pytest.fixture(params=["line", "entry point"])
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The family, added by a line or by an installed package."""
    if request.param == "line":
        monkeypatch.setitem(FAMILIES, "tinies", TINY)
        yield
        return
    entry = SimpleNamespace(name="tinies", load=lambda: TINY)
    found = lambda group: [entry] * (group == "audiosteer.families")  # noqa: E731
    monkeypatch.setattr("hooks.extensions.entry_points", found)
    yield
    del FAMILIES["tinies"]


def test_a_family(family: None, steer: Run, sound: Write, tmp_path: Path) -> None:
    # Python: by name and by class
    assert open_model("tinies:one").name == "tinies:one"
    module = tiny_model().module
    assert (wrap_model(module).name, list(wrap_model(module).sites)) == ("tinies:wrapped", SITES)
    # the commands, and a recipe with a direction for it
    code, shown, told = steer("models", "--json")
    assert code == 0 and "tinies:one" in [row["model"] for row in json.loads(shown)], told
    source = sound("a.wav", 1.0)
    code, _, told = steer("capture", source, "-o", tmp_path / "store", "--model", "tinies:one", "--site", "coarse")
    assert code == 0, told
    (captured,) = capture(open_model("tinies:one"), [source], "coarse")
    stored = ActivationStore(tmp_path / "store").frames("coarse")[:]
    assert torch.equal(stored, captured.activations["coarse"][0].half())
    save_vectors({"coarse": ControlVector(torch.ones(3), site="coarse")}, tmp_path / "d.safetensors")
    recipe = Recipe.build({"model": "tinies:one", "edits": [{"add_direction": str(tmp_path / "d.safetensors")}]})
    steered = recipe.open()
    with steered.edit(recipe.edits_for()):
        (moved,) = capture(steered.model, [source], "coarse")
    torch.testing.assert_close(moved.activations["coarse"], captured.activations["coarse"] + 1)


def peak_db(waveform_CN: Tensor, sample_rate: int) -> float:
    return 20 * math.log10(float(waveform_CN.abs().max()))


def test_a_goal(steer: Run, sound: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, sae = sound("a.wav", 1.0), shutil.copytree(find_folder("starter:codec/latent"), tmp_path / "latent")
    vectors = {"peak": load_vectors(sae / VECTORS)["loudness"]}
    save_vectors(vectors, sae / VECTORS)
    flags = ("--model", "starter:codec", "--sae", sae, "--goal", "peak=-3 dB", "--force")
    with monkeypatch.context() as added:
        added.setitem(GOALS, "peak", Goal("dB", 0.5, peak_db))
        # Python
        edited = edit_sound(source, goals={"peak": "-3dB"}, vectors=vectors)
        before, after = (peak_db(torch.from_numpy(x), 0) for x in (soundfile.read(source)[0], edited.samples.numpy()))
        # 16 bits round a peak by up to 0.003 dB
        assert edited.met and edited.outcome.measured["peak"] == pytest.approx(after - before, abs=0.005)
        assert after - before == pytest.approx(-3, abs=0.5)
        # the command, and its recipe
        recipe = tmp_path / "r.yaml"
        code, shown, told = steer("edit", source, "-o", tmp_path / "o.wav", *flags, "--save-recipe", recipe)
        assert code == 0 and "peak" in shown, told
        assert (tmp_path / "o.wav").read_bytes() == edited.data
        assert Recipe.load(recipe).to_dict()["goals"] == {"peak": "-3dB"}
        with pytest.raises(RecipeError, match=r"goals.peak: '-3st' is not an amount such as \+2dB"):
            Recipe.build({"goals": {"peak": "-3st"}})
    code, _, told = steer("edit", source, "-o", tmp_path / "o.wav", *flags)
    assert (code, "there is no key 'goals.peak'" in told) == (2, True)


def test_installed_packages_add_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> str:
            return f"their {self.name}"

    def entry_points(group: str) -> list[Entry]:
        asked.append(group)
        return [Entry(name) for name in ("a", "b", "d")]

    monkeypatch.setattr("hooks.extensions.entry_points", entry_points)
    registry = Registry("recipe edit", TrainingError, {"a": "our a"})
    assert [registry["a"], registry["b"], registry["b"]] == ["our a", "their b", "their b"]
    assert asked == ["audiosteer.recipe_edits"]
    with pytest.raises(TrainingError, match="unknown recipe edit 'c'; there are a, b, d"):
        registry["c"]
    assert dict(registry) == {"a": "our a", "b": "their b", "d": "their d"}


def test_what_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("no module named nothing")

    entry = SimpleNamespace(name="odd", value="odd.package:it", load=load)
    monkeypatch.setattr("hooks.extensions.entry_points", lambda group: [entry])
    registry = Registry("goal", TrainingError, {"a": 1})
    told = r"goal 'odd': the installed odd.package:it \(audiosteer.goals\) cannot be loaded \(no module named nothing\)"
    with pytest.raises(TrainingError, match=told):
        registry["odd"]
    with pytest.warns(UserWarning, match=told), pytest.raises(TrainingError, match="unknown goal 'b'; there are a"):
        registry["b"]


def test_files_are_read_by_an_installed_packages_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Format(lambda checkpoint: "odd" in checkpoint.state, lambda checkpoint: SAE(2, 4, "relu"), None, "odd.pt")
    entry = SimpleNamespace(name="odd", load=lambda: known)
    with pytest.raises(SAEError, match="no SAE in"):
        load_sae(tmp_path)
    monkeypatch.setattr("hooks.extensions.entry_points", lambda group: [entry] * (group == "audiosteer.formats"))
    torch.save({"odd": torch.ones(1)}, tmp_path / "odd.pt")
    try:
        assert load_sae(tmp_path).d_sae == 4
    finally:
        del FORMATS["odd"]


class LoudestConfig(Config):
    """Which clip is the loudest."""

    unit: Literal["dB", "peak"] = Field(default="dB", description="Of the peak.")


def loudest(config: LoudestConfig, progress: Progress = iter) -> Report:
    sounds = config.dataset.sounds(limit=config.clips)
    peaks = {sound.name: float(clip.waveform.abs().max()) for sound, clip in progress(list(read_sounds(sounds)))}
    name = max(peaks, key=peaks.__getitem__)
    peak = peaks[name] if config.unit == "peak" else 20 * math.log10(peaks[name])
    return Report("Loudest clip", [{"clip": name, "peak": peak}])


def test_an_evaluator_of_an_installed_package(
    steer: Run, codec_folder: Path, sae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Evaluator("loudest", LoudestConfig, loudest, headline=lambda report: [{"number": "peak", **report.rows[0]}])
    entry = SimpleNamespace(name="loudest", load=lambda: one)
    monkeypatch.setattr("hooks.extensions.entry_points", lambda group: [entry] * (group == "audiosteer.evaluators"))
    for name, level in (("a", 0.25), ("b", 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(4800, level), 24_000)
    (tmp_path / "manifest.csv").write_text("path\na.wav\nb.wav\n")
    out, with_what = tmp_path / "out", ("--model", codec_folder, "--sae", sae_folder)
    try:
        # the command, with its options, results that are kept, and JSON
        command = ("evaluate", "loudest", "--audio", tmp_path, "-o", out, *with_what)
        code, told, _ = steer(*command)
        assert code == 0 and f"{tmp_path.name}/b.wav" in told and "-6.02" in told
        assert "measured already" in steer(*command)[1]
        code, told, _ = steer(*command, "--unit", "peak", "--json")
        assert (code, json.loads(told)["rows"]) == (0, [{"clip": f"{tmp_path.name}/b.wav", "peak": 0.5}])
        assert (out / "loudest.md").read_text().endswith("b.wav | 0.5 |\n")
        assert steer(*command, "--unit", "LUFS")[0] == 2
        # in the summary of all; nothing else is measured of recordings that no evaluator knows
        config = EverythingConfig.build({"audio": tmp_path, "model": str(codec_folder), "sae": [str(sae_folder)]})
        planned, _ = plan(config, [EVALUATORS["loudest"]])
        assert (
            summarise("tiny", {"loudest": loudest(planned["loudest"].config)}, planned, {}).rows[0]["number"] == "peak"
        )
    finally:
        EVALUATORS.pop("loudest", None)
