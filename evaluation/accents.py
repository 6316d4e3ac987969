"""Accents without people: the same sentences by espeak-ng in two of its English accents, by the same voices.

Words, voice, speed and pitch are the same in both accents, so none of them says which it is; voices and sentences are
in one split each. What is found of them is about espeak-ng's rules of pronunciation: they are not what people speak.
"""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.config import EvaluationError
from evaluation.dataset import MANIFEST
from evaluation.report import Progress
from hooks.files import whole_file

ACCENTS = ("en-us", "en-gb")
VARIANTS = ("", *(f"+m{i}" for i in range(1, 9)), *(f"+f{i}" for i in range(1, 6)), "+croak", "+adam", "+Alicia",
            "+Andrea", "+Annie", "+belinda", "+benjamin", "+david", "+edward", "+Gene", "+Henrique", "+Jacky", "+john",
            "+linda", "+marcelo", "+Michael", "+miguel", "+paul", "+pedro", "+quincy", "+robert")  # fmt: skip
"""Voices of espeak-ng, which go with any accent."""
SENTENCES = (
    "The car is parked in the last yard on the corner.", "She can't ask her father for another glass of water.",
    "Laughter and music drifted out of the bar after dark.", "A new tune played on Tuesday during the concert.",
    "The doctor bought a bottle of hot coffee for the worker.", "Birds were heard over the harbour before the storm.",
    "He forgot his coat and walked home in the rain.", "The class passed the castle on a path through the park.",
    "Put the butter and the tomatoes on the lower shelf.", "Our neighbours have a garden with four pear trees.",
    "The teacher wrote the answer on the board for the girls.", "It is either better or worse than the other offer.",
    "The matter was settled in the city later that winter.", "Nobody knows what the weather will be like tomorrow.",
    "I would rather go by car than by boat.", "The hotel near the border was full of farmers.",
    "They learned to dance in half an hour.", "The first order of the day was a pot of tea.",
    "Her daughter started work at a department store.", "We saw a bear near the river last summer.",
    "The author of the article lost the argument.", "Thirty birds sat on the chimney of the factory.",
    "A lot of people got off the tram at the market.", "The poor actor fell over a chair on the stage.",
    "He is sure that the tour starts at a quarter past four.", "The lawyer brought a suitcase full of papers.",
    "Clerks in the office work longer hours than before.", "The shopping bag was on top of the kitchen counter.",
    "Please pour the cold water into the saucer.", "The schedule for the north line changed in March.",
    "Nothing is harder than getting up early in winter.", "The little bottle rolled under the sofa.",
    "My brother never cared for advertisements.", "The duke had dinner with a student of law.",
    "What they thought of the report was not clear.", "The path to the waterfall is short but hard.",
    "After the war the region was governed from the capital.", "The vase in the hall was broken by the cat.",
    "There are more words in the paragraph than I can learn.", "The fast train was far ahead of the others.",
)  # fmt: skip
SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}


def speak(text: str, voice: str, words_per_minute: int, pitch: int, path: Path) -> None:
    """One utterance by the program espeak-ng as a WAV file.

    Raises:
        EvaluationError: the program is not installed, or fails.
    """
    options = ["-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "-w", str(path)]
    try:
        subprocess.run(["espeak-ng", *options, text], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise EvaluationError("the program espeak-ng is not installed (apt install espeak-ng)") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise EvaluationError(f"espeak-ng failed with voice {voice} ({said})") from error


def shared_out(names: Sequence[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """{split: names}, in the proportions of `SHARES`; none is in two."""
    order = [names[index] for index in rng.permutation(len(names))]
    ends = np.round(np.cumsum([0, *SHARES.values()]) * len(order)).astype(int)
    return {split: order[first:last] for split, first, last in zip(SHARES, ends[:-1], ends[1:], strict=True)}


def synthetic_accents(folder: Path, count: int = 1000, seed: int = 0, progress: Progress = iter) -> Path:
    """A manifest of about `count` utterances in `folder`, made unless it is there: split, label and accent (en-us or
    en-gb), group (the voice), text.

    Raises:
        EvaluationError: espeak-ng is not installed, or fails.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        return manifest
    rng = np.random.default_rng(seed)
    voices, sentences = (shared_out(names, rng) for names in (VARIANTS, SENTENCES))
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str, str, str, int, int]] = []
    for split, share in SHARES.items():
        pairs = [(voice, text) for voice in voices[split] for text in sentences[split]]
        for index in rng.permutation(len(pairs))[: max(2, round(share * count / len(ACCENTS)))]:
            voice, text = pairs[index]
            speed, pitch = int(rng.integers(130, 200)), int(rng.integers(20, 80))
            rows += [(f"{split}-{index}-{accent}.wav", split, accent, voice, text, speed, pitch) for accent in ACCENTS]
    for path, _, accent, voice, text, speed, pitch in progress(rows):
        speak(text, f"{accent}{voice}", speed, pitch, folder / path)
    with whole_file(manifest) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "label", "accent", "group", "text"])
        table.writerows(
            [path, split, accent, accent, voice or "default", text] for path, split, accent, voice, text, *_ in rows
        )
    return manifest
