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
    for name in ("activation", "rms_norm", "center", "k", "d_in", "d_sae"):
        assert getattr(loaded, name) == getattr(any_sae, name)
    assert torch.equal(loaded.encode(X), any_sae.encode(X))
    assert torch.equal(loaded(X), any_sae(X))
    assert not any(value.requires_grad for value in loaded.parameters())
    assert {path.name for path in (tmp_path / "deep" / "sae").iterdir()} == {CFG, WEIGHTS}


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
