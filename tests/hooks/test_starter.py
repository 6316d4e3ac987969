from __future__ import annotations

import subprocess
import sys

import pytest

from hooks import ModelError
from hooks.registry import FAMILIES
from hooks.starter import model_folder, models


def test_folders_of_models_that_ship() -> None:
    assert "starter:codec" in models()
    assert all((model_folder(name.removeprefix("starter:")) / "config.json").is_file() for name in models())
    for name in ("", "none", "codec/latent", "../starter/codec"):
        with pytest.raises(ModelError, match="there is no starter model .*; there are starter:asr, "):
            model_folder(name)


def test_hooks_alone_open_what_ships_and_load_no_models_library() -> None:
    libraries = {library for family in FAMILIES.values() for library in family.libraries}
    code = f"""
import sys
from hooks import open_model
assert not {libraries!r} & set(sys.modules)
for name in ("codec", "wavtokenizer"):
    assert open_model("starter:" + name).kind == "codec"
assert "steer" not in sys.modules
# torch's compiler takes a second and a half to load
assert not {{"sympy", "torch._dynamo"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
