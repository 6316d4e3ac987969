from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steer.errors import SAEError
from steer.sae import SAE

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
    with pytest.raises(SAEError, match="bare pickle"):
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
    with pytest.raises(SAEError, match=r"ae.pt: damaged file"):
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
    assert asked == {"repository": "owner/Audio-SAE", "revision": "v1", "allow_patterns": ["layer_2/*"]}
