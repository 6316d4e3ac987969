"""Which format a folder, file or module is of, and names that stand for folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from steer import formats
from steer.errors import SAEError
from steer.formats import find_folder, from_module, load_sae, writable, write_sae
from steer.formats.checkpoint import read_weights
from steer.sae import SAE

D, F, K = 12, 40, 5
X = torch.randn(30, D, generator=torch.Generator().manual_seed(0))
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def test_a_package_reads_of_each_other_what_it_writes(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    sae = random_sae("topk")
    for to in ("saelens", "dictionary_learning", "sparsify"):
        written = write_sae(load_sae(write_sae(sae, tmp_path / to, to)), tmp_path / f"{to}-2", "saelens")
        torch.testing.assert_close(load_sae(written).encode(X), sae.encode(X), **CLOSE)
    with pytest.raises(SAEError, match="no format 'gguf' to write; there are openai, saelens"):
        write_sae(sae, tmp_path, "gguf")


@pytest.mark.parametrize("to", writable())
def test_opening_draws_no_random_numbers(random_sae: Callable[..., SAE], to: str, tmp_path: Path) -> None:
    path = write_sae(random_sae("topk", normalize="layer_norm" if to == "openai" else None), tmp_path, to)
    before = torch.get_rng_state()
    sae = load_sae(path)
    from_module(sae)
    assert torch.equal(torch.get_rng_state(), before)
    assert sae.W_enc.T.is_contiguous()  # as a new one's: products are faster so


@pytest.mark.parametrize("to", writable())
def test_a_folder_that_cannot_be_written(random_sae: Callable[..., SAE], to: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SAEError, match="could not be written"):
        write_sae(random_sae("topk", normalize="layer_norm" if to == "openai" else None), tmp_path / "file" / "sae", to)


def test_a_folder_of_folders_and_of_many_files(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    for layer in (1, 2):
        write_sae(random_sae("topk"), tmp_path / f"layer_{layer}", "dictionary_learning")
    with pytest.raises(SAEError, match="there are SAEs in its folders layer_1, layer_2"):
        load_sae(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(SAEError, match=r"which of a.pt, b.pt\? Pass the file"):
        load_sae(tmp_path)


def test_earlier_steps_of_dictionary_learning(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    write_sae(random_sae("topk"), tmp_path, "dictionary_learning")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "ae.pt").rename(tmp_path / "checkpoints" / "ae_100.pt")
    assert load_sae(tmp_path / "checkpoints" / "ae_100.pt").activation == "topk"  # as the config one floor up says


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_sae: Callable[..., SAE]) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="downloads from Hugging Face (extra all)")
    write_sae(random_sae("relu"), tmp_path / "deep", "openai")
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert load_sae("hf:owner/name/deep/autoencoder.pt@v2").activation == "relu"
    patterns = ["deep/autoencoder.pt", "deep/*.json"]
    assert (asked["repository"], asked["revision"], asked["allow_patterns"]) == ("owner/name", "v2", patterns)
    assert find_folder("hf:owner/name/deep") == find_folder("hf:owner/name/deep/autoencoder.pt") == tmp_path / "deep"
    with pytest.raises(SAEError, match="the repository has no layer_9"):
        load_sae("hf:owner/name/layer_9")
    for name in ("hf:owner/name/../../etc", "hf:owner/name//etc", "hf:owner/name/a/./b"):
        with pytest.raises(SAEError, match="is not a path inside a repository"):
            load_sae(name)

    def offline(repository: str, **options: Any) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(SAEError, match="could not be downloaded \\(no route to host\\); check the name, the revision"):
        load_sae("hf:owner/name")


def random_module(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for value in module.parameters():
        value.data = torch.randn_like(value) * 0.3
    return module


class GatedAutoEncoder(nn.Module):
    """As dictionary_learning's: told by its class and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(D, F, bias=False), nn.Linear(F, D, bias=False)
        self.decoder_bias = nn.Parameter(torch.zeros(D))
        self.r_mag, self.gate_bias, self.mag_bias = (nn.Parameter(torch.zeros(F)) for _ in range(3))

    def encode(self, x: Tensor) -> Tensor:
        pre = self.encoder(x - self.decoder_bias)
        return (pre + self.gate_bias > 0) * (self.r_mag.exp() * pre + self.mag_bias).relu()


