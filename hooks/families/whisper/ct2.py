"""Whisper in a folder of CTranslate2, as `faster-whisper` uses it: opened as a module of the `openai-whisper` package.

`ct2:DIR`, or any folder with a `model.bin` whose `config.json` names no type. Weights of any type, int8 too, become
float32: the module is an ordinary one of the package, and all that works on those works on it. The rules by which
`faster-whisper` decodes are not taken over: texts are found by `whisper.transcribe`.

`config.json` may be missing; of it only `alignment_heads` are used, by which words get their times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.ctranslate2 import AGAIN, FILE, Content, Damaged, read_model
from hooks.errors import ModelError, one_line, require
from hooks.families.whisper.package import WhisperPackage
from hooks.family import Family
from hooks.files import read_text

KIND = "WhisperSpec"
HEAD_WIDTH = 64
"""Of all Whispers; files made before the number of heads was stored do not say it."""
AUDIO_FRAMES, MAX_PLACES = 1500, 4096
MAX_CONFIG_BYTES = 2**20
POSITIONS, SINUSOIDS = "encoder/position_encodings/encodings", "encoder.positional_embedding"
"""Not in every file: the module makes them."""


def open_name(rest: str, name: str) -> WhisperPackage:
    """`ct2:DIR`, or `ct2:` and the path of the `model.bin` in it.

    Raises:
        ModelError: as `open_folder`, or there is no such folder.
    """
    folder = Path(rest)
    if folder.name == FILE:
        folder = folder.parent
    if not (folder / FILE).exists():
        raise ModelError(f"{name}: there is no {folder / FILE}; name the folder that faster-whisper opens")
    return open_folder(folder, name)


def open_folder(folder: Path, name: str) -> WhisperPackage:
    """Raises ModelError where `model.bin` or `config.json` is damaged, or is not of a Whisper."""
    path = folder / FILE
    content = read_model(path)
    if content.kind != KIND:
        raise ModelError(f"{path}: is a {content.kind} of CTranslate2, and only Whispers ({KIND}) can be opened")
    try:
        module = module_of(content)
    except Damaged as error:
        raise ModelError(f"{path}: not a Whisper that can be opened ({error}); {AGAIN}") from error
    heads = alignment_heads(folder / "config.json", module)
    if heads is not None:
        module.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return WhisperPackage(module, name)


def module_of(content: Content) -> Any:
    """A `whisper.model.Whisper` in float32 on the CPU, in evaluation mode.

    Raises:
        Damaged: weights are missing, or have other sizes than a Whisper's.
    """
    module = require("whisper.model", "whisper").Whisper(dimensions(content))
    state = module.state_dict()
    absent = state.keys() - {SINUSOIDS}
    for key, value in weights(content):
        if value.shape != state[key].shape:
            raise Damaged(f"{key} is {list(value.shape)}, where {list(state[key].shape)} is needed")
        state[key].copy_(value)
        absent -= {key}
    if absent:
        raise Damaged(f"{min(absent)} is missing")
    return module.eval()


def dimensions(content: Content) -> Any:
    """The package's `ModelDimensions`, as the weights tell them.

    Raises:
        Damaged: there are none, or they ask for a model that is larger than what the file holds.
    """

    def sizes(name: str, rank: int) -> tuple[int, ...]:
        found = content.shape(name)
        if len(found) != rank:
            raise Damaged(f"{name} has not {rank} dimensions")
        return found

    def heads(part: str, width: int) -> int:
        stored = content.variables.get(f"{part}/num_heads")
        found = (
            width // HEAD_WIDTH if stored is None or stored.ndim or stored.is_floating_point() else int(stored.item())
        )
        if found < 1 or width % found:
            raise Damaged(f"{part}/num_heads is {found}, and the width {width}")
        return found

    width, mels, _ = sizes("encoder/conv1/weight", 3)
    frames, _ = sizes(POSITIONS, 2) if POSITIONS in content.variables else (AUDIO_FRAMES, width)
    places, text_width = sizes("decoder/position_encodings/encodings", 2)
    vocabulary, _ = sizes("decoder/embeddings/weight", 2)
    audio_layers, text_layers = layers(content, "encoder"), layers(content, "decoder")
    # so much is asked for before the module is made, which would take memory for all of it
    if width**2 * (12 * audio_layers + 3) + 16 * text_width**2 * text_layers > content.numbers():
        raise Damaged(f"its sizes, such as a width of {width} and {text_width}, ask for more numbers than it holds")
    if places > MAX_PLACES:
        raise Damaged(f"a text of {places} tokens is longer than any Whisper's")
    return require("whisper.model", "whisper").ModelDimensions(
        n_mels=mels,
        n_audio_ctx=frames,
        n_audio_state=width,
        n_audio_head=heads("encoder", width),
        n_audio_layer=audio_layers,
        n_vocab=vocabulary,
        n_text_ctx=places,
        n_text_state=text_width,
        n_text_head=heads("decoder", text_width),
        n_text_layer=text_layers,
    )


def layers(content: Content, part: str) -> int:
    """How many layers the encoder or the decoder has: as many as there are in order, from 0.

    Raises:
        Damaged: none.
    """
    found = next(i for i in count() if f"{part}/layer_{i}/ffn/linear_0/weight" not in content.variables)
    if not found:
        raise Damaged(f"there is no {part}/layer_0")
    return found


def weights(content: Content) -> Iterator[tuple[str, Tensor]]:
    """The module's weights [..] by the package's names, in float32."""
    for i in (1, 2):
        yield from pair(content, f"encoder/conv{i}", f"encoder.conv{i}")
    for part, norm in (("encoder", "ln_post"), ("decoder", "ln")):
        if part == "decoder" or POSITIONS in content.variables:
            yield f"{part}.positional_embedding", content.floats(f"{part}/position_encodings/encodings")
        yield from pair(content, f"{part}/layer_norm", f"{part}.{norm}")
        for i in range(layers(content, part)):
            yield from layer_weights(content, f"{part}/layer_{i}", f"{part}.blocks.{i}", crossed=part == "decoder")
    embedding, output = "decoder/embeddings/weight", "decoder/projection/weight"
    yield "decoder.token_embedding.weight", content.floats(embedding)
    # in most files the second is another name of the first; its scale may lack there
    stored = content.variables.get(output, content.variables[embedding])
    if stored is not content.variables[embedding] and not torch.equal(
        content.floats(output), content.floats(embedding)
    ):
        raise Damaged(f"{output} is not the same as {embedding}, as in a Whisper")


def layer_weights(content: Content, theirs: str, ours: str, *, crossed: bool) -> Iterator[tuple[str, Tensor]]:
    """One block: attention to itself, to the sound (`crossed`, of the decoder), and the two linear maps behind."""
    attention = f"{theirs}/self_attention"
    yield from stacked(content, f"{attention}/linear_0", f"{ours}.attn", ("query", "key", "value"))
    yield from pair(content, f"{attention}/linear_1", f"{ours}.attn.out")
    yield from pair(content, f"{attention}/layer_norm", f"{ours}.attn_ln")
    if crossed:
        attention = f"{theirs}/attention"
        yield from pair(content, f"{attention}/linear_0", f"{ours}.cross_attn.query")
        yield from stacked(content, f"{attention}/linear_1", f"{ours}.cross_attn", ("key", "value"))
        yield from pair(content, f"{attention}/linear_2", f"{ours}.cross_attn.out")
        yield from pair(content, f"{attention}/layer_norm", f"{ours}.cross_attn_ln")
    yield from pair(content, f"{theirs}/ffn/linear_0", f"{ours}.mlp.0")
    yield from pair(content, f"{theirs}/ffn/linear_1", f"{ours}.mlp.2")
    yield from pair(content, f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")


def pair(content: Content, theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    """A weight and its bias; those of a norm are called gamma and beta."""
    names = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
    for name, key in zip(names, ("weight", "bias"), strict=True):
        yield f"{ours}.{key}", content.floats(f"{theirs}/{name}")


def stacked(content: Content, theirs: str, ours: str, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Linear maps that are stored as one, row below row. That to the keys has no bias in the package: it must be 0."""
    for _, value in pair(content, theirs, ""):
        if value.ndim not in (1, 2) or len(value) % len(names):
            raise Damaged(f"{theirs} is {list(value.shape)}, which is not {len(names)} maps")
        for name, part in zip(names, value.chunk(len(names)), strict=True):
            if value.ndim == 2:
                yield f"{ours}.{name}.weight", part
            elif name != "key":
                yield f"{ours}.{name}.bias", part
            elif part.any():
                raise Damaged(f"{theirs} adds to the keys, which a Whisper does not")


def alignment_heads(path: Path, module: Any) -> Tensor | None:
    """Which heads time the words [layers, heads], or None where the folder does not say it.

    Raises:
        ModelError: the file is not what CTranslate2 writes, or names heads that are not there.
    """
    if not path.exists():
        return None
    try:
        listed = json.loads(read_text(path, MAX_CONFIG_BYTES)).get("alignment_heads")
        if not listed:
            return None
        found = torch.zeros(module.dims.n_text_layer, module.dims.n_text_head, dtype=torch.bool)
        for layer, head in listed:
            if min(layer, head) < 0:
                raise IndexError(f"alignment_heads has {[layer, head]}")
            found[layer, head] = True
    except (OSError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"{path}: not what CTranslate2 writes ({one_line(error)}); fetch it again") from error
    return found


FAMILY = Family(
    "whisper_ct2",
    types=("ct2",),
    names=("ct2:DIR",),
    libraries=("whisper",),
    extra="whisper",
    open_name=open_name,
    open_folder=open_folder,
    knows=lambda folder, config: (folder / FILE).is_file(),
    own_format=True,
)
