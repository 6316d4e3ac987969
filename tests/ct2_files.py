"""Files as CTranslate2 writes them, of any content, and folders of Whispers of any type of weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
HOW = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float16")
"""How weights are stored: matrices and, behind `_`, all else."""


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: str, value: Tensor) -> bytes:
    data = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    sizes = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return text(name) + sizes + struct.pack("<BI", TYPES.index(value.dtype), len(data)) + data


def packed(
    variables: Mapping[str, Tensor],
    aliases: Mapping[str, str] | None = None,
    kind: str = "WhisperSpec",
    version: int = 6,
) -> bytes:
    """A `model.bin`."""
    parts = [struct.pack("<I", version), text(kind), struct.pack("<II", 3, len(variables))]
    parts += [variable(name, value) for name, value in variables.items()]
    parts += [struct.pack("<I", len(aliases or {}))]
    parts += [text(alias) + text(name) for alias, name in (aliases or {}).items()]
    return b"".join(parts)


def tiny_module(vocabulary: int = 24, layers: int = 1) -> Any:
    """A Whisper of 8 channels and 12 frames with random weights; its sinusoids have positions of their own."""
    import whisper

    torch.manual_seed(0)
    module = whisper.model.Whisper(
        whisper.model.ModelDimensions(4, 12, 8, 2, layers, vocabulary, 10, 8, 4, layers)
    ).eval()
    for value in module.state_dict().values():
        value.copy_(torch.randn_like(value) * 0.3)
    return module


def variables_of(module: Any, how: str = "float32") -> dict[str, Tensor]:
    """{CTranslate2's name: value} of a Whisper."""
    state = {name: value.detach() for name, value in module.state_dict().items()}
    found: dict[str, Tensor] = {}

    def put(theirs: str, ours: str) -> None:
        norm = theirs.endswith("layer_norm")
        found[f"{theirs}/{'gamma' if norm else 'weight'}"] = state[f"{ours}.weight"]
        found[f"{theirs}/{'beta' if norm else 'bias'}"] = state[f"{ours}.bias"]

    def put_stacked(theirs: str, ours: str, names: tuple[str, ...]) -> None:
        maps = [state[f"{ours}.{name}.weight"] for name in names]
        none = torch.zeros(len(maps[0]))
        found[f"{theirs}/weight"] = torch.cat(maps)
        found[f"{theirs}/bias"] = torch.cat([state.get(f"{ours}.{name}.bias", none) for name in names])

    put("encoder/conv1", "encoder.conv1")
    put("encoder/conv2", "encoder.conv2")
    for part, layers, heads in (
        ("encoder", module.dims.n_audio_layer, module.dims.n_audio_head),
        ("decoder", module.dims.n_text_layer, module.dims.n_text_head),
    ):
        found[f"{part}/num_heads"] = torch.tensor(heads, dtype=torch.int16)
        found[f"{part}/position_encodings/encodings"] = state[f"{part}.positional_embedding"]
        put(f"{part}/layer_norm", f"{part}.{'ln_post' if part == 'encoder' else 'ln'}")
        for i in range(layers):
            theirs, ours = f"{part}/layer_{i}", f"{part}.blocks.{i}"
            put_stacked(f"{theirs}/self_attention/linear_0", f"{ours}.attn", ("query", "key", "value"))
            put(f"{theirs}/self_attention/linear_1", f"{ours}.attn.out")
            put(f"{theirs}/self_attention/layer_norm", f"{ours}.attn_ln")
            if part == "decoder":
                put(f"{theirs}/attention/linear_0", f"{ours}.cross_attn.query")
                put_stacked(f"{theirs}/attention/linear_1", f"{ours}.cross_attn", ("key", "value"))
                put(f"{theirs}/attention/linear_2", f"{ours}.cross_attn.out")
                put(f"{theirs}/attention/layer_norm", f"{ours}.cross_attn_ln")
            put(f"{theirs}/ffn/linear_0", f"{ours}.mlp.0")
            put(f"{theirs}/ffn/linear_1", f"{ours}.mlp.2")
            put(f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")
    found["decoder/embeddings/weight"] = state["decoder.token_embedding.weight"]
    return stored(found, how)


def stored(variables: Mapping[str, Tensor], how: str) -> dict[str, Tensor]:
    """The same with weights as `how` says, quantised as CTranslate2 does it."""
    matrices, _, rest = how.partition("_")
    other = getattr(torch, rest or (how if how in ("float16", "bfloat16") else "float32"))
    found: dict[str, Tensor] = {}
    for name, value in variables.items():
        if not value.is_floating_point():
            found[name] = value
        elif not name.endswith("/weight") or not matrices.startswith("int"):
            found[name] = value.to(other)
        elif matrices == "int8":
            scale = 127 / value.flatten(1).abs().amax(1)
            found[name] = (value * scale.view(-1, *[1] * (value.ndim - 1))).round().to(torch.int8)
            found[f"{name}_scale"] = scale
        else:
            scale = 1024 / value.abs().max()
            found[name] = (value * scale).round().to(torch.int16)
            found[f"{name}_scale"] = scale
    return found


ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}
QUANTISED_ALIASES = {**ALIASES, "decoder/projection/weight_scale": "decoder/embeddings/weight_scale"}


def ct2_folder(folder: Path, module: Any, how: str = "float32") -> Path:
    """A folder with `model.bin` and a `config.json` that names the first head of each layer of the decoder."""
    folder.mkdir(parents=True, exist_ok=True)
    aliases = QUANTISED_ALIASES if how.startswith("int") else ALIASES
    (folder / "model.bin").write_bytes(packed(variables_of(module, how), aliases))
    heads = [[layer, 0] for layer in range(module.dims.n_text_layer)]
    (folder / "config.json").write_text(json.dumps({"alignment_heads": heads, "lang_ids": [], "suppress_ids": [1, 2]}))
    return folder
