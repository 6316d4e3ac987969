import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from steer.errors import SAEError
from steer.formats import CFG, WEIGHTS, load_sae, save_sae
from steer.sae import SAE, SAEInfo

X = torch.randn(50, 12, generator=torch.Generator().manual_seed(1))


def edit_cfg(folder: Path, **changes: Any) -> None:
    cfg = json.loads((folder / CFG).read_text())
    (folder / CFG).write_text(json.dumps(cfg | changes))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = load_file(folder / WEIGHTS) | changes
    save_file({name: value for name, value in weights.items() if value is not None}, folder / WEIGHTS)


@pytest.mark.parametrize("center", [True, False])
def test_comes_back_as_it_was(any_sae: SAE, center: bool, tmp_path: Path) -> None:
    any_sae.center = center
    any_sae.info = SAEInfo("m", "latent", 24000, 75.0, "tones", "CC0", {"l0": 5.0}, {"seed": 3})
    loaded = SAE.load(any_sae.save(tmp_path / "deep" / "sae"))
    assert loaded.info == any_sae.info
    for name in ("activation", "rms_norm", "center", "normalize", "k", "d_in", "d_sae"):
        assert getattr(loaded, name) == getattr(any_sae, name)
    assert torch.equal(loaded.encode(X), any_sae.encode(X))
    assert torch.equal(loaded(X), any_sae(X))
    assert not any(value.requires_grad for value in loaded.parameters())
    assert {path.name for path in (tmp_path / "deep" / "sae").iterdir()} == {CFG, WEIGHTS}


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
def test_normalisations_of_single_activations_are_kept(
    random_sae: Callable[..., SAE], normalize: str, tmp_path: Path
) -> None:
    sae = random_sae("topk", normalize=normalize)
    loaded = SAE.load(sae.save(tmp_path))
    assert loaded.normalize == json.loads((tmp_path / CFG).read_text())["normalize_activations"] == normalize
    assert torch.equal(loaded(X), sae(X))


def test_half_precision_on_disk_keeps_thresholds_whole(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    sae = random_sae("jumprelu")
    save_sae(sae, tmp_path, torch.float16)
    assert load_file(tmp_path / WEIGHTS)["W_enc"].dtype == torch.float16
    loaded = load_sae(tmp_path)
    assert torch.equal(loaded.threshold, sae.threshold)
    assert torch.equal(loaded.W_enc, sae.W_enc.half().float())


def test_reads_what_sae_lens_writes(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    """A cfg of sae-lens itself has no section of ours."""
    sae = random_sae("topk")
    sae.save(tmp_path)
    cfg = json.loads((tmp_path / CFG).read_text())
    del cfg["audio"]
    cfg["metadata"] = {"model_name": "gpt2", "hook_name": "blocks.3", "sae_lens_version": "6.0.0"}
    (tmp_path / CFG).write_text(json.dumps(cfg))
    loaded = load_sae(tmp_path)
    assert (loaded.activation, loaded.k, loaded.info.model, loaded.info.site) == ("topk", 5, "gpt2", "blocks.3")
    assert torch.equal(loaded.encode(X), sae.encode(X))


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"architecture": "matching_pursuit"}, "'matching_pursuit' is not supported"),
        ({"normalize_activations": "expected_average_only_in"}, "not folded into the weights"),
        ({"normalize_activations": "covariance_whitening"}, "there is no activation_whitening.safetensors"),
        ({"normalize_activations": "batch_norm"}, "'batch_norm' is not supported"),
        ({"reshape_activations": "hook_z"}, "'hook_z' is not supported"),
        ({"metadata": []}, "metadata in its config is not an object"),
        ({"k": "many"}, "k is 'many', not a number"),
        ({"k": 2.5}, "k is 2.5, not a whole number"),
        ({"d_sae": 41}, "cfg says 12 x 41, W_enc is 12 x 40"),
        ({"architecture": "jumprelu"}, "tensors are missing: threshold"),
        ({"k": 99}, "needs k between 1 and d_sae"),
    ],
)
def test_refuses_rather_than_reads_wrongly(
    random_sae: Callable[..., SAE], tmp_path: Path, cfg: dict[str, Any], message: str
) -> None:
    random_sae("topk").save(tmp_path)
    edit_cfg(tmp_path, **cfg)
    with pytest.raises(SAEError, match=message):
        load_sae(tmp_path)


