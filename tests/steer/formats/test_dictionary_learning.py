from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steer.errors import SAEError
from steer.formats import write_sae
from steer.sae import SAE, SAEInfo

D, F, K = 12, 40, 5
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, D, generator=GENERATOR)
AUDIOSAE = {"trainer": {"dict_class": "BatchTopKSAE", "activation_dim": D, "dict_size": F, "k": K}}


def tensors(**changes: Any) -> dict[str, Any]:
    """As AudioSAE's cards list them: no threshold."""
    state = {
        "encoder.weight": torch.randn(F, D, generator=GENERATOR),
        "encoder.bias": 0.1 * torch.randn(F, generator=GENERATOR),
        "decoder.weight": torch.randn(D, F, generator=GENERATOR),
        "b_dec": torch.randn(D, generator=GENERATOR),
        "k": torch.tensor(K),
    }
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


def written(folder: Path, state: dict[str, Any], config: dict[str, Any] | None = AUDIOSAE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ae.pt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def positive(state: dict[str, Tensor]) -> Tensor:
    return ((X - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"]).relu()


def test_audiosae_runs_as_top_k_and_says_so(tmp_path: Path) -> None:
    state = tensors()
    folder = written(tmp_path / "layer_3", state)
    with pytest.warns(UserWarning, match=r"without its threshold; it runs as top-k, 5 features"):
        sae = SAE.load(folder)
    values, places = positive(state).topk(K)
    expected = torch.zeros(len(X), F).scatter(1, places, values)
    torch.testing.assert_close(sae.encode(X), expected, atol=1e-5, rtol=1e-5)  # b_dec is folded: another order of sums
    torch.testing.assert_close(sae(X), expected @ state["decoder.weight"].T + state["b_dec"], atol=1e-4, rtol=1e-4)
    assert sae.info.site == "encoder.2"  # layers count from 1 there, from 0 here
    assert not any(value.requires_grad for value in sae.parameters())


def test_a_threshold_that_is_there_is_used(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    state = tensors(threshold=torch.tensor(1.5))
    sae = SAE.load(written(tmp_path / "trainer_0", state))
    pre = positive(state)
    torch.testing.assert_close(sae.encode(X), torch.where(pre > 1.5, pre, 0), atol=1e-5, rtol=1e-5)
    assert (sae.activation, sae.info.site) == ("batchtopk", "")
    assert not recwarn.list


def test_a_backup_a_flat_config_and_no_config(tmp_path: Path) -> None:
    state = tensors()
    backup = SAE.load(
        written(tmp_path / "a", {"ae": state, "step": 3, "norm_factor": 1.0}, {"dict_class": "AutoEncoderTopK"})
    )
    with pytest.warns(UserWarning, match="threshold"):
        bare = SAE.load(written(tmp_path / "b", state, None))
    assert torch.equal(backup.encode(X), bare.encode(X))


def test_as_many_features_as_channels_lie_as_the_key_says(tmp_path: Path) -> None:
    state = {
        "encoder.weight": torch.randn(D, D, generator=GENERATOR),
        "encoder.bias": torch.zeros(D),
        "decoder.weight": torch.randn(D, D, generator=GENERATOR),
        "b_dec": torch.zeros(D),
        "k": torch.tensor(D),
    }
    sae = SAE.load(written(tmp_path, state, {"dict_class": "AutoEncoderTopK"}))
    torch.testing.assert_close(sae.encode(X), positive(state), atol=1e-5, rtol=1e-5)


def test_the_file_stands_for_its_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "layer_1", tensors(threshold=torch.tensor(0.5)))
    assert torch.equal(SAE.load(folder / "ae.pt").encode(X), SAE.load(folder).encode(X))


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit",))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    folder = written(tmp_path, {})
    with (folder / "ae.pt").open("wb") as file:
        pickle.dump({"encoder.weight": Trap()}, file)
    with pytest.raises(SAEError, match="cannot be unpickled as tensors"):
        SAE.load(folder)
    torch.save({"encoder.weight": Trap()}, folder / "ae.pt")
    with pytest.raises(SAEError, match="holds more than tensors"):
        SAE.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b_dec": None}, "missing: b_dec"),
        ({"b_dec": torch.zeros(D + 1)}, r"b_dec is \[13\], and \[12\] is needed"),
        ({"decoder.weight": torch.zeros(F, D)}, r"W_dec is \[12, 40\], and \[40, 12\] is needed"),
        ({"encoder.weight": torch.zeros(F)}, r"encoder.weight is \[40\], not a matrix"),
        ({"encoder.bias": torch.full((F,), torch.nan)}, "not finite"),
        ({"k": torch.tensor(F + 1)}, "k between 1 and"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*without its threshold")
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SAEError, match=message):
        SAE.load(written(tmp_path, tensors(**changes)))


def test_other_dictionaries_and_damaged_files(tmp_path: Path) -> None:
    folder = written(tmp_path, tensors(), {"trainer": {"dict_class": "CrossCoder"}})
    with pytest.raises(SAEError, match=r"'CrossCoder' is not supported; there are AutoEncoder, AutoEncoderNew"):
        SAE.load(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(SAEError, match=r"config.json: damaged"):
        SAE.load(folder)
    written(tmp_path, tensors())
    data = (folder / "ae.pt").read_bytes()
    (folder / "ae.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(SAEError, match=r"ae.pt: cannot be read"):
        SAE.load(folder)


def test_one_layer_of_a_hub_repository_is_fetched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="downloads from Hugging Face (extra all)")
    written(tmp_path / "layer_2", tensors(threshold=torch.tensor(0.5)))
    asked = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert SAE.load("hf:owner/Audio-SAE/layer_2@v1").info.site == "encoder.1"
    assert (asked["repository"], asked["revision"], asked["allow_patterns"]) == ("owner/Audio-SAE", "v1", ["layer_2/*"])


def normal(*shape: int) -> Tensor:
    return 0.5 * torch.randn(*shape, generator=GENERATOR)


def linear(**more: Tensor) -> dict[str, Tensor]:
    return {"encoder.weight": normal(F, D), "decoder.weight": normal(D, F), **more}


def upright(**more: Tensor) -> dict[str, Tensor]:
    return {"W_enc": normal(D, F), "b_enc": normal(F), "W_dec": normal(F, D), "b_dec": normal(D), **more}


def auto_encoder(s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Opened, it gets decoder columns of length 1; reconstructions stay."""
    f = ((X - s["bias"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    return f * s["decoder.weight"].norm(dim=0), f @ s["decoder.weight"].T + s["bias"]


def auto_encoder_new(s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    f = (X @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    return f, f @ s["decoder.weight"].T + s["decoder.bias"]


def gated(s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    pre = (X - s["decoder_bias"]) @ s["encoder.weight"].T
    f = (pre + s["gate_bias"] > 0) * (s["r_mag"].exp() * pre + s["mag_bias"]).relu()
    return f, f @ s["decoder.weight"].T + s["decoder_bias"]


def jump_relu(s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    pre = X @ s["W_enc"] + s["b_enc"]
    f = (pre * (pre > s["threshold"])).relu()
    return f, f @ s["W_dec"] + s["b_dec"]


def matryoshka(s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    pre = ((X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
    f = pre * (pre > s["threshold"])
    return f, f @ s["W_dec"] + s["b_dec"]


DICTIONARIES = {
    "AutoEncoder": (auto_encoder, linear(**{"encoder.bias": normal(F), "bias": normal(D)})),
    "AutoEncoderNew": (auto_encoder_new, linear(**{"encoder.bias": normal(F), "decoder.bias": normal(D)})),
    "GatedAutoEncoder": (
        gated,
        linear(decoder_bias=normal(D), r_mag=normal(F), gate_bias=normal(F), mag_bias=normal(F)),
    ),
    "JumpReluAutoEncoder": (jump_relu, upright(threshold=normal(F))),
    "MatryoshkaBatchTopKSAE": (
        matryoshka,
        upright(threshold=torch.tensor(0.7), k=torch.tensor(K), group_sizes=torch.tensor([10, 30])),
    ),
}


@pytest.mark.parametrize("named", [True, False], ids=["by its class", "by its keys"])
@pytest.mark.parametrize("kind", DICTIONARIES)
def test_every_dictionary_by_its_formula(kind: str, named: bool, tmp_path: Path) -> None:
    reference, state = DICTIONARIES[kind]
    sae = SAE.load(written(tmp_path, state, {"trainer": {"dict_class": kind, "dict_size": F}} if named else None))
    f, decoded = reference(state)
    torch.testing.assert_close(sae.encode(X), f, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), decoded, atol=1e-5, rtol=1e-5)


def test_a_backup_is_of_normalised_activations(tmp_path: Path) -> None:
    """At the end of a training the package multiplies biases and threshold by the factor; a backup is before that."""
    state = tensors(threshold=torch.tensor(0.5))
    sae = SAE.load(written(tmp_path, {"ae": state, "norm_factor": 3.0, "config": AUDIOSAE["trainer"]}, None))
    scaled = {**state, "encoder.bias": 3 * state["encoder.bias"], "b_dec": 3 * state["b_dec"]}
    pre = positive(scaled)
    torch.testing.assert_close(sae.encode(X), torch.where(pre > 1.5, pre, 0), atol=1e-5, rtol=1e-5)
    with pytest.raises(SAEError, match="norm_factor is -1.0, not a number above 0"):
        SAE.load(written(tmp_path, {"ae": state, "norm_factor": -1.0}))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "jumprelu", "gated"])
def test_what_is_written_comes_back(random_sae: Callable[..., SAE], kind: str, center: bool, tmp_path: Path) -> None:
    sae = random_sae(kind, center=center)
    sae.info = SAEInfo("m", "encoder.3", 16_000, 50.0)
    loaded = SAE.load(write_sae(sae, tmp_path / "out", "dictionary_learning"))
    torch.testing.assert_close(loaded.encode(X), sae.encode(X), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loaded(X), sae(X), atol=1e-5, rtol=1e-5)
    assert loaded.info == sae.info


def test_one_threshold_stays_a_batch_top_k(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    sae = random_sae("batchtopk")
    sae.threshold.fill_(0.4)
    loaded = SAE.load(write_sae(sae, tmp_path, "dictionary_learning"))
    assert (loaded.activation, loaded.k) == ("batchtopk", 5)
    assert torch.equal(loaded.threshold, sae.threshold)


def test_what_it_has_not_is_not_written(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    for options in ({"rms_norm": True}, {"normalize": "layer_norm"}):
        with pytest.raises(SAEError, match="cannot be written for it"):
            write_sae(random_sae("relu", **options), tmp_path, "dictionary_learning")
