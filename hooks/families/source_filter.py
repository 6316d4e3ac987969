"""The source-filter codec (among them `starter:codec`): its latent has log f0 on one coordinate.

Sites: `pitch` (the logits of the pitch bins), `encoder.N` and `decoder.N` (ConvNeXt blocks), and `latent` (what the
decoder is given: z0 = (MIDI - 60) / 6, voicing, free channels). An edit at `latent` that moves z0 by 1/6 moves the
pitch by a semitone and leaves formants where they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hooks.family import Family
from hooks.model import Codec
from hooks.networks.pitch_net import WINDOWS
from hooks.networks.source_filter import MIDI_CENTRE, MIDI_STEP, N_FFT, SourceFilter, SourceFilterConfig
from hooks.opening import opening, read_config
from hooks.site import Site
from hooks.timing import current_time, now
from hooks.weights import read_state


class SourceFilterCodec(Codec):
    """A `SourceFilter` module. It keeps no phases: its output sounds like the input, but is another waveform.

    In one recording (`at_time` with `carry`) chunks go on with each other's phases, and the noise of its synthesiser
    depends on the place in the recording alone, so that plain and edited outputs differ by the edit only.
    """

    module: SourceFilter
    has_quantizer = False
    keeps_phase = False
    free_channels = slice(2, None)

    def __init__(self, module: SourceFilter, name: str = "") -> None:
        config = module.config
        self.hop_length = config.hop_length
        rate = config.frame_rate
        # convolutions of 7 and 3 frames, half the encoder's longest window, and the decoder's filters
        reach = 3 * (config.encoder_layers + config.decoder_layers) + 5
        self.context_s = reach / rate + (WINDOWS[0] // 2 + N_FFT) / config.sample_rate
        encoder = [
            Site(f"encoder.{i}", f"encoder.net.blocks.{i}", "BDT", width=config.encoder_width, frame_rate=rate)
            for i in range(config.encoder_layers)
        ]
        decoder = [
            Site(f"decoder.{i}", f"decoder.net.blocks.{i}", "BDT", width=config.decoder_width, frame_rate=rate)
            for i in range(config.decoder_layers)
        ]
        sites = [
            Site("pitch", "encoder.pitch", "BDT", frame_rate=rate),
            *encoder,
            Site("latent", "latent", "BDT", width=config.dimension, frame_rate=rate),
            *decoder,
        ]
        super().__init__(module, sites, name=name or "source_filter", sample_rate=config.sample_rate, channels=1)

    def pitch(self, z_BTD: Tensor) -> Tensor:
        """MIDI notes [B, T]."""
        return z_BTD[..., 0] * MIDI_STEP + MIDI_CENTRE

    def voicing(self, z_BTD: Tensor) -> Tensor:
        """Probability [B, T] that a frame has a pitch."""
        return torch.sigmoid(2 * z_BTD[..., 1])

    def encode(self, audio_BCN: Tensor) -> Tensor:
        return self.module.encode(audio_BCN[:, 0]).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        start = round((current_time() or 0.0) * self.module.config.sample_rate)
        carry = now().carry
        phases = None if carry is None else carry.setdefault("phases", [])
        return self.module.decode(z_BTD.transpose(1, 2), start, phases=phases)[:, None]

    def decode_passes(self, site: str) -> bool:
        return site == "latent" or site.startswith("decoder.")

    def _run(self, audio_BCN: Tensor) -> Tensor:
        return self.decode(self.encode(audio_BCN))[..., : audio_BCN.shape[-1]]


def open_folder(folder: Path, name: str) -> Codec:
    """A folder with weights and `config.json`, the fields of `SourceFilterConfig`.

    Raises:
        ModelError: the configuration or the weights do not fit or cannot be read.
    """
    with opening(name, "a source-filter codec"):
        config = SourceFilterConfig(**read_config(folder))
        if config != SourceFilterConfig():  # torch loads its compiler for that, which takes a second and a half
            with torch.device("meta"):
                SourceFilter(config)  # one too large for its weights is refused by `registry.room_for` before its fill
        module = SourceFilter(config)
        module.load_weights_(read_state(folder))
        return SourceFilterCodec(module, name)


FAMILY = Family(
    "source_filter",
    classes=("hooks.networks.source_filter.SourceFilter",),
    wrap=SourceFilterCodec,
    open_folder=open_folder,
)