def test_damaged_files(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    with pytest.raises(SAEError, match="there is no SAE"):
        load_sae(tmp_path / "nowhere")
    with pytest.raises(SAEError, match=f"no {CFG}"):
        load_sae(tmp_path)
    random_sae("relu").save(tmp_path)
    edit_weights(tmp_path, W_dec=torch.ones(40, 11))
    with pytest.raises(SAEError, match="W_dec"):
        load_sae(tmp_path)
    edit_weights(tmp_path, W_dec=torch.full((40, 12), torch.nan))
    with pytest.raises(SAEError, match="not finite"):
        load_sae(tmp_path)
    edit_weights(tmp_path, W_dec=None)
    with pytest.raises(SAEError, match="missing: W_dec"):
        load_sae(tmp_path)
    edit_weights(tmp_path, W_dec=torch.ones(40, 12), W_enc=torch.ones(480))
    with pytest.raises(SAEError, match="W_enc is 480"):
        load_sae(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:100])
    with pytest.raises(SAEError, match="damaged"):
        load_sae(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / CFG).write_text(text)
        with pytest.raises(SAEError, match="damaged|not a JSON object"):
            load_sae(tmp_path)


def test_pickles_are_never_run(tmp_path: Path) -> None:
    torch.save({"W_enc": torch.ones(2, 2)}, tmp_path / WEIGHTS)
    (tmp_path / CFG).write_text('{"architecture": "standard"}')
    with pytest.raises(SAEError, match="damaged"):
        load_sae(tmp_path)


def test_a_folder_that_cannot_be_written(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SAEError, match="could not be written"):
        random_sae("relu").save(tmp_path / "file" / "sae")


def by_hand(folder: Path, cfg: dict[str, Any], **more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (12, 40), "b_enc": (40,), "W_dec": (40, 12), "b_dec": (12,)}
    state = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()} | more
    save_file(state, folder / WEIGHTS)
    (folder / CFG).write_text(json.dumps({"d_in": 12, "d_sae": 40, "dtype": "torch.float32"} | cfg))
    return state


def top5(pre: torch.Tensor) -> torch.Tensor:
    values, places = pre.topk(5)
    return torch.zeros_like(pre).scatter(1, places, values.relu())


def agree(sae: SAE, f: torch.Tensor, decoded: torch.Tensor) -> None:
    torch.testing.assert_close(sae.encode(X), f, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), decoded, atol=1e-4, rtol=1e-5)  # values of about 30


def test_flat_files_of_before_6_0(tmp_path: Path) -> None:
    flat = {"model_name": "gpt2", "hook_point": "blocks.3", "normalize_activations": False}
    s = by_hand(tmp_path, flat | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}})
    f = top5((X - s["b_dec"]) @ s["W_enc"] + s["b_enc"])
    sae = SAE.load(tmp_path)
    agree(sae, f, f @ s["W_dec"] + s["b_dec"])
    assert (sae.info.model, sae.info.site) == ("gpt2", "blocks.3")
    factors = torch.rand(40)
    tuned = flat | {"finetuning_scaling_factor": True, "apply_b_dec_to_input": False}
    s = by_hand(tmp_path, tuned, scaling_factor=factors)
    f = (X @ s["W_enc"] + s["b_enc"]).relu()
    agree(SAE.load(tmp_path), f, (f * factors) @ s["W_dec"] + s["b_dec"])
    edit_cfg(tmp_path, finetuning_scaling_factor=False)
    with pytest.raises(SAEError, match="its cfg does not say that they are used"):
        SAE.load(tmp_path)
    for cfg, message in [
        ({"activation_fn_str": "tanh-relu"}, "'tanh-relu' is not supported"),
        ({"normalize_activations": True}, "not folded into the weights"),
        ({"hook_point": "blocks.3.attn.hook_z"}, "'hook_z' is not supported"),
    ]:
        by_hand(tmp_path, flat | cfg)
        with pytest.raises(SAEError, match=message):
            SAE.load(tmp_path)


