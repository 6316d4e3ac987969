import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioFileError, AudioModel, Clip, Site, SiteError, at_time, open_model
from hooks.capture import Recorder
from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from steer.edits import Ablate, AddDirection, Clamp, Scale, Shift
from steer.errors import EditError, SAEError
from steer.sae import SAE, SAEInfo
from steer.steered import EditHandle, SteeredModel
from steer.values import Curve, PerRow
from steer.vectors import ControlVector

MakeSAE = Callable[..., SAE]
RANDOM = torch.Generator().manual_seed(4)
AUDIO = 0.2 * torch.randn(1, 1, 4000, generator=RANDOM)
VECTOR = torch.randn(40, generator=RANDOM)
RATE = 200.0
"""Latent frames a second of both codecs."""


def wavtokenizer() -> AudioModel:
    config = WavTokenizerConfig(
        sample_rate=8000, dimension=12, n_filters=4, ratios=(5, 4, 2), bins=16, num_quantizers=1, width=16, hidden=24,
        num_layers=2, num_conditions=None, attention=False, n_fft=160,
    )  # fmt: skip
    return WavTokenizerCodec(WavTokenizer(config), "tiny", quantize=False)


def encodec() -> AudioModel:
    transformers = pytest.importorskip("transformers", reason="extra encodec")
    from hooks.families.encodec import EncodecTransformers

    config = transformers.EncodecConfig(
        sampling_rate=8000, hidden_size=12, num_filters=4, upsampling_ratios=[5, 4, 2], codebook_size=16,
        codebook_dim=12, num_lstm_layers=1, target_bandwidths=[1.6],
    )  # fmt: skip
    model = EncodecTransformers(transformers.EncodecModel(config), "tiny")
    model.quantize = False
    return model


CODECS = {"wavtokenizer": wavtokenizer, "encodec": encodec}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> AudioModel:
    torch.manual_seed(0)
    return CODECS[request.param]()


@pytest.fixture
def steered(codec: AudioModel, random_sae: MakeSAE) -> SteeredModel:
    return SteeredModel(codec, random_sae("relu"), "latent")


def at_latent(steered: SteeredModel, audio_BCN: Tensor = AUDIO) -> Tensor:
    """What passes at the latent, behind the edits (hooks run in the order in which they were attached)."""
    with Recorder(steered.model.module, [steered.sites["latent"]]) as recorder:
        steered.run(audio_BCN)
        return recorder.take()["latent"]


