"""Run where dictionary-learning is installed: reads ours/, writes theirs/, each with its features. See peer.py."""

import json
import sys
from pathlib import Path

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from safetensors.torch import load_file, save_file

from steer.sae import SAE as OurSAE

folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]
CLASSES = {
    one.__name__: (one, options)
    for one, options in [
        (AutoEncoder, {}),
        (AutoEncoderNew, {}),
        (GatedAutoEncoder, {}),
        (JumpReluAutoEncoder, {}),
        (AutoEncoderTopK, {"k": 5}),
        (BatchTopKSAE, {"k": 5}),
        (MatryoshkaBatchTopKSAE, {"k": 5, "group_sizes": [10, 30]}),
    ]
}


@torch.no_grad()
def answer(sae, name):
    f = sae.encode(x)
    if name.startswith("theirs"):
        torch.testing.assert_close(OurSAE.from_module(sae).encode(x), f, atol=1e-5, rtol=1e-5)
    save_file({"f": f.contiguous(), "x": sae.decode(f).contiguous()}, folder / f"{name}.safetensors")


def opened(path):
    """As its load_dictionary does, whose module imports the training data's libraries."""
    said = json.loads((path / "config.json").read_text())["trainer"]
    one = CLASSES[said["dict_class"]][0]
    k = {"k": said["k"]} if "TopK" in said["dict_class"] else {}
    return one.from_pretrained(str(path / "ae.pt"), device="cpu", **k)


for path in sorted(p for p in (folder / "ours").iterdir() if p.is_dir()):
    answer(opened(path), f"ours/{path.name}")

for name, (one, options) in CLASSES.items():
    torch.manual_seed(0)
    sae = one(12, 40, **options)
    with torch.no_grad():
        for key, value in sae.named_parameters():
            value.copy_(torch.rand_like(value) * 0.5 if key == "threshold" else torch.randn_like(value) * 0.3)
        if "k" in options:
            sae.threshold.fill_(0.6)
    path = folder / "theirs" / name
    path.mkdir()
    torch.save(sae.state_dict(), path / "ae.pt")
    said = {"dict_class": name, "activation_dim": 12, "dict_size": 40, "k": options.get("k")}
    (path / "config.json").write_text(json.dumps({"trainer": said, "buffer": {}}))
    answer(opened(path), f"theirs/{name}")
