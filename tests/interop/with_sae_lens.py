"""Run where sae-lens is installed: reads ours/, writes theirs/, each with its features. See peer.py."""

import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_training_class
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from safetensors.torch import load_file, save_file

from steer.delta import site_edit
from steer.edits import Scale
from steer.sae import SAE as OurSAE
from steer.values import Frames

folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]
frames = Frames.of(x[None], 50.0, 0.0)


@torch.no_grad()
def answer(sae, name):
    f = sae.encode(x)
    if name.startswith("theirs"):
        ours = OurSAE.from_module(sae)
        torch.testing.assert_close(ours.encode(x), f, atol=1e-5, rtol=1e-5)
    save_file({"f": f.contiguous(), "x": sae.decode(f).contiguous()}, folder / f"{name}.safetensors")
    if name.startswith("theirs"):
        # edits decode twice, and some of theirs keep the scale of an activation for one time
        edited, expected = (site_edit(one, [Scale([1, 3], 2.0)])(x[None], frames) for one in (sae, ours))
        torch.testing.assert_close(edited, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def randomized(sae):
    torch.manual_seed(0)
    for name, value in sae.named_parameters():
        value.copy_(torch.rand_like(value) * 0.5 if name == "threshold" else torch.randn_like(value) * 0.3)
    return sae


for path in sorted(p for p in (folder / "ours").iterdir() if p.is_dir()):
    try:
        sae = SAE.load_from_disk(path)
    except Exception as error:
        print(f"{path.name} refused:", error)
    else:
        answer(sae, f"ours/{path.name}")

options = {"d_in": 12, "d_sae": 40, "dtype": "float32", "device": "cpu", "metadata": {"sae_lens_version": "6.54.0"}}
CONFIGS = {
    "standard": {},
    "standard-uncentred": {"apply_b_dec_to_input": False},
    "standard-layer_norm": {"normalize_activations": "layer_norm"},
    "gated-constant_norm_rescale": {"normalize_activations": "constant_norm_rescale"},
    "jumprelu": {},
    "gated": {"apply_b_dec_to_input": False},
    "topk": {"k": 5},
    "topk-rescaled": {"k": 5, "rescale_acts_by_decoder_norm": True},
}
for name, more in CONFIGS.items():
    sae = randomized(SAE.from_dict({**options, **more, "architecture": name.partition("-")[0]}))
    sae.save_model(folder / "theirs" / name)
    answer(sae, f"theirs/{name}")

# trainings: the checkpoint, and the SAE that the package makes of it at the end
TRAININGS = {
    "jumprelu": {},
    "topk": {"k": 5},
    "batchtopk": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "batchtopk-scaled": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "topk-scaled": {"k": 5, "rescale_acts_by_decoder_norm": False},
    "batchtopk-whitened": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "gated-whitened": {"apply_b_dec_to_input": False},
}
NORMALIZATIONS = {"scaled": "expected_average_only_in", "whitened": "covariance_whitening"}
for name, more in TRAININGS.items():
    kind, _, how = name.partition("-")
    sae_class, cfg_class = get_sae_training_class(kind)
    sae = randomized(
        sae_class(cfg_class(d_in=12, d_sae=40, normalize_activations=NORMALIZATIONS.get(how, "none"), **more))
    )
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold = torch.tensor(0.8, dtype=torch.double)
    checkpoint = folder / "theirs" / f"checkpoint-{name}"
    sae.save_model(checkpoint)
    if how == "scaled":
        ActivationScaler(scaling_factor=1.7).save(str(checkpoint / "activation_scaler.json"))
        sae.fold_activation_norm_scaling_factor(1.7)
    if how == "whitened":
        matrix = torch.eye(12) + 0.2 * torch.randn(12, 12)
        whitening = ActivationWhitening(0.1 * torch.randn(12), matrix, matrix.inverse().contiguous())
        ActivationScaler(whitening=whitening).save(str(checkpoint / "activation_scaler.json"))
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    sae.save_inference_model(folder / "theirs" / f"final-{name}")
    final = SAE.load_from_disk(folder / "theirs" / f"final-{name}")
    answer(final, f"theirs/final-{name}")
    answer(final, f"theirs/checkpoint-{name}")
