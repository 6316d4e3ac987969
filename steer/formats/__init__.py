"""SAE files of every package: which format a folder, file or module is of is told by its files and keys.

| package | files | read | written |
| --- | --- | --- | --- |
| SAELens, ours | `cfg.json`, `sae_weights.safetensors` | all of one site | all |
| dictionary_learning, AudioSAE | `ae.pt`, `config.json` | all its dictionaries | all but normalised |
| EleutherAI sparsify | `cfg.json`, `sae.safetensors` | top-k | top-k |
| OpenAI sparse_autoencoder | one `.pt` | ReLU, TopK | relu, top-k with layer norm |
| FREUD, whisper-sae | one `.pth`, `.pt` | L1 / ReLU, TopK | |

Which way a matrix lies is told by its key, never by its size. Nothing that a file says is run:
see `hooks.weights`.
"""

from steer.formats.files import fetch_sae, from_module, load_sae, load_saes, push_sae, write_sae
from steer.formats.known import FORMATS, Format, writable
from steer.formats.places import SCHEMES, find_folder
from steer.formats.sae_lens import CFG, RMS_ARCHITECTURE, WEIGHTS, save_sae
from steer.sae import SAE

# an SAE knows no formats, which build SAEs: its entry points are put there from here
for name, entry in {
    "load": staticmethod(load_sae),
    "load_all": staticmethod(load_saes),
    "from_module": staticmethod(from_module),
    "from_hub": staticmethod(fetch_sae),
    "save": save_sae,
    "push_to_hub": push_sae,
}.items():
    setattr(SAE, name, entry)

__all__ = [
    "CFG",
    "FORMATS",
    "RMS_ARCHITECTURE",
    "SCHEMES",
    "WEIGHTS",
    "Format",
    "fetch_sae",
    "find_folder",
    "from_module",
    "load_sae",
    "load_saes",
    "push_sae",
    "save_sae",
    "writable",
    "write_sae",
]