def hooks_of(model: AudioModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


# --- nothing where nothing was asked for ---


def test_no_edit_is_the_models_own_output_bit_for_bit(codec: AudioModel, random_sae: MakeSAE) -> None:
    plain = codec.run(AUDIO)
    steered = SteeredModel(codec, random_sae("topk"), "latent")
    assert hooks_of(codec) == 0
    assert torch.equal(steered.run(AUDIO), plain)
    with steered.edit():
        assert hooks_of(codec) == 0
        assert torch.equal(steered.run(AUDIO), plain)
    with steered.edit(Shift(VECTOR, 3.0)):
        assert not torch.equal(steered.run(AUDIO), plain)
    assert hooks_of(codec) == 0
    assert torch.equal(steered.run(AUDIO), plain)


def test_is_the_model_in_everything_else(codec: AudioModel, random_sae: MakeSAE) -> None:
    steered = SteeredModel(codec, random_sae("relu"), "latent")
    assert steered.sample_rate == 8000
    assert steered.module is codec.module
    assert "latent" in repr(steered)
    with pytest.raises(AttributeError):
        _ = steered.no_such_thing


def test_what_is_declared_for_type_checkers_is_there(codec: AudioModel, random_sae: MakeSAE) -> None:
    steered = SteeredModel(codec, random_sae("relu"), "latent")
    attributes = "name kind module sample_rate channels device dtype quantize eval train cpu cuda half bfloat16"
    for name in f"{attributes} site prepare run encode decode resynthesize".split():
        assert hasattr(steered, name)
    with pytest.raises(AttributeError, match="resynthesise"):
        _ = steered.resynthesise  # type: ignore[attr-defined]


def test_exception_in_forward_leaves_the_users_hooks_and_none_of_ours(steered: SteeredModel) -> None:
    class Boom(Exception):
        pass

    def boom(*_: Any) -> None:
        raise Boom

    model, seen = steered.model, []
    latent = steered.sites["latent"].find(model.module)
    own = latent.register_forward_hook(lambda *_: seen.append(1))
    bomb = model.site("decoder.0").find(model.module).register_forward_pre_hook(boom)
    before = hooks_of(model)
    with pytest.raises(Boom), steered.edit(Ablate([1]), Shift(VECTOR)):
        steered.run(AUDIO)
    assert hooks_of(model) == before
    bomb.remove()
    plain = steered.run(AUDIO)
    assert len(seen) == 2
    own.remove()
    assert torch.equal(steered.run(AUDIO), plain)


# --- what edits do at the site ---


def test_ablation_at_the_site(steered: SteeredModel) -> None:
    sae, features = steered.saes["latent"], [3, 17, 21]
    before = at_latent(steered)
    with steered.edit(Ablate(features)):
        after = at_latent(steered)
    expected = -sae.encode(before)[..., features] @ sae.W_dec[features]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(after - before, expected, atol=1e-5, rtol=0)  # x + change - x rounds


def test_during_leaves_other_frames_to_the_bit(steered: SteeredModel) -> None:
    before = at_latent(steered)
    with steered.edit(Shift(VECTOR, 2.0, during=(0.1, 0.2)), Clamp([3], 1.0, during=(0.15, 0.3))):
        after = at_latent(steered)
    inside = torch.zeros(before.shape[1], dtype=torch.bool)
    inside[20:60] = True  # frame t is centred at (t + 0.5) / 200 s
    assert torch.equal(after[:, ~inside], before[:, ~inside])
    assert not (after == before).all(-1)[0, inside].any()


def test_a_chunk_knows_its_time(steered: SteeredModel) -> None:
    edits = [Shift(VECTOR, Curve(((0.0, 0.0), (1.0, 5.0)))), Clamp([3], 1.0, during=(0.3, 0.6))]
    before = at_latent(steered)
    frames = torch.arange(before.shape[1]) / RATE + 0.5 / RATE
    for start in (0.0, 0.25):
        with steered.edit(*edits), at_time(start):
            change = at_latent(steered) - before
        sae = steered.saes["latent"]
        shift = (5 * (frames + start))[:, None] * VECTOR
        inside = ((frames + start >= 0.3) & (frames + start < 0.6))[:, None]
        f = sae.encode(before)[0]
        clamped = torch.where(inside & (torch.arange(40) == 3), 1.0, f + shift)
        torch.testing.assert_close(change[0], (clamped - f) @ sae.W_dec, atol=1e-4, rtol=1e-4)  # strengths up to 4


def test_rows_of_a_batch_are_like_single_runs(steered: SteeredModel) -> None:
    strengths = torch.tensor([-2.0, 0.0, 1.0, 4.0])
    with steered.edit(Shift(VECTOR, strengths), Scale([1, 2], PerRow(strengths))):
        together = steered.run(AUDIO.expand(4, -1, -1))
    for row, strength in enumerate(strengths.tolist()):
        with steered.edit(Shift(VECTOR, strength), Scale([1, 2], strength)):
            single = steered.run(AUDIO)
        torch.testing.assert_close(together[row : row + 1], single, atol=1e-4, rtol=1e-4)  # other kernels for a batch


def test_strengths_are_repeated_for_beams(steered: SteeredModel) -> None:
    with steered.edit(Shift(VECTOR, torch.tensor([1.0, 3.0]))):
        four = at_latent(steered, AUDIO.expand(4, -1, -1))
        with pytest.raises(EditError, match="needs 3 numbers"):
            steered.run(AUDIO.expand(3, -1, -1))
    torch.testing.assert_close(four[0], four[1])
    torch.testing.assert_close(four[2], four[3])
    torch.testing.assert_close(
        four[2] - four[0], (2 * VECTOR @ steered.saes["latent"].W_dec).expand_as(four[0]), atol=1e-4, rtol=1e-4
    )


def test_features_are_the_saes_view_of_the_site(steered: SteeredModel) -> None:
    assert torch.equal(steered.features(AUDIO[0])["latent"], steered.saes["latent"].encode(at_latent(steered)))


def test_features_of_several_sounds(steered: SteeredModel) -> None:
    sounds = [(AUDIO[0], 8000), Clip(AUDIO[0, :, :2000], 8000), AUDIO[0]]
    found = steered.features(sounds)
    for sound, features in zip(sounds, found, strict=True):
        assert torch.equal(features["latent"], steered.features(sound)["latent"])
    assert [features["latent"].shape[1] for features in found] == [100, 50, 100]
    with pytest.raises(AudioFileError, match="not float"):
        steered.features([0.1])


def test_reconstruct(steered: SteeredModel) -> None:
    before = at_latent(steered)
    with steered.edit(mode="reconstruct"):
        after = at_latent(steered)
    torch.testing.assert_close(after, steered.saes["latent"](before))
    with steered.edit(mode="reconstruct", site="latent"):
        assert torch.equal(at_latent(steered), after)
    with pytest.raises(EditError, match="no SAE at 'decoder_input'"):
        steered.apply(mode="reconstruct", site="decoder_input")


def test_several_sites(codec: AudioModel, random_sae: MakeSAE) -> None:
    here, there = random_sae("relu"), random_sae("jumprelu")
    steered = SteeredModel(codec, {"latent": here, "decoder_input": there})
    plain = steered.run(AUDIO)
    with steered.edit({"latent": Shift(VECTOR), "decoder_input": [Ablate([3]), Shift(-VECTOR)]}):
        both = steered.run(AUDIO)
    with steered.edit(Shift(VECTOR), site="latent"), steered.edit(Ablate([3]), Shift(-VECTOR), site="decoder_input"):
        assert torch.equal(steered.run(AUDIO), both)
    assert not torch.equal(both, plain)
    with pytest.raises(EditError, match="say which"):
        steered.apply(Ablate([3]))
    with pytest.raises(EditError, match="no SAE at 'encoder.0'"):
        steered.apply(Ablate([3]), site="encoder.0")
    assert set(steered.features(AUDIO[0])) == {"latent", "decoder_input"}


def test_directions_at_any_site_with_and_without_saes(codec: AudioModel, random_sae: MakeSAE) -> None:
    plain, v_D = codec.run(AUDIO), VECTOR[:12]
    bare, steered = SteeredModel(codec), SteeredModel(codec, random_sae("relu"), "latent")
    outputs = []
    for one in (bare, steered):
        with one.edit({"latent": [AddDirection(v_D)], "decoder_input": AddDirection(v_D, -2.0, keep_norm=True)}):
            outputs.append(one.run(AUDIO))
        with one.edit({"latent": AddDirection(v_D, 0.0)}):
            assert torch.equal(one.run(AUDIO), plain)
        assert torch.equal(one.run(AUDIO), plain)
    assert torch.equal(*outputs) and not torch.equal(outputs[0], plain)
    before = at_latent(steered)
    with steered.edit(AddDirection(v_D, Curve(((0.1, 0.0), (0.2, 1.0))), during=(0.0, 0.2))):
        after = at_latent(steered)
    assert torch.equal(after[:, :20], before[:, :20]) and torch.equal(after[:, 40:], before[:, 40:])
    torch.testing.assert_close(after[:, 39], before[:, 39] + 0.975 * v_D)
    assert not bare.features(AUDIO[0])


def test_directions_that_are_nowhere(steered: SteeredModel) -> None:
    bare = SteeredModel(steered.model)
    with pytest.raises(EditError, match="SAEs at no site: say which"):
        bare.apply(AddDirection(VECTOR))
    with pytest.raises(EditError, match="SAEs at no site"):
        bare.apply(Ablate([3]), site="latent")
    with pytest.raises(SiteError, match="no site 'nowhere'"):
        bare.apply(AddDirection(VECTOR), site="nowhere")
    with bare.edit(AddDirection(VECTOR), site="latent"), pytest.raises(EditError, match="40 numbers.*12 wide"):
        bare.run(AUDIO)
    assert hooks_of(bare.model) == 0


def test_apply_stays_until_it_is_removed(steered: SteeredModel) -> None:
    plain = steered.run(AUDIO)
    handle = steered.apply(Shift(VECTOR))
    assert not torch.equal(steered.run(AUDIO), plain)
    handle.remove()
    handle.remove()
    assert torch.equal(steered.run(AUDIO), plain)


# --- as one with its model ---


def test_it_moves_with_its_saes(steered: SteeredModel) -> None:
    saes = steered.saes
    with steered.edit(Ablate([3]), Shift(VECTOR)):
        plain = steered.run(AUDIO)
        assert steered.to(torch.float64) is steered
        assert steered.saes is saes and steered.dtype == saes["latent"].W_dec.dtype == torch.float64
        edited = steered.run(AUDIO.double())  # what the edits need of the SAE is gathered anew
    with steered.edit(Ablate([3]), Shift(VECTOR)):
        exact = steered.run(AUDIO.double())
    assert exact.dtype == torch.float64 and torch.equal(edited, exact)
    torch.testing.assert_close(exact.float(), plain, atol=1e-4, rtol=1e-4)
    assert steered.float() is steered and saes["latent"].W_dec.dtype == torch.float32
    assert steered.cpu() is steered
    assert steered.train() is steered and steered.module.training
    assert steered.eval() is steered and not steered.module.training
    assert steered.to("meta") is steered
    assert {steered.device, saes["latent"].W_dec.device} == {torch.device("meta")}


def test_an_sae_that_is_no_module_stays_where_it_is(codec: AudioModel, random_sae: MakeSAE) -> None:
    class Plain:
        def __init__(self, sae: SAE) -> None:
            self.encode, self.decode = sae.encode, sae.decode

    steered = SteeredModel(codec, Plain(random_sae("relu")), "latent").to(torch.float64)
    with steered.edit(Ablate([3])):
        assert steered.run(AUDIO.double()).dtype == torch.float64


def test_what_is_set_on_it_is_set_on_the_model(steered: SteeredModel) -> None:
    plain = steered.run(AUDIO)
    steered.quantize = True
    assert steered.model.quantize and "quantize" not in vars(steered)
    assert not torch.equal(steered.run(AUDIO), plain)
    steered.sites = dict(steered.sites)
    assert steered.sites is not steered.model.sites
    steered.note = "mine"
    assert steered.note == "mine" and not hasattr(steered.model, "note")
    module = steered.module
    module.flavour = "sweet"
    steered.flavour = "sour"
    assert module.flavour == "sour"


# --- several at once ---


def test_threads_with_different_edits_on_one_model(steered: SteeredModel) -> None:
    edits = {0: [Ablate([1, 2])], 1: [Shift(VECTOR, 3.0)], 2: [Scale([4], -2.0), Shift(VECTOR, -1.0)], 3: []}
    alone = {}
    for name, some in edits.items():
        with steered.edit(*some):
            alone[name] = steered.run(AUDIO)
    wrong: list[int] = []
    start = threading.Barrier(len(edits))

    def work(name: int) -> None:
        start.wait()
        for _ in range(8):
            with steered.edit(*edits[name]):
                if not torch.equal(steered.run(AUDIO), alone[name]):
                    wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in edits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert hooks_of(steered.model) == 0


def test_tasks_with_different_edits_on_one_model(steered: SteeredModel) -> None:
    with steered.edit(Shift(VECTOR, 3.0)):
        expected = steered.run(AUDIO)
    plain = steered.run(AUDIO)

    async def run(*edits: Shift) -> Tensor:
        with steered.edit(*edits):
            await asyncio.sleep(0)
            result = steered.run(AUDIO)
            await asyncio.sleep(0)
        return result

    async def both() -> list[Tensor]:
        return await asyncio.gather(run(Shift(VECTOR, 3.0)), run())

    shifted, untouched = asyncio.run(both())
    assert torch.equal(shifted, expected)
    assert torch.equal(untouched, plain)


def test_apply_holds_in_threads_that_start_later_and_in_the_next_notebook_cell(steered: SteeredModel) -> None:
    plain = steered.run(AUDIO)
    with steered.edit(Shift(VECTOR)):
        expected = steered.run(AUDIO)

    def in_a_thread() -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(steered.run, AUDIO).result()

    async def apply_cell() -> EditHandle:  # a notebook runs a cell with a top-level await as a task of its own
        await asyncio.sleep(0)
        return steered.apply(Shift(VECTOR))

    async def run_cell() -> Tensor:
        await asyncio.sleep(0)
        return steered.run(AUDIO)

    handle = asyncio.run(apply_cell())
    for output in (steered.run(AUDIO), in_a_thread(), asyncio.run(run_cell())):
        assert torch.equal(output, expected)
    handle.remove()
    for output in (steered.run(AUDIO), in_a_thread(), asyncio.run(run_cell())):
        assert torch.equal(output, plain)
    with steered.edit(Shift(VECTOR)):
        assert torch.equal(in_a_thread(), plain)
    assert hooks_of(steered.model) == 0


# --- SAEs and models of others ---


class Foreign(nn.Module):
    """Someone else's SAE; like SAELens's it keeps its sizes in a cfg."""

    class cfg:
        d_in, d_sae = 12, 40

    def __init__(self, sae: SAE) -> None:
        super().__init__()
        self.inner = sae

    def encode(self, x: Tensor) -> Tensor:
        return self.inner.encode(x)

    def decode(self, f: Tensor) -> Tensor:
        return self.inner.decode(f)


def test_foreign_sae(codec: AudioModel, random_sae: MakeSAE) -> None:
    sae = random_sae("relu")
    results = []
    for one in (sae, Foreign(sae)):
        steered = SteeredModel(codec, one, "latent")
        with steered.edit(Ablate([3]), Shift(VECTOR)), pytest.raises(EditError, match="no feature 40"):
            results.append(steered.run(AUDIO))
            steered.apply(Ablate([40]))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_any_module_by_path(random_sae: MakeSAE) -> None:
    model, sae, x = Bare(), random_sae("relu"), torch.randn(2, 7, 5)
    steered = SteeredModel(model, sae, "first")
    with steered.edit(Shift(VECTOR)):
        edited = steered(x)
    expected = model.second(model.first(x) + VECTOR @ sae.W_dec)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)
    for edit in (Ablate([3], during=(0, 1)), Scale([3], Curve(((0.0, 1.0),)))):
        with steered.edit(edit), pytest.raises(EditError, match="no frame rate is known"):
            steered(x)
    timed = SteeredModel(model, sae, Site.of(model, "first", frame_rate=10.0))
    plain = model(x)
    with timed.edit(Shift(VECTOR, during=(0.1, 0.3))):
        changed = (timed(x) != plain).any(-1)[0]
    assert changed.tolist() == [False, True, True, False, False, False, False]


