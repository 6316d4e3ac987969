from __future__ import annotations

import pytest

from steer import SAE, ControlVector, SteeredModel, load_vectors, open_model
from steer.formats import find_folder
from tests.steer_command import steer  # noqa: F401 - fixture

SAE_NAME = "starter:codec/latent"


@pytest.fixture(scope="session")
def steered() -> SteeredModel:
    """The starter codec with its SAE."""
    return SteeredModel(open_model("starter:codec"), SAE.load(SAE_NAME))


@pytest.fixture(scope="session")
def vectors() -> dict[str, ControlVector]:
    return load_vectors(find_folder(SAE_NAME) / "vectors.safetensors")
