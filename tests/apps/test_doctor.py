"""`steer doctor`: what is there, what is missing, what is broken, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from apps import installation
from apps.config import VARIABLE
from apps.exit_codes import FAILED
from apps.installation import LIBRARIES, PROGRAMS, Library, Program, library_facts, program_facts

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


def test_facts(steer: Run) -> None:
    code, out, err = steer("doctor", "--json")
    facts = json.loads(out)
    assert code == (FAILED if facts["problems"] else 0) and err == ""
    assert facts["torch"]["version"] == str(torch.__version__) and facts["torch"]["devices"][0] == "cpu"
    assert facts["torch"]["threads"] == torch.get_num_threads()
    assert [row["name"] for row in facts["libraries"]] == [one.name for one in LIBRARIES]
    assert [row["name"] for row in facts["programs"]] == [one.name for one in PROGRAMS]
    assert facts["config"] == {"file": None, "exists": False, "problem": None}
    assert facts["downloads"]["free_gb"] > 0


def test_tables_for_people(steer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LIBRARIES", (*LIBRARIES, Library("no-such-library", "nothing", "vae")))
    monkeypatch.setattr(installation, "PROGRAMS", (Program("no-such-program", "nothing", "a", "b"),))
    code, out, _ = steer("doctor")
    for said in ("AudioSteer", "Devices: cpu", "no-such-library", "[vae]", "no-such-program", "Downloads: "):
        assert said in out
    assert ("No problems found." in out) == (code == 0)


def test_what_is_required_and_missing_is_a_problem(steer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LIBRARIES", (Library("no-such-library", "nothing"),))
    code, out, _ = steer("doctor", "--json")
    assert code == FAILED
    assert json.loads(out)["problems"] == ["no-such-library is not installed: pip install 'no-such-library'"]


def test_what_is_optional_and_missing_is_none() -> None:
    facts = library_facts(Library("no-such-library", "nothing", "eval"), load=True)
    assert (facts["version"], facts["problem"]) == (None, None)
    assert facts["get"] == "pip install 'audiosteer[eval]'"


def test_a_version_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library_facts(Library("numpy", "arrays"), load=True)["problem"] is None
    monkeypatch.setattr(installation, "version_of", lambda name: "1.26.0")
    assert (
        "is version 1.26.0, but AudioSteer needs >=2.0" in library_facts(Library("numpy", "arrays"), False)["problem"]
    )


def test_what_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_one.py").write_text("raise OSError('libcudart.so: cannot open\\nshared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = Library("numpy", "arrays", "eval", "broken_one")
    assert library_facts(broken, load=False)["problem"] is None
    problem = library_facts(broken, load=True)["problem"]
    assert "does not load (OSError: libcudart.so: cannot open shared object file)" in problem


def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "speaks"
    script.write_text("#!/bin/sh\necho speaks: 1.52 of today\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("sys.platform", "linux")
    assert program_facts(Program("speaks", "", "a", "b"))["version"] == "1.52"
    script.write_text("#!/bin/sh\necho no number >&2; exit 1\n")
    assert program_facts(Program("speaks", "", "a", "b"))["version"] == ""
    missing = Program("speaks-not", "", "speaks", "speak", "Speaks.Speaks")
    assert program_facts(missing)["version"] is None and program_facts(missing)["get"] == "apt install speaks"
    monkeypatch.setattr("sys.platform", "darwin")
    assert missing.remedy == "brew install speak"
    monkeypatch.setattr("sys.platform", "win32")
    assert missing.remedy == "winget install Speaks.Speaks"


def test_a_broken_configuration_file_is_a_problem_here(
    steer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[evaluate.gates]\ndevise = 'cuda'")
    monkeypatch.setenv(VARIABLE, str(path))
    code, out, _ = steer("doctor", "--json")
    facts = json.loads(out)
    assert code == FAILED and facts["config"]["exists"]
    assert any("[evaluate.gates] devise" in one for one in facts["problems"])


def test_it_runs_where_torch_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open')")
    (tmp_path / "c.toml").write_text("[evaluate.gates]\ndevice = 'cuda'")
    variables = {**os.environ, VARIABLE: str(tmp_path / "c.toml"), "PYTHONPATH": str(tmp_path)}
    program = "import sys; sys.path.insert(1, sys.argv.pop()); from apps.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "doctor"]
    done = subprocess.run([*command, "--json", str(ROOT)], cwd=tmp_path, env=variables, capture_output=True, text=True)
    facts = json.loads(done.stdout)
    assert done.returncode == FAILED and facts["torch"] is None
    problems = "\n".join(facts["problems"])
    assert "torch is installed but does not load (OSError: libcudart.so: cannot open)" in problems
    assert "c.toml: cannot be checked without torch" in problems
    done = subprocess.run([*command, str(ROOT)], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == FAILED and "Problem: torch is installed but" in done.stdout and not done.stderr


# --- the list against the package's own ---


def requirements() -> tuple[set[str], dict[str, set[str]]]:
    """Names of what is required, and of each extra's, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def names(texts: list[str]) -> set[str]:
        return {
            installation.canonicalize_name(installation.Requirement(text).name)
            for text in texts
            if not text.startswith("audiosteer")
        }

    extras = {extra: names(texts) for extra, texts in project["optional-dependencies"].items()}
    return names(project["dependencies"]), extras


def test_all_that_is_required_or_optional_is_listed() -> None:
    needed, extras = requirements()
    listed = {installation.canonicalize_name(one.name): one.extra for one in LIBRARIES}
    assert {name for name, extra in listed.items() if not extra} == needed
    optional = set().union(*(names for extra, names in extras.items() if extra not in ("dev", "bench", "all")))
    assert {name for name, extra in listed.items() if extra} == optional
    for name, extra in listed.items():
        assert not extra or name in extras[extra], f"the extra {extra} does not bring {name}"
