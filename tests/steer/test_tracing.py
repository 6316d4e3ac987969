"""`SteeredModel.trace` against the native path: the same values to 1e-6, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import MissingExtraError, ModelError, Site, SiteError, attach, wrap_model
from hooks.capture import Recorder
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from steer import SAE, Ablate, AddDirection, Clamp, Scale, Shift, SteeredModel
from steer.errors import EditError, SAEError
from steer.fit import tensors_in

nnsight = pytest.importorskip("nnsight", reason="extra nnsight")
encodec = pytest.importorskip("encodec", reason="extra encodec")
transformers = pytest.importorskip("transformers", reason="extra ssl")

CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums of 40 products in two orders, of numbers up to 10
X = 0.2 * torch.randn(2, 1, 2_000, generator=torch.Generator().manual_seed(1))
V = torch.randn(40, generator=torch.Generator().manual_seed(2))
SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
}


def hubert() -> Any:
    return transformers.HubertModel(transformers.HubertConfig(**SPEECH))


def wavlm() -> Any:
    """Its layers give tuples."""
    return transformers.WavLMModel(transformers.WavLMConfig(**SPEECH))


@torch.no_grad()
def fill_codebook(book: Any, latent_BDT: Tensor) -> None:
    """Random entries about the latent, close enough that its frames have different ones."""
    book.embed.normal_().mul_(3 * latent_BDT.std((0, 2))).add_(latent_BDT.mean((0, 2)))


def package(segment: float | None = None) -> Any:
    """The `encodec` package's own classes: [B, D, T] everywhere; with `segment` (s) it cuts its input into chunks."""
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    sizes: dict[str, Any] = {"channels": 1, "dimension": 12, "n_filters": 4, "ratios": [5, 4, 2], "lstm": 1}
    module = encodec.EncodecModel(
        SEANetEncoder(**sizes),
        SEANetDecoder(**sizes),
        ResidualVectorQuantizer(12, n_q=1, bins=256),
        [1.6],
        8_000,
        1,
        normalize=segment is not None,
        segment=segment,
        overlap=0.0,
    ).eval()
    book = module.quantizer.vq.layers[0]._codebook
    book.inited.fill_(1)
    fill_codebook(book, module.encoder(X))
    return module


def wavtokenizer() -> Any:
    config = WavTokenizerConfig(
        sample_rate=8_000, dimension=12, n_filters=4, ratios=(5, 4, 2), bins=256, num_quantizers=1, width=16, hidden=24,
        num_layers=2, num_conditions=None, attention=False, n_fft=160,
    )  # fmt: skip
    module = WavTokenizer(config)
    fill_codebook(next(iter(module.quantizer.codebooks())), module.encode(X[:, 0]))
    return module


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=60, num_mel_bins=8, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, d_model=16, max_source_positions=50,
        max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, init_std=0.5,
    )  # fmt: skip
    module = transformers.WhisperForConditionalGeneration(config)
    module.generation_config.suppress_tokens = module.generation_config.begin_suppress_tokens = None
    return module


MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "hubert": (hubert, ["conv", "projected", "encoder.1"]),
    "wavlm": (wavlm, ["conv", "encoder.0", "encoder.1"]),
    "encodec": (package, ["encoder.3", "latent", "decoder_input", "decoder.1"]),
    "wavtokenizer": (wavtokenizer, ["encoder.1", "latent", "decoder_input", "decoder.0", "decoder_output"]),
}
CASES = [(name, site) for name, (_, sites) in MODELS.items() for site in sites]
"""BTD and BDT, outputs and inputs, tensors and tuples."""


def inputs(steered: SteeredModel) -> Tensor:
    """X as the model's own forward takes it."""
    return X if isinstance(steered.module, encodec.EncodecModel) else X[:, 0]


def random_sae(d_in: int) -> SAE:
    torch.manual_seed(5)
    sae = SAE(d_in, 40, "relu").requires_grad_(False)
    for value in sae.parameters():
        value.normal_(0, 0.2)
    return sae