def test_gradients_reach_a_shift_through_the_model(random_sae: MakeSAE) -> None:
    model, sae, x = Bare(), random_sae("relu"), torch.randn(2, 7, 5)
    vector = nn.Parameter(VECTOR.clone())
    with SteeredModel(model, sae, "first").edit(Shift(vector, 3.0)) as steered:
        steered(x).sum().backward()
    expected = 3.0 * 2 * 7 * sae.W_dec @ model.second.weight.sum(0)
    torch.testing.assert_close(vector.grad, expected, atol=1e-4, rtol=1e-4)


def test_the_gradient_of_an_embedding_is_that_of_finite_differences() -> None:
    model, sites = open_model("starter:ssl"), ["encoder.0", "encoder.2"]
    steered = SteeredModel(model, {site: SAE.load(f"starter:ssl/{site}") for site in sites}).to(torch.float64)
    generator = torch.Generator().manual_seed(7)
    sound = Clip(0.1 * torch.randn(1, 4000, generator=generator), 16_000)
    d_sae = steered.saes["encoder.0"].d_sae  # type: ignore[attr-defined]
    vector, direction = (0.01 * torch.randn(d_sae, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.randn(steered.embed(sound).shape, generator=generator, dtype=torch.float64)

    def score(shift: Tensor, grad: bool = False) -> Tensor:
        with steered.edit(Shift(shift, 2.0), site="encoder.0"):
            return (weights * steered.embed(sound, grad=grad)).sum()

    vector.requires_grad_()
    (slope_F,) = torch.autograd.grad(score(vector, grad=True), vector)
    with torch.no_grad():
        step = 1e-4 * direction
        difference = (score(vector + step) - score(vector - step)) / 2e-4
    assert abs(difference) > 1e-3
    # the error of a central difference falls with the square of the step
    assert float(slope_F @ direction) == pytest.approx(float(difference), rel=1e-5)
    # features of the later site have the gradient too, and none where nobody asks
    with steered.edit(Shift(vector, 2.0), site="encoder.0"):
        kept, plain = steered.features(sound, grad=True), steered.features(sound)
    assert not any(f_BTF.requires_grad for f_BTF in plain.values())
    assert all(torch.equal(kept[site], plain[site]) for site in sites)
    assert torch.autograd.grad(kept["encoder.2"].sum(), vector)[0].any()


def test_the_sae_may_say_where_it_belongs(codec: AudioModel, random_sae: MakeSAE) -> None:
    sae = random_sae("relu")
    with pytest.raises(SAEError, match="pass site"):
        SteeredModel(codec, sae)
    sae.info = SAEInfo(site="latent")
    assert list(SteeredModel(codec, sae).sites) == ["latent"]


# --- proofs and errors ---


def test_an_sae_of_another_model_is_warned_of(codec: AudioModel, random_sae: MakeSAE) -> None:
    codec.name = "encodec:24khz"
    sae = random_sae("relu")
    sae.info = SAEInfo(model="hf:facebook/encodec_32khz@main", site="latent")
    with pytest.warns(UserWarning, match="made for hf:facebook/encodec_32khz@main, not for encodec:24khz"):
        SteeredModel(codec, sae)
    one = SteeredModel(codec, random_sae("relu"), "latent")
    for edit in (
        Shift(ControlVector(VECTOR, model="mimi:mimi")),
        AddDirection(ControlVector(VECTOR[:12], model="mimi:mimi")),
    ):
        with (
            pytest.warns(UserWarning, match="an edit at 'latent' was made for mimi:mimi, not for encodec:24khz"),
            one.edit(edit),
        ):
            pass
    for same in ("hf:facebook/encodec_24khz@main", "encodec:24khz", "", "EncodecModel", "encodec:/my/24k"):
        sae.info.model = same
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with SteeredModel(codec, sae).edit(Shift(ControlVector(VECTOR, model=same))):
                pass


def test_a_site_that_does_not_fit_is_refused(codec: AudioModel, random_sae: MakeSAE) -> None:
    with pytest.raises(SiteError, match="no site 'latnt'.*latent"):
        SteeredModel(codec, random_sae("relu"), "latnt")
    narrow = random_sae("relu", d_in=11)
    with pytest.raises(SAEError, match="11 wide, but site 'latent' of tiny is 12 wide"):
        SteeredModel(codec, narrow, "latent")
    unchecked = SteeredModel(codec, narrow, "latent", check=False)
    with unchecked.edit(Ablate([3])), pytest.raises(SAEError, match="11 wide, but site"):
        unchecked.run(AUDIO)
    assert hooks_of(codec) == 0


def test_what_was_made_for_the_former_starter_codec_is_told_its_new_name(
    codec: AudioModel, random_sae: MakeSAE
) -> None:
    codec.name = "starter:codec"
    old = random_sae("relu", d_in=128)
    with pytest.raises(SAEError, match="128 wide, but site 'latent' of starter:codec is 12 wide$"):
        SteeredModel(codec, old, "latent")
    old.info = SAEInfo("starter:codec", "latent")
    for check in (True, False):
        with pytest.raises(SAEError, match="codec that is called starter:wavtokenizer now"):  # noqa: SIM117
            with SteeredModel(codec, old, check=check).edit(Ablate([3])):
                codec.run(AUDIO)
    steered = SteeredModel(codec, random_sae("relu"), "latent")
    for edit in (Ablate([3, 1023]), Shift(torch.ones(1024), 1.0)):
        with pytest.raises(EditError, match="name that as the model") as error:
            steered.apply(edit)
        assert "\n" not in str(error.value) and "starter:wavtokenizer" in str(error.value)
    for edit in (Ablate([-1]), Ablate([1024]), Shift(torch.ones(39), 1.0)):
        with pytest.raises(EditError) as error:
            steered.apply(edit)
        assert "starter" not in str(error.value)
    codec.name = "tiny"
    with pytest.raises(EditError, match="features 0 to 39$"):
        steered.apply(Ablate([3, 1023]))


class Idle(nn.Module):
    """`used` is passed and has its say, `deaf` is passed for nothing, `never` is not passed."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.deaf, self.never = (nn.Conv1d(1, 12, 10, 10) for _ in range(3))

    def forward(self, x_BCN: Tensor) -> Tensor:
        self.deaf(x_BCN)
        return self.used(x_BCN)


def test_sites_prove_themselves(random_sae: MakeSAE) -> None:
    sites = [Site(name, name, "BDT") for name in ("used", "deaf", "never")]
    model = AudioModel(Idle(), sites, name="idle", sample_rate=8000)
    sae = random_sae("relu")
    SteeredModel(model, sae, "used")
    with pytest.raises(SiteError, match="a change there does not change the output"):
        SteeredModel(model, sae, "deaf")
    with pytest.raises(SiteError, match="was not passed"):
        SteeredModel(model, sae, "never")
    assert hooks_of(model) == 0


def test_what_is_no_edit_is_refused(steered: SteeredModel) -> None:
    for bad in (3, Ablate, {"latent": [VECTOR]}, {"latent": VECTOR}):
        with pytest.raises(EditError, match="an edit is an Ablate.*not (int|ABCMeta|Tensor)"):
            steered.apply(bad)  # type: ignore[arg-type]
    assert hooks_of(steered.model) == 0


def test_unknown_features(steered: SteeredModel) -> None:
    for edit in (Ablate([40]), Shift(torch.ones(41))):
        with pytest.raises(EditError, match="features"):
            steered.apply(edit)
    assert hooks_of(steered.model) == 0


def test_models_that_cut_into_chunks_need_a_clock(random_sae: MakeSAE) -> None:
    model = AudioModel(
        Idle(), [Site("used", "used", "BDT", frame_rate=800.0, chunk_s=1.0)], name="idle", sample_rate=8000
    )
    steered = SteeredModel(model, random_sae("relu"), "used")
    for edit in (Ablate([3], during=(0, 1)), Scale([3], Curve(((0.0, 2.0),)))):
        with steered.edit(edit):
            with pytest.raises(EditError, match="into chunks"):
                steered(AUDIO)
            with at_time(3.0):
                steered(AUDIO)
