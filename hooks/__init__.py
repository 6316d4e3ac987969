"""Where: audio models, their sites, and reading and writing activations there."""

from hooks.attach import Handle, attach
from hooks.capture import Captured, capture
from hooks.clip import Clip, read_clip, write_clip
from hooks.errors import AudioFileError, AudioSteerError, MissingExtraError, ModelError, SiteError
from hooks.model import AudioModel, Codec, Encoder, Transcriber
from hooks.registry import open_model, wrap_model
from hooks.site import Site
from hooks.timing import at_time, real_frames, rows_at, sound_until
from hooks.transcript import Transcript

__all__ = [
    "AudioFileError",
    "AudioModel",
    "AudioSteerError",
    "Captured",
    "Clip",
    "Codec",
    "Encoder",
    "Handle",
    "MissingExtraError",
    "ModelError",
    "Site",
    "SiteError",
    "Transcriber",
    "Transcript",
    "at_time",
    "attach",
    "capture",
    "open_model",
    "read_clip",
    "real_frames",
    "rows_at",
    "sound_until",
    "wrap_model",
    "write_clip",
]
