"""A Whisper of the `openai-whisper` package as files for its own library and for transformers, side by side.

`model.pt` is for `whisper.load_model`; the rest of the folder is what transformers' `save_pretrained` writes, so that
`WhisperForConditionalGeneration`, `WhisperProcessor`, a pipeline and `open_model` take the folder. Everything comes
from the module and from the package's own vocabulary; no network is needed. A checkpoint has no place for the heads
that time words: the package knows those of its own models by name, transformers has them in `generation_config.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hooks.errors import ModelError, one_line, require
from hooks.families.whisper.package import WhisperPackage
from hooks.files import whole_file
from hooks.model import AudioModel

CHECKPOINT = "model.pt"
RENAMED = {
    ".blocks.": ".layers.",
    ".cross_attn_ln.": ".encoder_attn_layer_norm.",
    ".cross_attn.": ".encoder_attn.",
    ".attn_ln.": ".self_attn_layer_norm.",
    ".attn.": ".self_attn.",
    ".query.": ".q_proj.",
    ".key.": ".k_proj.",
    ".value.": ".v_proj.",
    ".out.": ".out_proj.",
    ".mlp_ln.": ".final_layer_norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    ".ln_post.": ".layer_norm.",
    "decoder.ln.": "decoder.layer_norm.",
    "positional_embedding": "embed_positions.weight",
    "token_embedding": "embed_tokens",
}
"""Parts of the package's names of weights and of transformers', in the order in which they are replaced."""


def export(model: AudioModel, folder: Path) -> None:
    """Write the files into `folder`, over those of the same names.

    Raises:
        ModelError: no Whisper of the `openai-whisper` package, or the files cannot be written: then none is.
        MissingExtraError: transformers is not installed.
    """
    if not isinstance(model, WhisperPackage):
        raise ModelError(
            f"{model.name}: only Whispers of openai-whisper are exported, such as starter:asr or whisper:tiny"
        )
    transformers = require("transformers", "whisper")
    module = model.module
    parts = (
        to_transformers(module),
        tokenizer_of(module),
        transformers.WhisperFeatureExtractor(feature_size=module.dims.n_mels),
    )
    spelling = Path(str(require("whisper.normalizers", "whisper").__file__)).with_name("english.json").read_bytes()
    try:
        with whole_files(folder) as partial:
            checkpoint = {"dims": asdict(module.dims), "model_state_dict": module.state_dict()}
            torch.save(checkpoint, partial / CHECKPOINT)
            for part in parts:
                part.save_pretrained(partial)
            # the library reads this file, but does not write it
            (partial / "normalizer.json").write_bytes(spelling)
    except Exception as error:  # on a full disk torch, safetensors and tokenizers raise what each of them likes
        raise ModelError(f"{folder}: the model could not be written ({one_line(error)})") from error


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Gives a hidden folder to write to; in the end its files move into `folder`, and none does if the block fails."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
            yield Path(partial)
            for path in sorted(Path(partial).iterdir()):
                with whole_file(folder / path.name) as target:
                    path.replace(target)
    finally:
        with suppress(OSError):  # it holds something, as it should
            folder.rmdir()


def names_of(module: Any) -> Any:
    """The package's tokenizer for a module, which knows all special tokens by name."""
    whisper = require("whisper.tokenizer", "whisper")
    return whisper.get_tokenizer(module.is_multilingual, num_languages=module.num_languages)


def to_transformers(module: Any) -> Any:
    """The same weights as a `WhisperForConditionalGeneration` that decodes by the package's rules."""
    transformers = require("transformers", "whisper")
    dims, names = module.dims, names_of(module)
    tokens = {
        "decoder_start_token_id": names.sot,
        "bos_token_id": names.eot,
        "eos_token_id": names.eot,
        "pad_token_id": names.eot,
        "begin_suppress_tokens": [*names.encode(" "), names.eot],
        "suppress_tokens": sorted(
            {*names.non_speech_tokens, names.transcribe, names.translate, names.sot, names.sot_prev, names.sot_lm}
            | {names.no_speech}
        ),
    }
    config = transformers.WhisperConfig(
        vocab_size=dims.n_vocab,
        num_mel_bins=dims.n_mels,
        d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer,
        encoder_attention_heads=dims.n_audio_head,
        encoder_ffn_dim=4 * dims.n_audio_state,
        decoder_layers=dims.n_text_layer,
        decoder_attention_heads=dims.n_text_head,
        decoder_ffn_dim=4 * dims.n_text_state,
        max_source_positions=dims.n_audio_ctx,
        max_target_positions=dims.n_text_ctx,
        **tokens,
    )
    converted = transformers.WhisperForConditionalGeneration(config).eval()
    state = {}
    for name, value in module.state_dict().items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        state[f"model.{name}"] = value
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    converted.load_state_dict(state)
    languages = {
        "lang_to_id": {f"<|{code}|>": names.to_language_token(code) for code in names.all_language_codes},
        "task_to_id": {"transcribe": names.transcribe, "translate": names.translate},
        # else the prompt of a pipeline has no task, and what is written has nothing to do with the sound
        "task": "transcribe",
    }
    converted.generation_config = transformers.GenerationConfig(
        max_length=dims.n_text_ctx,
        is_multilingual=module.is_multilingual,
        no_timestamps_token_id=names.no_timestamps,
        prev_sot_token_id=names.sot_prev,
        max_initial_timestamp_index=50,
        alignment_heads=module.alignment_heads.indices().T.tolist(),
        **tokens,
        **(languages if module.is_multilingual else {}),
    )
    return converted


def tokenizer_of(module: Any) -> Any:
    """The package's vocabulary as a `WhisperTokenizer`."""
    transformers, names = require("transformers", "whisper"), names_of(module)
    letters = require("transformers.convert_slow_tokenizer", "whisper").bytes_to_unicode()
    words = {
        "".join(letters[byte] for byte in names.encoding.decode_single_token_bytes(token)): token
        for token in range(names.eot)
    }
    # tiktoken joins any two neighbours that make a word, the word of the lowest id first
    merges = [
        (word[:cut], word[cut:])
        for word in words
        for cut in range(1, len(word))
        if word[:cut] in words and word[cut:] in words
    ]
    special = sorted(names.special_tokens, key=names.special_tokens.__getitem__)
    first_time = special.index("<|0.00|>")
    # the first is the end of the text, which the class adds itself
    tokenizer = transformers.WhisperTokenizer(
        vocab=words, merges=merges, additional_special_tokens=special[1:first_time]
    )
    # transformers, too, writes times only where it is asked for them
    tokenizer.add_tokens([transformers.AddedToken(time, normalized=False) for time in special[first_time:]])
    return tokenizer
