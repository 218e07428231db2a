"""State folders of jobs: one user at a time, and kept until the run is done."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.persistence.file import FilePersistence

from probeline.workflow.states import STATES, forget_finished, half_made, held


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(*names: str) -> Path:
    folder = STATES.joinpath(*names)
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").touch()
    return folder


def test_the_state_of_a_job_that_is_done_is_forgotten_in_the_end():
    done, killed = begun("extract", "notes", "finished"), begun("extract", "notes", "other")
    with held("extract", "notes", "finished") as state:
        assert state == done
    with pytest.raises(KeyboardInterrupt), held("extract", "notes", "other"):
        raise KeyboardInterrupt
    forget_finished()
    assert not done.exists()
    assert (killed / "journal.jsonl").exists()


def test_half_made_outputs_are_named_as_snakemake_has_noted_them(here):
    """A note's name is at most as long as a file's may be; Snakemake cuts those of long outputs."""
    limit = SimpleNamespace(_fetch_max_len=lambda folder: 255)
    names = ["results/summary.csv", f"results/{'ä' * 100}/{'b' * 200}.json"]
    for name in names:
        note = Path(FilePersistence._record_path(limit, here / ".snakemake/incomplete", name))
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    assert half_made(here) == sorted(names)


def test_what_snakemake_has_not_taken_note_of_stays():
    """A run for other targets comes to its end; the job that it left out was done and killed."""
    done = begun("extract", "notes", "tiny")
    with held("extract", "notes", "tiny"):
        pass
    note = Path(".snakemake", "incomplete", "@cmVz", "dWx0cw==")
    note.parent.mkdir(parents=True)
    note.touch()
    forget_finished()
    assert done.exists()
    note.unlink()
    forget_finished()
    assert not done.exists()


def test_the_state_of_a_job_that_failed_after_its_end_stays(tmp_path):
    """Snakemake has deleted the result and its note, and another run comes to its end."""
    result = Path("results", "activations", "notes", "tiny", "hidden.mean.00.h5")
    state = begun("extract", "notes", "tiny")
    with held("extract", "notes", "tiny", made=result):
        pass
    forget_finished()
    assert (state / "journal.jsonl").exists()
    result.parent.mkdir(parents=True)
    result.touch()
    forget_finished(tmp_path)
    assert not state.exists()


def test_a_job_without_a_state_leaves_none():
    with held("finetune", "notes", "label", "tiny", "1") as state:
        assert not state.exists()
    assert not state.exists()
    forget_finished()


def test_nothing_to_forget():
    forget_finished()


def test_a_job_waits_for_one_that_an_earlier_run_has_left(caplog):
    with caplog.at_level("INFO"), held("extract", "notes", "tiny"):
        entered = threading.Event()

        def work():
            with held("extract", "notes", "tiny"):
                entered.set()

        other = threading.Thread(target=work)
        other.start()
        while "waiting for it" not in caplog.text:
            time.sleep(0.01)
        with held("extract", "notes", "other"):
            assert not entered.is_set()
    other.join(10)
    assert entered.is_set()


def test_where_nothing_can_be_locked_jobs_run(monkeypatch, caplog):
    def refuse(handle, kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held("extract", "notes", "tiny"):
        pass
    assert "cannot be locked here: the disk has no locks" in caplog.text
