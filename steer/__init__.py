"""What: SAEs, edits, `SteeredModel`, probes and training. `from steer import SteeredModel, SAE, Ablate, open_model`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import steer.starter as _starter  # noqa: F401 - registers the names starter:...
from hooks import AudioSteerError, Clip, Site, capture, open_model, read_clip, wrap_model, write_clip
from steer.attribution import attribute
from steer.calibrate import Calibration, calibrate
from steer.directions import directions_from_labels, directions_from_pairs
from steer.edits import Ablate, AddDirection, Clamp, Edit, FeatureEdit, Scale, Shift
from steer.errors import EditError, RecipeError, SAEError, TrainingError
from steer.gates import Gate, GateProbe
from steer.sae import SAE, SAEInfo
from steer.steered import SteeredModel
from steer.stream import Stream
from steer.values import Curve, PerRow
from steer.vectors import (
    ControlVector,
    difference_of_means,
    from_direction,
    from_pairs,
    load_vector,
    load_vectors,
    save_vectors,
)

if TYPE_CHECKING:
    from steer.editing.sound import EditedSound, edit_sound
    from steer.gate_fit import fit_gate, gate_logits, pool_sounds
    from steer.probes import Probe
    from steer.recipe import Recipe
    from steer.training import TrainConfig, train_sae

    __version__: str

__all__ = [
    "SAE",
    "Ablate",
    "AddDirection",
    "AudioSteerError",
    "Calibration",
    "Clamp",
    "Clip",
    "ControlVector",
    "Curve",
    "Edit",
    "EditError",
    "EditedSound",
    "FeatureEdit",
    "Gate",
    "GateProbe",
    "PerRow",
    "Probe",
    "Recipe",
    "RecipeError",
    "SAEError",
    "SAEInfo",
    "Scale",
    "Shift",
    "Site",
    "SteeredModel",
    "Stream",
    "TrainConfig",
    "TrainingError",
    "attribute",
    "calibrate",
    "capture",
    "difference_of_means",
    "directions_from_labels",
    "directions_from_pairs",
    "edit_sound",
    "fit_gate",
    "from_direction",
    "from_pairs",
    "gate_logits",
    "load_vector",
    "load_vectors",
    "open_model",
    "pool_sounds",
    "read_clip",
    "save_vectors",
    "train_sae",
    "wrap_model",
    "write_clip",
]


LATE = {
    "EditedSound": "steer.editing.sound",
    "Probe": "steer.probes",
    "Recipe": "steer.recipe",
    "TrainConfig": "steer.training",
    "edit_sound": "steer.editing.sound",
    "fit_gate": "steer.gate_fit",
    "gate_logits": "steer.gate_fit",
    "pool_sounds": "steer.gate_fit",
    "train_sae": "steer.training",
}
"""What is imported when it is asked for: it loads pydantic or rich."""


def __getattr__(name: str) -> Any:
    if name in LATE:
        return getattr(import_module(LATE[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("audiosteer")
    raise AttributeError(f"module 'steer' has no attribute {name!r}")
