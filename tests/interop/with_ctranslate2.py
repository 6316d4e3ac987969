"""Run where ctranslate2 and faster-whisper are installed: answers for folders of Whispers. See test_ctranslate2.py.

Argument: a folder with `ours/NAME/model.bin` (written by the tests), `state.safetensors` and `dims.json` (a Whisper of
openai-whisper) and `mel.safetensors`. Writes `theirs/NAME/` with weights of each type from the same state, by
ctranslate2's own classes, and for every folder `NAME.safetensors` with what the encoder gives in float32. If the
variable names a folder of real weights, also `real.json`: what faster-whisper writes for `clips.json`.
"""

import json
import os
import sys
from pathlib import Path

import ctranslate2
import faster_whisper
import numpy as np
from ctranslate2.specs import whisper_spec
from safetensors.numpy import load_file, save_file

folder = Path(sys.argv[1])
mel = load_file(folder / "mel.safetensors")


def encoded(path, spectrogram):
    model = ctranslate2.models.Whisper(str(path), compute_type="float32", intra_threads=1)
    features = ctranslate2.StorageView.from_array(np.ascontiguousarray(spectrogram))
    return np.array(model.encode(features, to_cpu=True))


def built():
    """ctranslate2's own description of the Whisper in `state.safetensors`."""
    state, dims = load_file(folder / "state.safetensors"), json.loads((folder / "dims.json").read_text())
    spec = whisper_spec.WhisperSpec(
        dims["n_audio_layer"], dims["n_audio_head"], dims["n_text_layer"], dims["n_text_head"]
    )

    def put(linear, name):
        linear.weight = state[f"{name}.weight"]
        linear.bias = state[f"{name}.bias"]

    def put_norm(norm, name):
        norm.gamma, norm.beta = state[f"{name}.weight"], state[f"{name}.bias"]

    def stack(linear, name, parts):
        none = np.zeros(dims["n_text_state"], np.float32)
        linear.weight = np.concatenate([state[f"{name}.{part}.weight"] for part in parts])
        linear.bias = np.concatenate([state.get(f"{name}.{part}.bias", none) for part in parts])

    put(spec.encoder.conv1, "encoder.conv1")
    put(spec.encoder.conv2, "encoder.conv2")
    for side, ours, norm in ((spec.encoder, "encoder", "ln_post"), (spec.decoder, "decoder", "ln")):
        side.position_encodings.encodings = state[f"{ours}.positional_embedding"]
        put_norm(side.layer_norm, f"{ours}.{norm}")
        for i, layer in enumerate(side.layer):
            name = f"{ours}.blocks.{i}"
            stack(layer.self_attention.linear[0], f"{name}.attn", ("query", "key", "value"))
            put(layer.self_attention.linear[1], f"{name}.attn.out")
            put_norm(layer.self_attention.layer_norm, f"{name}.attn_ln")
            if ours == "decoder":
                put(layer.attention.linear[0], f"{name}.cross_attn.query")
                stack(layer.attention.linear[1], f"{name}.cross_attn", ("key", "value"))
                put(layer.attention.linear[2], f"{name}.cross_attn.out")
                put_norm(layer.attention.layer_norm, f"{name}.cross_attn_ln")
            put(layer.ffn.linear_0, f"{name}.mlp.0")
            put(layer.ffn.linear_1, f"{name}.mlp.2")
            put_norm(layer.ffn.layer_norm, f"{name}.mlp_ln")
    spec.decoder.embeddings.weight = state["decoder.token_embedding.weight"]
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    spec.register_vocabulary([f"<{i}>" for i in range(dims["n_vocab"])])
    return spec


for how in ("float32", "float16", "bfloat16", "int16", "int8", "int8_float16", "int8_bfloat16"):
    spec, path = built(), folder / "theirs" / how
    spec.validate()
    spec.optimize(quantization=how)
    path.mkdir()
    spec.save(str(path))
for path in (folder / "ours").iterdir():
    (path / "vocabulary.json").write_text((folder / "theirs" / "float32" / "vocabulary.json").read_text())
for path in sorted(path for side in ("ours", "theirs") for path in (folder / side).iterdir() if path.is_dir()):
    save_file({"x": encoded(path, mel["tiny"])}, f"{path}.safetensors")

real = os.environ.get("AUDIOSTEER_REAL_WEIGHTS")
if real and (folder / "clips.json").exists():
    texts = {}
    for name in ("tiny.en", "base"):
        path = Path(real) / "ct2" / name
        save_file({"x": encoded(path, mel["real"])}, folder / f"{name}.safetensors")
        model = faster_whisper.WhisperModel(str(path), device="cpu", compute_type="float32", cpu_threads=1)
        for clip in json.loads((folder / "clips.json").read_text()):
            audio = load_file(clip)["x"]
            segments, _ = model.transcribe(
                audio, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False
            )
            texts[f"{name} {Path(clip).stem}"] = "".join(segment.text for segment in segments).strip()
    (folder / "real.json").write_text(json.dumps(texts))
