"""A journal that whatever happens to its process, disk or version can be read again."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.batch.jobs import BatchError, Job, Row
from apps.batch.journal import JOURNAL, Journal, line_of, parsed, read_rows

ROOT = Path(__file__).parents[3]
A, B = (Job(Path(f"in/{name}"), Path(f"out/{name}"), name) for name in ("a.wav", "b.wav"))


def row_of(job: Job, **values: object) -> Row:
    return Row(job.key, str(job.source), **values)  # type: ignore[arg-type]


def small(folder: Path) -> list[Row]:
    """Two rows of one file and one of another, whose names are not all ASCII."""
    rows = [row_of(A, error="no"), row_of(A, output="ab", wrote=(1, 2)), Row("é\u2028\udcff", "x", result={"a": [1]})]
    with Journal(folder) as journal:
        journal.begin([A, B])
        for row in rows:
            journal.note(row)
    return rows


def test_the_last_row_of_a_file_counts_and_what_has_none_was_in_flight(tmp_path: Path) -> None:
    rows = small(tmp_path)
    with Journal(tmp_path) as journal:
        assert list(journal.rows.values()) == rows[1:] == read_rows(tmp_path)
        assert journal.in_flight == {B.key}
        journal.begin([A])
    with Journal(tmp_path) as journal:
        assert journal.in_flight == {A.key, B.key} and list(journal.rows.values()) == rows[1:]
        journal.note(row_of(B))
    with Journal(tmp_path) as journal:
        assert journal.in_flight == {A.key} and set(journal.rows) == {A.key, B.key, rows[2].key}


def test_a_file_that_failed_leaves_what_was_there_ours(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.note(row_of(A, output="ab", wrote=(1, 2)))
        journal.note(row_of(A, error="no"))
    with Journal(tmp_path) as journal:
        assert journal.rows[A.key] == row_of(A, error="no", output="ab", wrote=(1, 2))


def test_cut_anywhere_it_is_read_up_to_there_and_goes_on(tmp_path: Path) -> None:
    rows = small(tmp_path)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        # all but the mark at its end is a whole line too
        there = sum(end <= cut for end in ends[1:])
        before = list({row.key: row for row in rows[:there]}.values())
        assert read_rows(tmp_path) == before
        with Journal(tmp_path) as journal:
            assert list(journal.rows.values()) == before
            journal.note(row_of(B))
        assert read_rows(tmp_path) == [*before, row_of(B)], cut


VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
KEYS = st.sampled_from([*(one.name for one in fields(Row)), "begun"])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=20) | st.dictionaries(KEYS, VALUES, min_size=1).map(line_of))
def test_no_line_stops_a_reader(line: bytes) -> None:
    told = parsed(line)
    assert told is None or isinstance(told, Row | set)


@pytest.mark.parametrize(
    "line",
    [
        b"3",
        b"[]",
        b'{"begun": ["a"]}',
        b"{}",
        b"[" * 99_999,
        line_of({"begun": 3}),
        line_of({"begun": None}),
        line_of({"key": [1], "source": ""}),
        line_of({"key": "a", "source": "", "read": [float("inf"), 1]}),
        line_of({"key": "a", "source": "", "result": [1]}),
    ],
)
def test_lines_of_something_else_are_left_alone(line: bytes) -> None:
    assert parsed(line) is None


def test_a_line_that_was_changed_is_none_of_ours() -> None:
    line = line_of(row_of(A, output="ab", result={"measured": {"loudness": 6.0}}).to_dict())
    assert parsed(line) == row_of(A, output="ab", result={"measured": {"loudness": 6.0}})
    assert json.loads(line)["result"] == {"measured": {"loudness": 6.0}}
    for place in range(len(line) - 1):
        for bit in range(8):
            changed = bytearray(line)
            changed[place] ^= 1 << bit
            assert parsed(bytes(changed)) is None, changed


def test_keys_of_a_later_version_are_left_out() -> None:
    assert parsed(line_of({"key": "a", "source": "b", "mood": {"x": 1}})) == Row("a", "b")
    assert parsed(line_of({"begun": ["a"], "host": "h"})) == {"a"}


def test_names_that_are_not_utf8_come_back_as_the_same_bytes(tmp_path: Path) -> None:
    key = os.fsdecode(b"caf\xe9.wav")
    with Journal(tmp_path) as journal:
        journal.begin([Job(Path(key), None, key)])
        journal.note(Row(key, key, f"{key}: no"))
        journal.begin([Job(Path(key), None, key)])
    assert b"caf\xe9.wav" in (tmp_path / JOURNAL).read_bytes()
    with Journal(tmp_path) as journal:
        assert journal.rows == {key: Row(key, key, f"{key}: no")} and journal.in_flight == {key}
        assert os.fsencode(journal.rows[key].source) == b"caf\xe9.wav"


# --- one process at a time ---


def test_another_process_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from apps.batch.journal import Journal;"
        "held = Journal(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
            with pytest.raises(BatchError, match="another batch is at work in this folder"):
                Journal(tmp_path)
            assert read_rows(tmp_path) == []  # looking is allowed
        finally:
            other.kill()
    Journal(tmp_path).close()


def test_a_folder_that_is_not_there_or_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="cannot be opened"):
        Journal(tmp_path / "none")
    with pytest.raises(BatchError, match="cannot be read"):
        read_rows(tmp_path)
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(BatchError, match="cannot be opened"):
        Journal(tmp_path)


# --- a full disk ---

FULL = """
import resource, signal, sys
from pathlib import Path
from apps.batch.jobs import Row
from apps.batch.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for folder, room in ((sys.argv[1], 1000), (sys.argv[2], 10**6)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    journal = Journal(Path(folder))
    for number in range(20):
        journal.note(Row(str(number), "x"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    journal.close()
    print(*(row.key for row in journal.unwritten()))
"""


def test_a_full_disk_keeps_whole_lines_and_tells_how_many_are_lost(tmp_path: Path) -> None:
    full, freed = tmp_path / "full", tmp_path / "freed"
    full.mkdir()
    freed.mkdir()
    ran = subprocess.run([sys.executable, "-c", FULL, full, freed], cwd=ROOT, capture_output=True, check=True)
    rows, text = read_rows(full), (full / JOURNAL).read_bytes()
    assert 0 < len(rows) < 20 and text.endswith(b"\n") and text.count(b"\n") == len(rows)
    lost = [str(number) for number in range(len(rows), 20)]
    assert ran.stdout.decode().splitlines() == [" ".join(lost), ""]
    # where room comes back before the end nothing is lost
    assert [row.key for row in read_rows(freed)] == [str(number) for number in range(20)]


def test_a_torn_end_is_closed_also_where_the_disk_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / JOURNAL).write_bytes(b'{"key": "a"')

    def no_room(journal: Journal) -> None:
        pass

    with monkeypatch.context() as full:
        full.setattr(Journal, "_flush", no_room)
        journal = Journal(tmp_path)
        journal.note(row_of(B))
    journal.close()
    assert read_rows(tmp_path) == [row_of(B)]


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_line_that_a_signal_interrupts_is_written_once(tmp_path: Path, part: float) -> None:
    """Ctrl-C may raise between the system call and what follows it, whatever share of the line was written."""

    class Interrupted:
        def __init__(self, file: io.RawIOBase) -> None:
            self.file = file

        def write(self, line: bytes) -> int:
            self.file.write(line[: round(part * len(line))])
            raise KeyboardInterrupt

        def fileno(self) -> int:
            return self.file.fileno()

    journal = Journal(tmp_path)
    journal.begin([A])
    whole, journal._file = journal._file, Interrupted(journal._file)  # type: ignore[assignment, arg-type]
    with pytest.raises(KeyboardInterrupt):
        journal.begin([A, B])
    journal._file = whole
    journal.note(row_of(B))
    journal.close()
    told = [parsed(line) for line in (tmp_path / JOURNAL).read_bytes().split(b"\n")[:-1]]
    assert told == [{A.key}, {A.key, B.key}, row_of(B)]
