"""The command line as a user meets it: exit codes, one clear line for each mistake, nothing half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from apps.cli import main
from apps.commands.edit import exit_code
from hooks import Clip, open_model, read_clip
from steer import edit_sound
from steer.directions import directions_from_pairs
from steer.errors import EditError
from steer.recipe import Recipe
from steer.sae import SAE, SAEInfo
from steer.vectors import ControlVector, load_vector, save_vectors

Write = Callable[..., Path]
LOUDER = ("--clamp", "0=1.0")


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def steer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def edit(steer: Callable[..., Ran], codec_folder: Path, sae_folder: Path) -> Callable[..., Ran]:
    """`steer edit` with the tiny codec."""

    def run(*arguments: object) -> Ran:
        return steer("edit", "--model", codec_folder, "--sae", sae_folder, *arguments)

    return run


def only_line(ran: Ran) -> str:
    assert ran.code == 2, ran
    lines = ran.err.strip().splitlines()
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    return lines[0]


# --- what works ---


def test_help_loads_no_torch() -> None:
    code = "import sys; from apps import cli; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_goal_in_the_shell(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    ran = edit(sound("a.wav", 0.8), "-o", tmp_path / "out.wav", "--loudness", "-3dB", "--json")
    (result,) = json.loads(ran.out)["files"]
    assert ran.code == 0
    assert result["requested"] == {"loudness": -3.0}
    levels = [np.log10(np.mean(soundfile.read(tmp_path / name)[0] ** 2)) for name in ("out.wav", "a.wav")]
    assert result["measured"]["loudness"] == pytest.approx(10 * (levels[0] - levels[1]), abs=0.01)
    assert result["measured"]["loudness"] == pytest.approx(-3.0, abs=0.5)
    assert result["round_trip"].keys() == result["measured"].keys()
    assert result["kept"].keys() == {"stoi", "above_band_db", "outside_unchanged", "unmoved"}
    assert result["channels"] == [] and result["limited_db"] == 0


def test_table_shows_requested_measured_round_trip_and_drift(
    edit: Callable[..., Ran], sound: Write, tmp_path: Path
) -> None:
    source = sound("a.wav", 1.4, 44_100, 2)
    ran = edit(source, "-o", tmp_path / "out.wav", "--loudness", "+3dB", "--during", "0.2-1.2")
    assert ran.code == 0
    for words in ("requested", "measured", "round trip", "+3.00 dB", "brightness (drift)", "pitch (drift)", "done"):
        assert words in ran.out
    for words in ("energy above the codec's band: +", "outside --during: unchanged"):
        assert words in ran.out


def test_the_limiter_can_be_left_out(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    source, loud = sound("a.wav", 0.5), ("--clamp", "0=2.0")
    ran = edit(source, "-o", tmp_path / "limited.wav", *loud)
    assert "limiter: peaks turned down by" in ran.out and "samples clipped" not in ran.out
    ran = edit(source, "-o", tmp_path / "clipped.wav", *loud, "--no-limit", "--save-recipe", tmp_path / "r.yaml")
    assert "samples clipped" in ran.out and "limiter: " not in ran.out
    assert "limit: false" in (tmp_path / "r.yaml").read_text()
    peaks = [np.abs(soundfile.read(tmp_path / f"{name}.wav")[0]).max() for name in ("limited", "clipped")]
    assert peaks[0] < 0.99 < peaks[1]
    # on top of that recipe, the limiter again
    ran = edit(source, "-o", tmp_path / "again.wav", "--recipe", tmp_path / "r.yaml", "--limit")
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "limited.wav").read_bytes()


def test_a_pitch_goal_without_a_pitch(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    """One file is refused; in a batch that file has a row with the error, and the others are done."""
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    sound("in/a.wav", 0.5)
    noise = 0.1 * np.random.default_rng(0).standard_normal(12_000)
    soundfile.write(tmp_path / "in" / "noise.wav", noise, 24_000)
    line = only_line(edit(tmp_path / "in" / "noise.wav", "-o", tmp_path / "out.wav", "--pitch", "+2st"))
    assert "noise.wav: there is no pitch to move" in line
    assert not (tmp_path / "out.wav").exists()
    ran = edit(tmp_path / "in", "-o", tmp_path / "out", "--pitch", "+2st", "--json")
    assert ran.code == 1
    (failure,) = json.loads(ran.out)["report"]["failures"]
    assert failure["source"].endswith("noise.wav") and "no pitch to move" in failure["error"]
    assert (tmp_path / "out" / "a.wav").exists() and not (tmp_path / "out" / "noise.wav").exists()


@pytest.mark.parametrize("details", [(), ("--details",), ("--pitch-drift",)])
def test_details_of_a_batch(edit: Callable[..., Ran], sound: Write, tmp_path: Path, details: tuple[str, ...]) -> None:
    sound("in/a.wav", 0.6, 44_100)
    sound("in/b.wav", 0.6, 44_100)
    goal = ("--loudness", "+2dB", "--report", tmp_path / "r.html", *details)
    ran = edit(tmp_path / "in", "-o", tmp_path / "out", *goal)
    assert ran.code == 0 and "2 of 2 files edited" in ran.out
    page = (tmp_path / "r.html").read_text()
    assert ("energy above the codec" in " ".join(ran.out.split())) == bool(details)
    assert ("loudness (round trip)" in page) == bool(details)


def test_goal_out_of_reach_is_exit_code_3(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    ran = edit(sound("a.wav", 0.5), "-o", tmp_path / "out.wav", "--pitch", "-2st")
    assert ran.code == 3
    assert "pitch -2.00 st was not reached; it got to" in ran.err and "done" not in ran.out
    assert (tmp_path / "out.wav").exists()


def test_no_edit_gives_the_file_back(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    source = sound("a.flac", 0.5)
    assert edit(source, "-o", tmp_path / "out.flac").code == 0
    assert (tmp_path / "out.flac").read_bytes() == source.read_bytes()


def test_recipe_does_what_the_flags_do(
    edit: Callable[..., Ran], steer: Callable[..., Ran], sound: Write, tmp_path: Path
) -> None:
    vector = torch.zeros(48)
    vector[1] = 1.0
    save_vectors(
        {"tilt": ControlVector(vector, "tilt"), "none": ControlVector(vector, "none")}, tmp_path / "v.safetensors"
    )
    source, recipe = sound("a.wav", 0.5), tmp_path / "r.yaml"
    flags = [
        "--ablate",
        "3,17",
        "--clamp",
        "5=2.0,0=1",
        "--scale",
        "4=1.5",
        "--during",
        "0.1-0.2",
        "--during",
        "0.3-0.4",
    ]
    flags += ["--shift", f"{tmp_path / 'v.safetensors'}#tilt:-0.5", "--residual", "drop", "--save-recipe", recipe]
    assert edit(source, "-o", tmp_path / "flags.wav", *flags).code == 0
    assert steer("edit", source, "-o", tmp_path / "recipe.wav", "--recipe", recipe).code == 0
    assert (tmp_path / "flags.wav").read_bytes() == (tmp_path / "recipe.wav").read_bytes()
    assert (tmp_path / "flags.wav").read_bytes() != source.read_bytes()
    # a flag on top of a recipe takes its place
    ran = steer(
        "edit", source, "-o", tmp_path / "o.wav", "--recipe", recipe, "--during", "7-8", "--residual", "keep", "--json"
    )
    assert json.loads(ran.out)["recipe"]["during"] == [[7.0, 8.0]]
    assert (tmp_path / "o.wav").read_bytes() == source.read_bytes()


def test_a_direction_by_flag_recipe_and_python_are_one(
    steer: Callable[..., Ran], codec_folder: Path, sound: Write, tmp_path: Path
) -> None:
    """Without an SAE, for a file and for a batch."""
    source, recipe, file = sound("in/a.wav", 0.5), tmp_path / "r.yaml", tmp_path / "d.safetensors"
    model = open_model(codec_folder)
    loud = read_clip(source)
    pairs = [(loud, Clip(0.3 * loud.waveform, loud.sample_rate))]
    save_vectors(directions_from_pairs(model, pairs, "latent"), file)
    flags = ("--model", codec_folder, "--residual", "drop", "--add-direction", f"{file}:0.5", "--keep-norm")
    assert steer("edit", source, "-o", tmp_path / "flag.wav", *flags, "--save-recipe", recipe).code == 0
    saved = Recipe.load(recipe)
    assert saved.saes == {} and saved.to_dict()["edits"][0]["keep_norm"] is True
    assert steer("edit", tmp_path / "in", "-o", tmp_path / "out", "--recipe", recipe).code == 0
    direction = {"add_direction": str(file), "strength": 0.5, "keep_norm": True}
    in_python = edit_sound(source, str(codec_folder), edits=[direction], residual="drop")
    flagged = (tmp_path / "flag.wav").read_bytes()
    assert flagged == (tmp_path / "out" / "a.wav").read_bytes() == in_python.data
    assert steer("edit", source, "-o", tmp_path / "more.wav", "--recipe", recipe, *flags[4:]).code == 0
    assert flagged not in (source.read_bytes(), (tmp_path / "more.wav").read_bytes())
    ran = steer("edit", source, "-o", tmp_path / "no.wav", *flags[:2], "--ablate", "3", "--keep-norm")
    assert ran.code == 2 and "--keep-norm: belongs to --add-direction" in ran.err
    # another model is noticed
    save_vectors({"latent": replace(load_vector(file), model="encodec:24khz")}, file)
    with pytest.warns(UserWarning, match="made for encodec:24khz, not for starter:codec"), pytest.raises(EditError):
        edit_sound(source, edits=[direction])


def test_batch_goes_on_past_bad_files(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    good = [sound("in/a.wav", 0.4), sound("in/deep/b.flac", 0.4)]
    (tmp_path / "in" / "bad.wav").write_text("not a sound")
    (tmp_path / "in" / "notes.txt").write_text("not even called one")
    ran = edit(tmp_path / "in", "-o", tmp_path / "out", *LOUDER)
    assert ran.code == 1
    assert "2 of 3 files edited" in ran.out
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "a.wav",
        "deep/b.flac",
        "journal.jsonl",
    ]
    # again: all is as it was, and nothing is done
    before = (tmp_path / "out" / "a.wav").stat().st_mtime_ns
    ran = edit(tmp_path / "in", "-o", tmp_path / "out", *LOUDER, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["report"]["this_call"]["files"] == 0
    assert (tmp_path / "out" / "a.wav").stat().st_mtime_ns == before
    assert edit(*good, "-o", tmp_path / "out2", *LOUDER).code == 0
    # what others wrote stays
    (tmp_path / "out3").mkdir()
    (tmp_path / "out3" / "a.wav").write_text("mine")
    ran = edit(*good, "-o", tmp_path / "out3", *LOUDER, "--json")
    assert ran.code == 1
    assert "exists already" in json.loads(ran.out)["report"]["failures"][0]["error"]
    assert (tmp_path / "out3" / "a.wav").read_text() == "mine"


def test_glob_keeps_the_tree_and_an_output_inside_is_left_alone(
    edit: Callable[..., Ran], sound: Write, tmp_path: Path
) -> None:
    sound("in/x/a.wav", 0.4)
    sound("in/y/a.wav", 0.4)
    assert edit(tmp_path / "in" / "*" / "a.wav", "-o", tmp_path / "in" / "out").code == 0
    assert (tmp_path / "in" / "out" / "x" / "a.wav").exists()
    ran = edit(tmp_path / "in", "-o", tmp_path / "in" / "out", "--force", "--json")
    assert len(json.loads(ran.out)["files"]) == 2


def test_plots(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    ran = edit(sound("in/a.wav", 0.4), "-o", tmp_path / "out.wav", *LOUDER, "--plot", tmp_path / "p.png")
    assert ran.code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert edit(tmp_path / "in", "-o", tmp_path / "out", *LOUDER, "--plot", tmp_path / "plots").code == 0
    assert (tmp_path / "plots" / "a.wav.png").exists()
    assert "exists already" in only_line(edit(sound("a.wav"), "-o", tmp_path / "o.wav", "--plot", tmp_path / "p.png"))


def test_failure_in_a_batch_counts_more_than_a_goal() -> None:
    from steer.editing.outcome import Outcome

    met, unmet = (Outcome("a", "b", 1.0, {}, {}, 1.0, met=met) for met in (True, False))
    assert exit_code([met], failed=False) == 0
    assert exit_code([met, unmet], failed=False) == 3
    assert exit_code([met, unmet], failed=True) == 1


# --- mistakes ---


def bad_file(kind: str, folder: Path, sound: Write) -> Path:
    path = folder / "bad.wav"
    rng = np.random.default_rng(0)
    if kind == "text":
        path.write_text("this is not a sound")
    elif kind == "truncated":
        path = sound("bad.flac", 2.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros((0, 1)), 16_000)
    elif kind == "nan":
        soundfile.write(path, np.full((8000, 1), np.nan), 16_000, "FLOAT")
    elif kind == "1 kHz":
        soundfile.write(path, rng.standard_normal((1000, 1)) * 0.1, 1000)
    elif kind == "32 channels":
        soundfile.write(path, rng.standard_normal((1000, 32)) * 0.1, 16_000)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("text", "not a sound file"),
        ("truncated", "damaged after|truncated"),
        ("empty", "not a sound file"),
        ("no samples", "has no samples"),
        ("nan", "8000 samples are not finite"),
        ("1 kHz", "sampling rate 1000 Hz is outside"),
        ("32 channels", "32 channels, at most 8"),
        ("folder", "no sound files there"),
    ],
)
def test_bad_input(edit: Callable[..., Ran], sound: Write, tmp_path: Path, kind: str, message: str) -> None:
    path = bad_file(kind, tmp_path, sound)
    before = sorted(tmp_path.rglob("*"))
    line = only_line(edit(path, "-o", tmp_path / f"out{path.suffix}", *LOUDER))
    assert str(path) in line
    assert any(part in line for part in message.split("|"))
    assert sorted(tmp_path.rglob("*")) == before


def test_sae_of_the_wrong_width(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    SAE(5, 8, "relu", info=SAEInfo(site="latent")).save(tmp_path / "narrow")
    line = only_line(edit(sound("a.wav", 0.2), "-o", tmp_path / "o.wav", "--sae", tmp_path / "narrow"))
    assert "5 wide" in line or "16 wide" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--site", "latnt"), "no site 'latnt'; did you mean latent"),
        (("--ablate", "48"), "no feature 48: the SAE has features 0 to 47"),
        (("--ablate", "x"), "--ablate: 'x' is not a feature"),
        (("--clamp", "5"), "not of the form FEATURE=NUMBER"),
        (("--loudness", "loud"), "goals.loudness: 'loud' is not an amount such as +2dB"),
        (("--during", "2-1"), "a span of 2 to 1 s is empty"),
        (("--during", "now"), "not of the form START-END"),
        (("--shift", "none.safetensors:3"), "no such file of control vectors"),
        (("--residual", "maybe"), "residual: "),
        (("--recipe", "none.yaml"), "none.yaml: cannot be read"),
        (("--sae", "nowhere"), "no SAE 'nowhere'"),
        (("--model", "nowhere"), "no model 'nowhere'"),
    ],
)
def test_bad_options(
    edit: Callable[..., Ran],
    steer: Callable[..., Ran],
    sound: Write,
    tmp_path: Path,
    codec_folder: Path,
    sae_folder: Path,
    flags: tuple[str, str],
    message: str,
) -> None:
    given = {"--model": codec_folder, "--sae": sae_folder} | {flags[0]: flags[1]}
    arguments = [part for pair in given.items() for part in pair]
    assert message in only_line(steer("edit", sound("a.wav", 0.2), "-o", tmp_path / "o.wav", *arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_recipe_with_a_misspelt_key(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("goals: {brightnes: 20}")
    line = only_line(edit(sound("a.wav", 0.2), "-o", tmp_path / "o.wav", "--recipe", tmp_path / "r.yaml"))
    assert "r.yaml: there is no key 'goals.brightnes'; did you mean 'brightness'?" in line


def test_output_that_exists(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    (tmp_path / "o.wav").write_text("dear to somebody")
    assert "exists already; use --force" in only_line(edit(sound("a.wav", 0.2), "-o", tmp_path / "o.wav", *LOUDER))
    assert (tmp_path / "o.wav").read_text() == "dear to somebody"
    assert edit(tmp_path / "a.wav", "-o", tmp_path / "o.wav", *LOUDER, "--force").code == 0
    assert soundfile.info(tmp_path / "o.wav").frames == 4800


@pytest.mark.parametrize(
    ("name", "message"),
    [("none/o.wav", "no such folder"), ("o", "no ending"), ("o.xyz", "unknown kind of sound file '.xyz'")],
)
def test_output_that_makes_no_sense(
    edit: Callable[..., Ran], sound: Write, tmp_path: Path, name: str, message: str
) -> None:
    assert message in only_line(edit(sound("a.wav", 0.2), "-o", tmp_path / name, *LOUDER))


def test_two_inputs_for_one_place(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    both = sound("x/a.wav", 0.2), sound("y/a.wav", 0.2)
    assert "would both be written to" in only_line(edit(*both, "-o", tmp_path / "out"))
    assert "several inputs need a folder" in only_line(edit(*both, "-o", both[0]))


def read_only_folder(tmp_path: Path) -> Path:
    """A folder where this user cannot write; root can write wherever the kernel lets it."""
    if os.geteuid() != 0:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555)
        return folder
    if not Path("/proc/self").is_dir():
        pytest.skip("root may write everywhere on this machine")
    return Path("/proc")


def test_read_only_folder(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    locked = read_only_folder(tmp_path)
    source = sound("a.wav", 0.2)
    for flags in ((), LOUDER):
        assert str(locked) in only_line(edit(source, "-o", locked / "o.wav", *flags))
    assert str(locked) in only_line(edit(tmp_path, "-o", locked / "out", *LOUDER))


FULL = """
import io, json, resource, sys
from contextlib import redirect_stderr, redirect_stdout
from apps.cli import main
ran = []
for limit, arguments in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as left:
            ran.append((left.code, out.getvalue(), err.getvalue()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(json.dumps(ran))
"""


def test_full_disk(sound: Write, tmp_path: Path, codec_folder: Path, sae_folder: Path) -> None:
    """A limit on the size of files stands for the full disk: the kernel refuses the write in the same call."""
    commands = []
    for suffix, flags in (("wav", ()), ("flac", LOUDER), ("ogg", LOUDER)):
        source = sound(f"a.{suffix}", 0.5, 44_100, 2)
        options = ["--model", codec_folder, "--sae", sae_folder, *flags]
        arguments = ["edit", source, "-o", tmp_path / f"o.{suffix}", *options]
        commands.append((source.stat().st_size // 2, [*map(str, arguments)]))
    program = [sys.executable, "-c", FULL, json.dumps(commands)]
    ran = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    for one in json.loads(ran.stdout):
        assert "could not be written" in only_line(Ran(*one))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.ogg", "a.wav"]


def test_a_name_that_is_no_text(edit: Callable[..., Ran], sound: Write, tmp_path: Path) -> None:
    """Linux takes any bytes as the name of a file."""
    source = tmp_path / os.fsdecode(b"\xff.wav")
    sound("a.wav", 0.2).rename(source)
    assert edit(source, "-o", tmp_path / "o.wav", *LOUDER).code == 0


def test_a_name_that_is_too_long(edit: Callable[..., Ran], tmp_path: Path) -> None:
    assert "no such file" in only_line(edit(tmp_path / f"{'x' * 300}.wav", "-o", tmp_path / "o.wav", *LOUDER))
