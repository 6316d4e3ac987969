import subprocess
import sys

import pytest

import steer


def test_all_that_is_promised_is_there() -> None:
    wanted = {"train_sae", "TrainConfig", "Recipe", "Probe", "capture", "FeatureEdit", "AddDirection", "edit_sound"}
    assert wanted <= set(steer.__all__) and set(steer.LATE) <= set(steer.__all__)
    for name in steer.__all__:
        assert getattr(steer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = steer.nothing


def test_importing_loads_none_of_what_comes_late() -> None:
    heavy = {"pydantic", "rich", "transformers", "gradio", "librosa", "steer.editing", *steer.LATE.values()}
    code = f"import sys, steer; assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules); steer.edit_sound"
    subprocess.run([sys.executable, "-c", code], check=True)