def steer(module: Any, *sites: str) -> SteeredModel:
    """The module with an SAE at each site; the widths are measured."""
    model = wrap_model(module)
    assert model.sample_rate is not None
    with Recorder(model.module, [model.site(name) for name in sites]) as recorder:
        model.run(torch.randn(1, 1, 2_000))
        widths = {name: x_BTD.shape[2] for name, x_BTD in recorder.take().items()}
    return SteeredModel(module, {name: random_sae(width) for name, width in widths.items()})


def native(steered: SteeredModel, site: str) -> tuple[Tensor, Tensor]:
    """(activation at the site, output) of the model's own forward, with gradients as in a trace: kernels differ."""
    with Recorder(steered.module, [steered.model.site(site)]) as recorder:
        output = output_of(steered(inputs(steered)))
        return recorder.take()[site], output


def output_of(result: Any) -> Tensor:
    return tensors_in(result)[0].detach()


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.fixture(params=["plain", "wrapped"])
def wrapper(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A module as it is, and in nnsight's wrapper."""
    return nnsight.NNsight if request.param == "wrapped" else lambda module: module


@pytest.fixture(params=CASES, ids=[" ".join(case) for case in CASES])
def case(request: pytest.FixtureRequest, wrapper: Callable[[Any], Any]) -> tuple[SteeredModel, str]:
    name, site = request.param
    return steer(wrapper(MODELS[name][0]()), site), site


@pytest.fixture
def steered() -> SteeredModel:
    return steer(hubert(), "encoder.0", "encoder.1")


# --- the same as the native path ---


def test_reads_what_passes_and_changes_no_bit(case: tuple[SteeredModel, str]) -> None:
    steered, site = case
    x_BTD, plain = native(steered, site)
    before = hooks_of(steered.module)
    with steered.trace(inputs(steered)) as tracer:
        activation = tracer.sites[site].activation.save()
        features = tracer.sites[site].features.save()
        result = tracer.result.save()
    assert torch.equal(activation, x_BTD)
    torch.testing.assert_close(features, steered.saes[site].encode(x_BTD), **CLOSE)
    assert torch.equal(output_of(result), plain)
    assert hooks_of(steered.module) == before  # the old weight norm is a hook too


def test_changed_features_are_edits(case: tuple[SteeredModel, str]) -> None:
    steered, site = case
    _, plain = native(steered, site)
    for kind, edits in {
        "in place": [Clamp([3, 17], 2.0)],
        "assigned": [Shift(V)],
        "augmented": [Scale(range(40), 2.0)],
        "in place, then assigned": [Clamp([3], 1.0), Scale(range(40), -1.0)],
    }.items():
        with steered.edit(*edits):
            expected_BTD, expected = native(steered, site)
        assert not torch.equal(expected, plain)
        with steered.trace(inputs(steered)) as tracer:
            place = tracer.sites[site]
            if kind == "in place":
                place.features[..., [3, 17]] = 2
            elif kind == "assigned":
                place.features = place.features + V
            elif kind == "augmented":
                place.features *= 2
            else:
                f = place.features
                f[..., 3] = 1
                place.features = -f
            activation = place.activation.save()
            result = tracer.result.save()
        torch.testing.assert_close(activation, expected_BTD, **CLOSE)
        torch.testing.assert_close(output_of(result), expected, **CLOSE)


def test_changed_activations(case: tuple[SteeredModel, str]) -> None:
    steered, site = case
    x_BTD, plain = native(steered, site)
    new_BTD = x_BTD.clone()
    new_BTD[:, 3:5] *= -1
    with attach(steered.module, steered.sites[site], lambda _: new_BTD):
        _, expected = native(steered, site)
    assert not torch.equal(expected, plain)
    with steered.trace(inputs(steered)) as tracer:
        tracer.sites[site].activation[:, 3:5] *= -1
        in_place = tracer.result.save()
    with steered.trace(inputs(steered)) as tracer:
        tracer.sites[site].activation = new_BTD
        features = tracer.sites[site].features.save()
        assigned = tracer.result.save()
    assert torch.equal(output_of(in_place), expected)
    assert torch.equal(output_of(assigned), expected)
    torch.testing.assert_close(features, steered.saes[site].encode(new_BTD), **CLOSE)


def test_edits_inside_and_around(case: tuple[SteeredModel, str]) -> None:
    steered, site = case
    edits = [Ablate([3, 17]), Shift(V, torch.tensor([0.5, 2.0]))]
    with steered.edit(*edits):
        expected_BTD, expected = native(steered, site)
        with steered.trace(inputs(steered)) as tracer:
            around_BTD = tracer.sites[site].activation.save()
            around = tracer.result.save()
    with steered.trace(inputs(steered)) as tracer:
        tracer.edit(*edits)
        inside_BTD = tracer.sites[site].activation.save()
        inside = tracer.result.save()
    with steered.trace(inputs(steered)) as tracer:
        before_BTD = tracer.sites[site].activation.save()
        tracer.edit(*edits)
        here = tracer.result.save()
    assert torch.equal(around_BTD, expected_BTD)
    assert torch.equal(inside_BTD, expected_BTD)
    assert torch.equal(before_BTD, native(steered, site)[0])
    for result in (around, inside, here):
        assert torch.equal(output_of(result), expected)


def test_several_sites_in_the_order_in_which_they_are_passed(steered: SteeredModel) -> None:
    plain_BTD, _ = native(steered, "encoder.2")
    with steered.edit({"encoder.0": Ablate([3]), "encoder.1": Shift(V)}):
        expected_BTD, _ = native(steered, "encoder.2")
    assert not torch.equal(plain_BTD, expected_BTD)
    with steered.trace(inputs(steered)) as tracer:
        tracer.edit(Shift(V), site="encoder.1")
        tracer.sites["encoder.0"].features[..., 3] = 0
        after_BTD = tracer.sites["encoder.2"].activation.save()
    torch.testing.assert_close(after_BTD, expected_BTD, **CLOSE)


def test_what_was_saved_stays_what_it_was() -> None:
    module = nn.Sequential(nn.Linear(3, 12), nn.ReLU(inplace=True))
    steered = SteeredModel(module, random_sae(12), "0")
    x = torch.randn(1, 5, 3)
    with torch.no_grad(), steered.trace(x) as tracer:
        activation = tracer.sites["0"].activation.save()
    assert torch.equal(activation, nn.functional.linear(x, module[0].weight, module[0].bias))


def test_gradients_reach_features_and_activations(steered: SteeredModel) -> None:
    sae, site = steered.saes["encoder.1"], steered.sites["encoder.1"]
    seen: list[Tensor] = []

    def through_features(x_BTD: Tensor) -> Tensor:
        seen.append(sae.encode(x_BTD).detach().requires_grad_())
        return x_BTD + sae.decode(seen[0]) - sae.decode(seen[0]).detach()

    direction_D = torch.randn(16)
    with attach(steered.module, site, through_features):
        (steered(inputs(steered))[0] @ direction_D).sum().backward()
    with steered.trace(inputs(steered)) as tracer:
        activation = tracer.sites["encoder.0"].activation
        features = tracer.sites["encoder.1"].features
        loss = (tracer.result.last_hidden_state @ direction_D).sum()
        with loss.backward():
            by_feature = features.grad.save()
            by_activation = activation.grad.save()
    assert seen[0].grad is not None
    torch.testing.assert_close(by_feature, seen[0].grad, atol=1e-5, rtol=1e-5)  # sums over 16 axes of gradients up to 4
    assert by_activation.abs().max() > 0.01


# --- what runs, and how often a site is passed ---


def test_any_method_of_the_model(steered: SteeredModel, wrapper: Callable[[Any], Any]) -> None:
    codec = steer(wrapper(package()), "latent")
    codec.model.quantize = False
    with codec.edit(Clamp([3], 5.0)):
        expected = codec.run(X)
    with codec.trace(X, fn="run") as tracer:
        tracer.sites["latent"].features[..., 3] = 5
        result = tracer.result.save()
    torch.testing.assert_close(result, expected, **CLOSE)
    with steered.trace(X[0], fn="embed") as tracer:
        features = tracer.sites["encoder.1"].features.save()
        embedding = tracer.result.save()
    assert torch.equal(features, steered.features(X[0])["encoder.1"])
    assert torch.equal(embedding, steered.embed(X[0]))


def test_chunks_one_by_one_and_all_together(wrapper: Callable[[Any], Any]) -> None:
    codec = steer(wrapper(package(segment=0.1)), "latent")  # X is 2.5 chunks
    codec.model.quantize = False
    edits = [Shift(V, during=(0.05, 0.15)), Ablate([3])]
    with codec.edit(*edits):
        expected = codec.run(X)
    plain = codec.run(X)
    with codec.trace(X, fn="run") as tracer:
        tracer.edit(*edits)
        result = tracer.result.save()
    assert torch.equal(result, expected)
    with Recorder(codec.module, [codec.sites["latent"]]) as recorder:
        codec.run(X)
        latent = recorder.take()["latent"]

    def one_by_one() -> list[Tensor]:
        with codec.trace(X, fn="run") as tracer:
            seen = nnsight.save([])
            for _ in tracer.iter[:]:
                seen.append(tracer.sites["latent"].activation)
        return seen

    with pytest.warns(UserWarning, match="never reached"):  # so nnsight ends a loop without an end
        seen = one_by_one()
    assert [len(x_BTD[0]) for x_BTD in seen] == [20, 20, 10]
    assert torch.equal(torch.cat(seen, dim=1), latent)
    with codec.edit(Clamp([3], 5.0, during=(0.1, 0.2))):
        expected = codec.run(X)
    with codec.trace(X, fn="run") as tracer:
        for _ in tracer.iter[1]:
            tracer.sites["latent"].features[..., 3] = 5
        result = tracer.result.save()
    torch.testing.assert_close(result, expected, **CLOSE)
    assert not torch.equal(result, plain)


def test_whisper_generates_inside_a_trace(wrapper: Callable[[Any], Any]) -> None:
    module = whisper()
    saes = {"encoder.1": random_sae(16), "decoder.1": random_sae(16)}
    steered = SteeredModel(wrapper(module), saes, check=False)
    mel = torch.randn(1, 8, 100)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    plain = steered.generate(mel, **options)
    with steered.edit(Shift(V, 4.0), site="decoder.1"):
        edited = steered.generate(mel, **options)
    assert not torch.equal(plain, edited)
    with steered.trace(mel, fn="generate", **options) as tracer:
        tracer.edit(Shift(V, 4.0), site="decoder.1")
        tokens = tracer.result.save()
    assert torch.equal(tokens, edited)
    with steered.trace(mel, fn="generate", **options) as tracer:
        heard = tracer.sites["encoder.1"].features.save()
        for _ in tracer.iter[:6]:
            tracer.sites["decoder.1"].features += 4 * V
        tokens = tracer.result.save()
    assert heard.shape == (1, 50, 40)
    assert torch.equal(tokens, edited)


# --- nnsight's wrappers ---


def test_the_wrapper_stays_what_it_is_and_its_envoys_work_beside_sites() -> None:
    module = hubert()
    wrapped = nnsight.NNsight(module)
    steered = steer(wrapped, "encoder.1")
    assert steered.module is module
    assert steered.model.kind == "encoder"
    assert steered.model.envoy is wrapped
    with steered.edit(Ablate([3])):
        expected_BTD, _ = native(steered, "encoder.2")
    with steered.trace(X[:, 0]) as tracer:
        own = wrapped.encoder.layers[0].output.save()
        tracer.sites["encoder.1"].features[..., 3] = 0
        after = wrapped.encoder.layers[2].output.save()
    assert torch.equal(own, native(steered, "encoder.0")[0])
    torch.testing.assert_close(after, expected_BTD, **CLOSE)
    with steered.edit(Ablate([3])), wrapped.trace(X[:, 0]):
        after = wrapped.encoder.layers[2].output.save()
    assert torch.equal(after, expected_BTD)
    with wrapped.trace(X[:, 0]):
        after = wrapped.encoder.layers[2].output.save()
    assert torch.equal(after, native(steered, "encoder.2")[0])


def test_an_opened_model_can_be_given_its_wrapper() -> None:
    steered = steer(wavtokenizer(), "latent")
    steered.model.envoy = wrapped = nnsight.NNsight(steered.module)
    with steered.trace(X[:, 0]) as tracer:
        latent = tracer.sites["latent"].activation.save()
        same = wrapped.backbone.input.save()
    assert latent.mT.shape == same.shape


def test_a_wrapper_that_prepares_audio_and_batches_it() -> None:
    config = transformers.HubertConfig(classifier_proj_size=8, **SPEECH)
    module = transformers.HubertForSequenceClassification(config).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor()
    wrapped = nnsight.TransformersModel(module, task="audio-classification", feature_extractor=extractor)
    path = "hubert.encoder.layers.1"
    steered = SteeredModel(wrapped, random_sae(16), path)
    sounds = X[:, 0].numpy()
    with steered.trace() as tracer:
        with tracer.invoke(sounds[0]):
            first = tracer.sites[path].features.save()
        with tracer.invoke(sounds[1]):
            tracer.sites[path].features[..., 3] = 0
            second = tracer.result.logits.save()
    prepared = extractor(list(sounds), sampling_rate=16_000, return_tensors="pt").input_values
    with Recorder(module, [steered.sites[path]]) as recorder:
        steered(prepared)
        x_BTD = recorder.take()[path]
    with steered.edit(Ablate([3])):
        edited = steered(prepared).logits
    # other kernels for a batch
    torch.testing.assert_close(first, steered.saes[path].encode(x_BTD[:1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second, edited[1:], atol=1e-5, rtol=1e-5)


class Lazy(nnsight.NNsight):
    """As nnsight's loaders do it: weights come with `dispatch`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.dispatched = False

    def dispatch(self) -> None:
        self._update(hubert())
        self.dispatched = True


def test_a_wrapper_without_weights_is_asked_for_them() -> None:
    with torch.device("meta"):
        lazy = Lazy(hubert())
    model = wrap_model(lazy)
    assert lazy.dispatched
    assert model.module is lazy._module
    assert model.device.type == "cpu"


# --- nothing is left, nobody is disturbed ---


def test_a_plain_module_is_as_before(steered: SteeredModel) -> None:
    module = steered.module
    before = [dict(vars(one)) for one in module.modules()]
    with steered.trace(inputs(steered)) as tracer:
        tracer.edit(Ablate([3]), site="encoder.0")
        tracer.sites["encoder.1"].features[..., 3] = 0
    assert [dict(vars(one)) for one in module.modules()] == before
    assert hooks_of(module) == 0


def test_exceptions_leave_the_users_hooks_and_none_of_ours(wrapper: Callable[[Any], Any]) -> None:
    class Boom(Exception):
        pass

    def boom(*_: Any) -> None:
        raise Boom

    steered = steer(wrapper(hubert()), "encoder.1")
    layers, seen = steered.module.encoder.layers, []
    own = layers[1].register_forward_hook(lambda *_: seen.append(1))
    plain = output_of(steered(inputs(steered)))
    with pytest.raises(Boom), steered.trace(inputs(steered)) as tracer:
        tracer.edit(Shift(V))
        tracer.sites["encoder.1"].activation.save()
        raise Boom
    bomb = layers[2].register_forward_hook(boom)
    with pytest.raises(Boom), steered.trace(inputs(steered)) as tracer:
        tracer.edit(Shift(V))
        tracer.result.save()
    bomb.remove()
    assert hooks_of(steered.module) == 1
    assert torch.equal(output_of(steered(inputs(steered))), plain)
    with steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.1"].features[..., 3] = 0
    assert len(seen) == 5
    own.remove()


def test_a_trace_can_be_stopped(steered: SteeredModel) -> None:
    with steered.trace(inputs(steered)) as tracer:
        activation = tracer.sites["encoder.0"].activation.save()
        tracer.stop()
    assert torch.equal(activation, native(steered, "encoder.0")[0])
    assert hooks_of(steered.module) == 0


def test_traces_in_threads_on_one_plain_module(steered: SteeredModel) -> None:
    alone = {}
    for feature in range(4):
        with steered.edit(Shift(V, float(feature)), site="encoder.1"):
            alone[feature] = native(steered, "encoder.2")[0]
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work(feature: int) -> None:
        start.wait()
        for _ in range(4):
            with steered.trace(inputs(steered)) as tracer:
                tracer.edit(Shift(V, float(feature)), site="encoder.1")
                after = tracer.sites["encoder.2"].activation.save()
            if not torch.equal(after, alone[feature]):
                wrong.append(feature)

    threads = [threading.Thread(target=work, args=(feature,)) for feature in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert hooks_of(steered.module) == 0


# --- errors ---


def test_sites_that_are_not_there(steered: SteeredModel) -> None:
    with pytest.raises(SiteError, match="no site 'encoder.9'; did you mean"), steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.9"].activation.save()
    path = "encoder.layers.1.attention.q_proj"
    with pytest.raises(SiteError, match="a module but no site.*wrap_model"), steered.trace(inputs(steered)) as tracer:
        tracer.sites[path].activation.save()
    wrap_model(steered.model, Site.of(steered.module, path))
    with steered.trace(inputs(steered)) as tracer:
        queries = tracer.sites[path].activation.save()
    assert queries.shape == native(steered, path)[0].shape
    with pytest.raises(SAEError, match="'encoder.2' has no SAE"), steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.2"].features.save()
    with pytest.raises(SAEError, match="'encoder.2' has no SAE"), steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.2"].features = V


def test_values_of_another_shape(steered: SteeredModel) -> None:
    x = inputs(steered)
    for wrong in (torch.zeros(2, 3, 16), 0.0):
        with pytest.raises(EditError, match=r"activation is a tensor \[2, 6, 16\]"), steered.trace(x) as tracer:
            tracer.sites["encoder.1"].activation = wrong
        with pytest.raises(EditError, match=r"features is a tensor \[2, 6, 40\]"), steered.trace(x) as tracer:
            tracer.sites["encoder.1"].features = wrong
    assert hooks_of(steered.module) == 0


def test_edits_that_cannot_be(steered: SteeredModel) -> None:
    with pytest.raises(EditError, match="no feature 40"), steered.trace(inputs(steered)) as tracer:
        tracer.edit(Ablate([40]), site="encoder.1")
    with pytest.raises(EditError, match="'encoder.0' did nothing.*passed"), steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.1"].activation.save()
        tracer.edit(Ablate([3]), site="encoder.0")
    with pytest.raises(EditError, match="inside a trace.*tracer.edit"), steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.0"].activation.save()
        steered.apply(Ablate([3]), site="encoder.1")
    with pytest.raises(SiteError, match="module but no site"), steered.trace(inputs(steered)) as tracer:
        tracer.edit(AddDirection(torch.ones(16)), site="encoder.layers.1.attention.q_proj")
    assert hooks_of(steered.module) == 0


def test_what_nnsight_itself_refuses(steered: SteeredModel) -> None:
    from nnsight.intervention.interleaver import OutOfOrderError
    from nnsight.tracing.tracer import WithBlockNotFoundError

    with pytest.raises(OutOfOrderError, match="sites.encoder.0.activation"), steered.trace(inputs(steered)) as tracer:
        tracer.sites["encoder.1"].activation.save()
        tracer.sites["encoder.0"].activation.save()
    with steered.trace(inputs(steered)) as tracer:
        place = tracer.sites["encoder.0"]
        nnsight.save(place)
    with pytest.raises(ValueError, match="outside of interleaving"):
        _ = place.activation
    with pytest.raises(WithBlockNotFoundError, match="no source|found no `with`"):
        exec("with steered.trace(steered) as tracer:\n    tracer.sites")
    with pytest.raises(ModelError, match="remote"):
        steered.trace(inputs(steered), remote=True)
    assert hooks_of(steered.module) == 0


def test_without_nnsight(steered: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnsight", None)
    with pytest.raises(MissingExtraError, match=r"audiosteer\[nnsight\]"):
        steered.trace(inputs(steered))


def test_nnsight_is_not_imported_before_it_is_needed() -> None:
    code = """
import sys, torch
from steer import SAE, SteeredModel
steered = SteeredModel(torch.nn.Sequential(torch.nn.Linear(2, 4)), SAE(4, 8, k=2), "0")
assert not {"nnsight", "greenlet", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
