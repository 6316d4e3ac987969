"""Malformed SAEs of every format, through `SAE.load`, and where that goes, through what is done with one."""

from __future__ import annotations

import codecs
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from hooks.errors import AudioSteerError
from steer.formats import load_sae, writable, write_sae
from steer.sae import SAE
from tests.fuzz.child import CANARY, Case, Wrong
from tests.fuzz.mutate import mutated
from tests.fuzz.places import bad_paths
from tests.fuzz.texts import ODD, bombs, mutants
from tests.fuzz.tiny import D_IN, D_SAE, tiny_sae

Folder = dict[str, bytes]


def saved(value: Any, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def seeds(folder: Path) -> dict[str, Folder]:
    """The tiny SAE in every format that is read: {format: {file: bytes}}."""
    found: dict[str, Folder] = {}
    for activation in ("relu", "topk", "batchtopk", "jumprelu", "gated"):
        for package in writable():
            there = folder / f"{package}-{activation}"
            try:
                write_sae(tiny_sae(activation), there, package)
            except AudioSteerError:
                continue  # the package has no such SAE
            found[there.name] = {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()}
    W_FD, W_DF = torch.randn(D_SAE, D_IN), torch.randn(D_IN, D_SAE)
    tied = {"encoder_bias": torch.zeros(D_SAE), "decoder.weight": W_DF}
    topk = {"encoder.weight": W_FD, "encoder.bias": torch.zeros(D_SAE), "W_dec": W_FD, "b_dec": torch.zeros(D_IN)}
    two = {
        "encoder.weight": W_FD,
        "encoder.bias": torch.zeros(D_SAE),
        "decoder.weight": W_DF,
        "decoder.bias": torch.zeros(D_IN),
    }
    about = {"whisper_config": {"model": "tiny", "layer_name": "encoder.blocks.2"}, "autoencoder_config": {"k": 4}}
    found["freud-l1"] = {"a.pth": saved({"hparams": about, "model": tied})}
    found["freud-topk"] = {"a.pth": saved({"hparams": about, "model": topk})}
    found["whisper-sae"] = {
        "a.pt": saved({"model_state_dict": {**two, "b_pre": torch.zeros(D_IN)}, "config": {"k": 4}})
    }
    found["whisper-sae-relu"] = {"a.pt": saved({"model_state_dict": two, "config": {}})}
    found["backup"] = {
        "ae.pt": saved({"ae": topk, "norm_factor": 2.0, "config": {"dict_class": "AutoEncoderTopK", "k": 4}})
    }
    found["old torch"] = {"a.pth": saved({"hparams": about, "model": topk}, _use_new_zipfile_serialization=False)}
    found["scaled"] = dict(found["saelens-relu"])
    cfg = {**json.loads(found["scaled"]["cfg.json"]), "normalize_activations": "expected_average_only_in"}
    found["scaled"] |= {"cfg.json": json.dumps(cfg).encode(), "activation_scaler.json": b'{"scaling_factor": 2.0}'}
    for d_in, d_sae in ((0, D_SAE), (D_IN, 0), (0, 0), (0, 10**12), (10**12, 0)):
        about, shape = (
            {"architecture": "standard", "d_in": d_in, "d_sae": d_sae, "metadata": {}},
            torch.zeros(d_in, d_sae),
        )
        state = {
            "W_enc": shape,
            "W_dec": shape.T.contiguous(),
            "b_enc": torch.zeros(d_sae % 10**12),
            "b_dec": torch.zeros(d_in % 10**12),
        }
        found[f"{d_in} x {d_sae}"] = {
            "cfg.json": json.dumps(about).encode(),
            "sae_weights.safetensors": safetensors.torch.save(state),
        }
    found["whitened"] = dict(found["saelens-relu"])
    eye = {"mean": torch.zeros(D_IN), "matrix": torch.eye(D_IN), "inverse_matrix": torch.eye(D_IN)}
    cfg["normalize_activations"] = "covariance_whitening"
    found["whitened"] |= {
        "cfg.json": json.dumps(cfg).encode(),
        "activation_whitening.safetensors": safetensors.torch.save(eye),
    }
    return found


# --- what can be wrong with tensors ---


def odd_tensor(x: torch.Tensor, rng: np.random.Generator, safe: bool) -> Any:
    """The tensor as another one; `safe` keeps to what safetensors can hold."""
    x = x if x.ndim else x[None]
    choices: list[Callable[[], Any]] = [
        lambda: x * float("nan"),
        lambda: x.float() * 1e38 * 10,
        lambda: x.to(torch.float16),
        lambda: x.to(torch.bfloat16),
        lambda: x.double() * 1e300,
        lambda: x.to(torch.int8),
        lambda: x.to(torch.int64),
        lambda: x.bool(),
        lambda: x.to(torch.float8_e4m3fn),
        lambda: x.flatten(),
        lambda: x.T.contiguous() if x.ndim == 2 else x[None],
        lambda: x[..., :-1].contiguous(),
        lambda: x[None].contiguous(),
        lambda: x[:0],
        lambda: x[..., :0],
        lambda: x.sum(),
        lambda: torch.zeros(0, 10**12),
        lambda: torch.zeros(10**12, 0),
        lambda: torch.zeros_like(x),
        lambda: torch.full_like(x, 3e38) if x.is_floating_point() else x,
    ]
    if not safe:
        choices += [
            lambda: x.to(torch.complex64),
            lambda: x.to_sparse(),
            lambda: x.to_sparse_csr() if x.ndim == 2 else x,
            lambda: torch.empty(x.shape, device="meta"),
            lambda: torch.zeros(1).expand(10**6, 10**6),
            lambda: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
            lambda: torch.nn.Parameter(x) if x.is_floating_point() else x,
            lambda: x.float().numpy().tolist(),
            lambda: torch.nested.nested_tensor([x.flatten()]),
            lambda: ODD[int(rng.integers(len(ODD)))],
        ]
    return choices[int(rng.integers(len(choices)))]()


def odd_state(state: dict[str, Any], rng: np.random.Generator, safe: bool) -> dict[str, Any]:
    """One entry is gone, called otherwise, or something else; in a nested dict too."""
    state = dict(state)
    key = list(state)[int(rng.integers(len(state)))]
    value = state[key]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        state[key] = odd_state(value, rng, safe)
        return state
    match int(rng.integers(6)):
        case 0:
            del state[key]
        case 1:
            state[f"x.{key}"] = state.pop(key)
        case 2 if not safe:
            state[key] = ODD[int(rng.integers(len(ODD)))]
        case 3 if not safe:
            state[key] = {key: value}
        case _ if isinstance(value, torch.Tensor):
            state[key] = odd_tensor(value, rng, safe)
    return state


def odd_header(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file whose header says something else."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entry = header[list(header)[int(rng.integers(len(header)))]]
    match int(rng.integers(7)):
        case 0:
            entry["data_offsets"] = [[0, 2**63 - 1], [-1, 4], [4, 0], [0, 0], [2**64, 2**65]][int(rng.integers(5))]
        case 1:
            entry["shape"] = [[10**12], [2**40, 2**40], [0], [], [-1, 4], [2**63], [1] * 200][int(rng.integers(7))]
        case 2:
            entry["dtype"] = ["F64", "I64", "BOOL", "F8_E4M3", "F4", "C64", "X", "", 3][int(rng.integers(9))]
        case 3:
            header = {**header, "again": entry}  # the same bytes twice
        case 4:
            header = dict.fromkeys(header, entry)
        case 5:
            header["__metadata__"] = {"a": ["x", 3, {}, None][int(rng.integers(4))]}
        case 6:
            sizes = (0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1)
            return sizes[int(rng.integers(len(sizes)))].to_bytes(8, "little") + data[8:]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def damaged(name: str, data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """A file of an SAE, a model or vectors with something wrong in it."""
    if name.endswith(".json"):
        return mutants([json.loads(data)], rng)
    way = rng.random()
    if name.endswith(".safetensors"):
        if way < 0.4:
            return odd_header(data, rng)
        if way < 0.8:
            return safetensors.torch.save(odd_state(safetensors.torch.load(data), rng, True))
        return mutated(data, rng, other, header=int.from_bytes(data[:8], "little") + 8)
    if way < 0.6:
        state = torch.load(io.BytesIO(data), weights_only=True)
        return saved(odd_state(state, rng, False), _use_new_zipfile_serialization=bool(rng.random() < 0.7))
    return mutated(data, rng, other, header=len(data))


# --- pickles that do something ---


class Call:
    """Unpickled, a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def traps() -> dict[str, bytes]:
    """{name: a file of torch that runs something, or asks for more memory than there is}."""
    touch = f"open({CANARY!r}, 'w')"
    calls = {
        "os.system": Call(os.system, f"touch {CANARY}"),
        "exec": Call(exec, touch),
        "eval": Call(eval, touch),
        "open": Call(open, CANARY, "w"),
        "torch.load": Call(torch.load, CANARY),
        "numpy": Call(np.save, CANARY, 0),
        "bytes": Call(bytearray, 2**32),
        "void": Call(np.float64(0).__reduce__()[0], Call(np.dtype, "V4000000000")),
    }
    hexed: Any = b"x" * 64
    for _ in range(28):
        hexed = Call(codecs.encode, hexed, "hex")
    calls["hex of hex"] = hexed
    laughs: Any = ["x"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    itself: dict[str, Any] = {}
    itself["self"] = itself
    calls |= {"laughs": laughs, "itself": itself, "digits": 10**4000}  # type: ignore[dict-item]
    found = {}
    weights = {
        "encoder.weight": torch.ones(D_SAE, D_IN),
        "decoder.weight": torch.ones(D_IN, D_SAE),
        "encoder.bias": torch.zeros(D_SAE),
        "decoder.bias": torch.zeros(D_IN),
    }
    for name, call in calls.items():
        for where, state in {
            "top": call,
            "in the config": {"model_state_dict": weights, "config": {"k": call}},
            "as k": {"ae": {**weights, "k": call}},
            "as a weight": {**weights, "encoder.bias": call},
            "in hparams": {"hparams": {"x": call}, "model": {"encoder_bias": torch.zeros(D_SAE), **weights}},
        }.items():
            found[f"{name} {where}"] = saved(state)
            found[f"{name} {where}, old torch"] = saved(state, _use_new_zipfile_serialization=False)
        found[f"{name}, plain pickle"] = pickle.dumps(call)
        found[f"{name}, protocol 0"] = pickle.dumps(call, protocol=0)
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    found["deep"] = saved({"model_state_dict": weights, "config": {"k": deep}})
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**27))
    found["zip bomb"] = zeros.getvalue()
    numbers = io.BytesIO()
    np.savez(numbers, W_enc=np.ones((D_IN, D_SAE)))
    objects = io.BytesIO()
    np.save(objects, np.array([Call(os.system, f"touch {CANARY}")], dtype=object), allow_pickle=True)
    return found | {
        "npz": numbers.getvalue(),
        "npy": objects.getvalue(),
        "lfs": b"version https://git-lfs.github.com/spec/v1\n",
    }


# --- what is done with each ---


class Attack:
    """Loads what lies there, runs it and writes it anew in every format."""

    def __init__(self, out: Path) -> None:
        self.out, self.x_TD = out, torch.randn(3, D_IN)

    def __call__(self, source: Path) -> None:
        sae = SAE.load(source)
        if sae.d_in < 1 or sae.d_sae < 1:
            raise Wrong(f"an SAE {sae.d_in} -> {sae.d_sae}")
        x_TD = self.x_TD if sae.d_in == D_IN else torch.randn(3, sae.d_in)
        f_TF = sae.encode(x_TD)
        if f_TF.shape != (3, sae.d_sae) or sae.decode(f_TF, x_TD).shape != x_TD.shape:
            raise Wrong("features of another shape")
        for package in writable():
            try:
                write_sae(sae, self.out / package, package)
            except AudioSteerError as error:
                if (
                    "has" not in str(error)
                    and "cannot be written for it" not in str(error)
                    and "does" not in str(error)
                ):
                    raise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = load_sae(self.out / "saelens" / "sae_weights.safetensors")
        if again.info != sae.info and "nan" not in repr(sae.info).lower():
            raise Wrong(f"{again.info} of {sae.info}")


def laid(folder: Path, files: Folder) -> None:
    """Put these files there and no others."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def cases(folder: Path, count: int) -> Iterator[Case]:
    known = seeds(folder / "seeds")
    out, there = folder / "out", folder / "sae"
    out.mkdir()
    there.mkdir()
    attack = Attack(out)
    for name, files in known.items():
        laid(there, files)
        yield Case(f"good {name}", lambda: attack(there), str(there))
    for ending in (".pt", ".safetensors", ""):
        for name, path in bad_paths(folder / f"paths{ending}", ending).items():
            yield Case(f"path {name}{ending}", lambda path=path: SAE.load(path))  # type: ignore[misc]
    for name, path in bad_paths(folder / "parts", "").items():
        for part in ("cfg.json", "sae_weights.safetensors"):
            if os.path.lexists(path):
                laid(there, known["saelens-relu"])
                (there / part).unlink()
                (there / part).symlink_to(path)
                yield Case(f"{part} is {name}", lambda: attack(there), str(there))
    for name, data in traps().items():
        laid(there, {"a.pt": data})
        yield Case(name, lambda: attack(there), str(there))
    for name, data in bombs().items():
        laid(there, {**known["saelens-topk"], "cfg.json": data})
        yield Case(f"cfg {name}", lambda: attack(there), str(there))
    names = list(known)
    for index in range(count):
        rng = np.random.default_rng([13, index])
        name = names[index % len(names)]
        files = dict(known[name])
        part = list(files)[int(rng.integers(len(files)))]
        files[part] = damaged(part, files[part], rng, next(iter(known[names[int(rng.integers(len(names)))]].values())))
        laid(there, files)
        yield Case(f"{name} {part} {index}", lambda: attack(there), str(there))