class AutoEncoder(nn.Module):
    """As dictionary_learning's; the package changes the decoder's length when it opens a file, not in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(D, F), nn.Linear(F, D, bias=False)
        self.bias = nn.Parameter(torch.zeros(D))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x - self.bias).relu()


class SparseCoder(nn.Module):
    """As sparsify's; its encode gives values and places."""

    def __init__(self) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(to_dict=lambda: {"k": K, "activation": "topk", "num_latents": 0})
        self.encoder = nn.Linear(D, F)
        self.W_dec, self.b_dec, self.W_skip = nn.Parameter(torch.zeros(F, D)), nn.Parameter(torch.zeros(D)), None

    def encode(self, x: Tensor) -> Tensor:
        values, places = self.encoder(x - self.b_dec).relu().topk(K)
        return torch.zeros(len(x), F).scatter(1, places, values)


class TopKSAE(nn.Module):
    """As whisper-sae's, which keeps k as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.b_pre = K, nn.Parameter(torch.zeros(D))
        self.encoder, self.decoder = nn.Linear(D, F), nn.Linear(F, D)

    def encode(self, x: Tensor) -> Tensor:
        values, places = self.encoder(x - self.b_pre).topk(K)
        return torch.zeros(len(x), F).scatter(1, places, values.relu())


@pytest.mark.parametrize("kind", [GatedAutoEncoder, AutoEncoder, SparseCoder, TopKSAE])
def test_modules_in_memory(kind: type[nn.Module]) -> None:
    module = random_module(kind())
    sae = SAE.from_module(module)
    torch.testing.assert_close(sae.encode(X), module.encode(X), **CLOSE)
    with torch.no_grad():
        sae.W_enc.zero_()
    assert module.encoder.weight.count_nonzero()  # a copy


def test_a_module_of_sae_lens(random_sae: Callable[..., SAE]) -> None:
    """Told by its cfg; one that it has normalised already says so no more."""
    sae = random_sae("jumprelu")

    class JumpReLUSAE(nn.Module):
        cfg = SimpleNamespace(to_dict=lambda: {"architecture": "jumprelu", "d_in": D, "d_sae": F, "metadata": {}})

        def __init__(self) -> None:
            super().__init__()
            for name, value in sae.named_parameters():
                self.register_parameter(name, value)

    assert torch.equal(from_module(JumpReLUSAE()).encode(X), sae.encode(X))
    assert from_module(sae) is sae


def test_other_modules_are_refused() -> None:
    with pytest.raises(SAEError, match=r"Linear: an SAE of no known format \(it has weight, bias\)"):
        from_module(nn.Linear(3, 3))


def test_schemes_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_sae: Callable[..., SAE]) -> None:
    random_sae("relu").save(tmp_path)
    monkeypatch.setitem(formats.SCHEMES, "mine", lambda rest: tmp_path / rest)
    assert load_sae("mine:.").activation == "relu"


@pytest.mark.filterwarnings("ignore:.*without its threshold")
@pytest.mark.parametrize("to", writable())
def test_nonsense_in_a_file_is_no_crash(random_sae: Callable[..., SAE], to: str, tmp_path: Path) -> None:
    """Each value of the config and each tensor in turn is something else: an SAE or a reason, never another error."""
    write_sae(random_sae("topk", normalize="layer_norm" if to == "openai" else None), tmp_path, to)
    config_file = next(tmp_path.glob("*.json"))
    config = json.loads(config_file.read_text())
    for inside in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in list(inside.items()):
            for nonsense in (None, -1, 1e400, "x", [1], {"a": 1}, True):
                inside[key] = nonsense
                config_file.write_text(json.dumps(config))
                with suppress(SAEError):
                    load_sae(tmp_path)
            inside[key] = value
    config_file.write_text(json.dumps(config))
    weights = next(path for path in tmp_path.iterdir() if path != config_file)
    in_torch = weights.suffix == ".pt"
    state = read_weights(weights)
    tensors = [torch.zeros(0), torch.ones(3, 2, 2), torch.ones(40).long(), torch.full((12, 40), torch.nan)]
    for key in state:
        for nonsense in tensors + (["x", [1], {}, None] if in_torch else []):
            changed = {name: value for name, value in state.items() if name != key} | {key: nonsense}
            torch.save(changed, weights) if in_torch else save_file(changed, weights)
            with suppress(SAEError):
                load_sae(tmp_path)
