import subprocess
import sys
from importlib.metadata import version

import pytest

import steer


def test_all_that_is_promised_is_there() -> None:
    wanted = {"train_sae", "TrainConfig", "Recipe", "Probe", "capture", "FeatureEdit", "AddDirection", "edit_sound"}
    assert wanted <= set(steer.__all__) and set(steer.LATE) <= set(steer.__all__)
    for name in steer.__all__:
        assert getattr(steer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = steer.nothing


def test_the_version_is_that_of_the_package() -> None:
    assert steer.__version__ == version("audiosteer")


PACKAGES = {"hooks", "steer", "torch", "numpy", "safetensors", "soundfile", "soxr", "yaml"}
"""All that `import steer` may load beside the standard library and what torch loads."""
MODULES = 300
"""Of ours and of these, not counting torch's. They were 150 and took 0.2 s of processor time at first."""


def test_importing_loads_few_packages_beside_torch() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import steer; new = set(sys.modules) - before\n"
        "print(*sorted(new)); print(*sorted(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    new, stdlib = (set(line.split()) for line in done.stdout.splitlines())
    ours = [name for name in new if name.partition(".")[0] not in stdlib]
    packages = {name.partition(".")[0].lstrip("_") for name in ours}
    small = {"cffi_backend", "cython_runtime", "soundfile_data"}  # parts of soundfile and soxr
    assert {one for one in packages if not one.startswith("cython_")} <= PACKAGES | small, packages - PACKAGES
    assert 50 < len(ours) < MODULES
    assert not any(name.startswith("torch.") for name in ours), "a part of torch that torch itself does not load"


def test_importing_loads_none_of_what_comes_late() -> None:
    heavy = {"pydantic", "rich", "transformers", "gradio", "librosa", "steer.editing", *steer.LATE.values()}
    code = f"import sys, steer; assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules); steer.edit_sound"
    subprocess.run([sys.executable, "-c", code], check=True)