def test_a_checkpoint_of_a_training(tmp_path: Path) -> None:
    """Constants beside the weights are folded; the threshold counts features times the decoder's norms."""
    cfg = {"architecture": "batchtopk", "k": 4.6, "rescale_acts_by_decoder_norm": True, "metadata": {}}
    cfg["normalize_activations"] = "expected_average_only_in"
    s = by_hand(tmp_path, cfg, topk_threshold=torch.tensor(4.0, dtype=torch.double))
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    norms = s["W_dec"].norm(dim=1)
    f = (((2 * X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]) * norms).relu()
    f = f * (f > 4)
    sae = SAE.load(tmp_path)
    # the package's own folding halves the decoder and with it the unit of the features
    torch.testing.assert_close(sae.encode(X), f / 2, atol=1e-4, rtol=1e-5)  # values of about 50
    torch.testing.assert_close(sae(X), ((f / norms) @ s["W_dec"] + s["b_dec"]) / 2, atol=1e-4, rtol=1e-5)
    assert (sae.activation, sae.k) == ("batchtopk", 5)
    by_hand(tmp_path, cfg, topk_threshold=torch.tensor(0.0, dtype=torch.double))
    with pytest.warns(UserWarning, match="without its threshold; it runs as top-k, 5 features"):
        assert SAE.load(tmp_path).activation == "topk"
    by_hand(tmp_path, cfg, topk_threshold=torch.tensor(4.0))
    for factor in ('"two"', "0", "null", "Infinity"):
        (tmp_path / "activation_scaler.json").write_text(f'{{"scaling_factor": {factor}}}')
        with pytest.raises(SAEError, match="not folded into the weights"):
            SAE.load(tmp_path)


def test_decoder_norms_are_folded(tmp_path: Path) -> None:
    s = by_hand(tmp_path, {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True, "metadata": {}})
    norms = s["W_dec"].norm(dim=1)
    f = top5(((X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]) * norms)
    agree(SAE.load(tmp_path), f, (f / norms) @ s["W_dec"] + s["b_dec"])


def test_thresholds_as_logarithms(tmp_path: Path) -> None:
    logarithms = torch.randn(40)
    s = by_hand(tmp_path, {"architecture": "jumprelu", "metadata": {}}, log_threshold=logarithms)
    pre = (X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]
    f = pre.relu() * (pre > logarithms.exp())
    agree(SAE.load(tmp_path), f, f @ s["W_dec"] + s["b_dec"])


@pytest.mark.parametrize("center", [True, False])
def test_whitening_is_folded(center: bool, tmp_path: Path) -> None:
    cfg = {"architecture": "standard", "normalize_activations": "covariance_whitening", "metadata": {}}
    s = by_hand(tmp_path, cfg | {"apply_b_dec_to_input": center})
    matrix, mean = torch.eye(12) + 0.1 * torch.randn(12, 12), torch.randn(12)
    constants = {"mean": mean, "matrix": matrix, "inverse_matrix": matrix.inverse().contiguous()}
    save_file(constants, tmp_path / "activation_whitening.safetensors")
    f = (((X - mean) @ matrix - center * s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
    agree(SAE.load(tmp_path), f, (f @ s["W_dec"] + s["b_dec"]) @ constants["inverse_matrix"] + mean)
