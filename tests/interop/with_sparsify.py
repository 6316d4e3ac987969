"""Run where eai-sparsify is installed: reads ours/, writes theirs/, each with its features. See peer.py."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig

from steer.sae import SAE as OurSAE

folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]


@torch.no_grad()
def answer(sae, name):
    values, places, _ = sae.encode(x)
    f = torch.zeros(len(x), sae.num_latents).scatter(1, places, values)
    if name.startswith("theirs") and not sae.cfg.transcode:
        torch.testing.assert_close(OurSAE.from_module(sae).encode(x), f, atol=1e-5, rtol=1e-5)
    save_file({"f": f, "x": sae.decode(values, places)}, folder / f"{name}.safetensors")


for path in sorted(p for p in (folder / "ours").iterdir() if p.is_dir()):
    answer(SparseCoder.load_from_disk(path), f"ours/{path.name}")

for name, config in {
    "layers.3": SparseCoderConfig(num_latents=40, k=5),
    "square": SparseCoderConfig(expansion_factor=1, k=5, normalize_decoder=False),
    "transcoder": SparseCoderConfig(num_latents=40, k=5, transcode=True, skip_connection=True),
}.items():
    torch.manual_seed(0)
    sae = SparseCoder(12, config)
    with torch.no_grad():
        for value in sae.parameters():
            value.copy_(torch.randn_like(value) * 0.3)
    sae.save_to_disk(folder / "theirs" / name)
    answer(sae, f"theirs/{name}")
