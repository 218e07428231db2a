"""Studies in a journal: what is tried, what is pruned, kills, several workers, and the report."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time

import optuna
import pandas as pd
import pytest
import yaml
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from probeline.config import read
from probeline.errors import ProbelineError
from probeline.finetune.options import read_options
from probeline.search.report import best_trial, importances, trials_table, write_best
from probeline.search.space import SEARCHED, searched
from probeline.search.study import load_study, open_study, work

SPACE = {
    "learning_rate": {"low": 1e-6, "high": 7e-5, "log": True},
    "epochs": {"low": 1, "high": 5, "step": 1},
    "batch_size": [16, 24, 32],
}
SETTINGS = {"model": "m"}
RUNNING = TrialState.RUNNING


def hill(trial, params) -> float:
    """Highest at a learning rate of 3e-5, whatever else is tried; every epoch lifts it."""
    for epoch in range(int(params["epochs"])):
        score = -abs(math.log(params["learning_rate"] / 3e-5)) + epoch / 1000
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


class Killed(Exception):
    pass


def killed_at(number: int, objective=hill):
    """The objective, during one trial of which the process ends."""

    def run(trial, params):
        if trial.number == number:
            raise Killed
        return objective(trial, params)

    return run


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "search" / "journal.log"


def test_every_draw_is_in_its_range(journal):
    study = open_study(journal, SETTINGS)
    assert work(study, hill, SPACE, 20) == list(range(20))
    table = trials_table(study)
    assert table["learning_rate"].between(1e-6, 7e-5).all()
    assert set(table["epochs"]) <= {1, 2, 3, 4, 5} and set(table["batch_size"]) == {16, 24, 32}
    # Half of the range on a logarithmic scale lies below; of an even one hardly anything would.
    assert (table["learning_rate"][:10] < math.sqrt(1e-6 * 7e-5)).any()


def test_it_comes_near_to_the_best(journal):
    study = open_study(journal, SETTINGS)
    work(study, hill, SPACE, 30)
    assert best_trial(study).params["learning_rate"] == pytest.approx(3e-5, rel=0.2)
    found = importances(study)
    assert found["setting"][0] == "learning_rate" and found["importance"][0] > 0.5
    assert found["importance"].sum() == pytest.approx(1)


def test_importance_is_that_of_ped_anova(journal):
    study = open_study(journal, SETTINGS)
    work(study, hill, SPACE, 15)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    truth = optuna.importance.get_param_importances(study, evaluator=evaluator)
    found = importances(study)
    assert dict(zip(found["setting"], found["importance"], strict=True)) == pytest.approx(truth)


def test_what_is_below_the_median_of_earlier_trials_is_pruned(journal):
    study = open_study(journal, SETTINGS)
    work(study, hill, SPACE, 25)
    complete = []
    for trial in study.trials:
        values = trial.intermediate_values
        for step in values:
            known = [other[step] for other in complete if step in other]
            best = max(values[at] for at in values if at <= step)
            below = len(complete) >= 5 and known and best < _median(known)
            last = step == max(values)
            assert (trial.state.name == "PRUNED" and last) == bool(below)
        if trial.state.name == "COMPLETE":
            complete.append(values)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}


def _median(values):
    return float(pd.Series(values).median())


def test_without_pruning_all_come_to_their_end(journal):
    study = open_study(journal, SETTINGS, prune=False)
    work(study, hill, SPACE, 15)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}


@pytest.mark.parametrize("number", [0, 7, 14])
def test_a_killed_worker_goes_on_as_if_it_had_not_been(tmp_path, number):
    whole = open_study(tmp_path / "whole.log", SETTINGS)
    work(whole, hill, SPACE, 15)
    journal, calls = tmp_path / "killed.log", []
    with pytest.raises(Killed):
        work(open_study(journal, SETTINGS), killed_at(number), SPACE, 15)

    def counting(trial, params):
        calls.append(trial.number)
        return hill(trial, params)

    study = open_study(journal, SETTINGS)
    assert work(study, counting, SPACE, 15) == list(range(15))
    assert calls == list(range(number, 15))
    pd.testing.assert_frame_equal(trials_table(study), trials_table(whole))


def test_a_kill_while_the_journal_is_unlocked_leaves_no_file(journal, monkeypatch):
    """The lock is a link that is removed, not renamed first: a kill may come between two steps."""
    open_study(journal, SETTINGS)
    names = []
    for step in ("rename", "replace", "unlink", "remove"):
        do = getattr(os, step)

        def told(path, *more, do=do, step=step, **keys):
            if str(path).startswith(str(journal)):
                names.append(step)
            return do(path, *more, **keys)

        monkeypatch.setattr(os, step, told)
    open_study(journal, SETTINGS)
    assert set(names) == {"unlink"}
    assert [path.name for path in journal.parent.iterdir()] == [journal.name]


def test_killed_after_any_line_of_the_journal(tmp_path, monkeypatch):
    """Also after that which makes a trial: it is nobody else's, and must not be lost."""
    whole = tmp_path / "whole.log"
    work(open_study(whole, SETTINGS), hill, SPACE, 3)
    append = JournalFileBackend.append_logs
    for lines in range(1, len(whole.read_bytes().splitlines()) + 1):
        journal, left = tmp_path / f"{lines}.log", [lines]

        def killed(self, logs, left=left):
            append(self, logs)
            left[0] -= len(logs)
            if left[0] == 0:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(JournalFileBackend, "append_logs", killed)
            work(open_study(journal, SETTINGS), hill, SPACE, 3)
        study = open_study(journal, SETTINGS)
        assert work(study, hill, SPACE, 3) == [0, 1, 2]
        pd.testing.assert_frame_equal(
            trials_table(study), trials_table(open_study(whole, SETTINGS))
        )


def test_nothing_is_done_again_and_more_can_be_asked_for(journal):
    work(open_study(journal, SETTINGS), hill, SPACE, 5)
    assert work(open_study(journal, SETTINGS), killed_at(-1, None), SPACE, 5) == list(range(5))
    study = open_study(journal, SETTINGS)
    assert work(study, hill, SPACE, 8) == list(range(8))
    other = open_study(journal, {"model": "other"})
    assert len(other.trials) == 0 and len(load_study(journal, study.study_name).trials) == 8


WORKER = """
import sys
sys.path.insert(0, {tests!r})
from test_search import SETTINGS, SPACE, hill
from probeline.search.study import open_study, work
print(work(open_study({journal!r}, SETTINGS), hill, SPACE, 21, int(sys.argv[1]), 3))
"""


def test_workers_share_a_study(journal, request):
    script = WORKER.format(tests=str(request.path.parent), journal=str(journal))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(worker)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        for worker in range(3)
    ]
    numbers = [yaml.safe_load(process.communicate()[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    every = sorted(number for own in numbers for number in own)
    assert len(every) == len(set(every)) == 21
    table = trials_table(open_study(journal, SETTINGS))
    assert sorted(table["trial"]) == every and not (table["state"] == "running").any()


def test_of_two_that_ask_for_the_last_trial_at_once_the_second_does_nothing(journal, monkeypatch):
    first, second = open_study(journal, SETTINGS), open_study(journal, SETTINGS)
    add = second.add_trial

    def late(trial):
        first.add_trial(optuna.trial.create_trial(state=RUNNING, user_attrs={"worker": 0}))
        add(trial)

    monkeypatch.setattr(second, "add_trial", late)
    assert work(second, killed_at(1), SPACE, 1, worker=1, workers=2) == []
    assert work(first, hill, SPACE, 1, worker=0, workers=2) == [0]
    assert list(trials_table(first)["trial"]) == [0]


def test_the_first_worker_takes_up_what_others_have_left(journal):
    with pytest.raises(Killed):
        work(open_study(journal, SETTINGS), killed_at(0), SPACE, 2, worker=1, workers=2)
    study = open_study(journal, SETTINGS)
    work(study, hill, SPACE, 2, worker=0, workers=1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


class Diverged(ProbelineError):
    pass


def test_settings_that_lead_nowhere_count_as_pruned(journal, tmp_path):
    def runs_away(trial, params):
        raise Diverged("the loss of step 3 is nan")

    study = open_study(journal, SETTINGS)
    work(study, runs_away, SPACE, 3, diverged=Diverged)
    table = trials_table(study)
    assert set(table["state"]) == {"pruned"} and table["score"].isna().all()
    assert set(table["note"]) == {"the loss of step 3 is nan"}
    with pytest.raises(ProbelineError, match="no trial of 3 came to its end; the last one ended"):
        write_best(study, tmp_path / "best.yaml", ("finetune",), "x")
    assert importances(study).empty


def test_the_best_settings_are_a_part_of_a_configuration(journal, tmp_path):
    study = open_study(journal, SETTINGS)
    work(study, hill, SPACE, 12)
    write_best(study, tmp_path / "best.yaml", ("finetune",), "tiny on toy")
    found = read(tmp_path / "best.yaml")
    table = trials_table(study)
    complete = table[table["state"] == "complete"]
    best = complete.loc[complete["score"].idxmax()]
    assert list(found) == ["finetune"]
    assert found["finetune"] == {name: best[name] for name in SPACE}
    assert isinstance(found["finetune"]["batch_size"], int)
    assert read_options(found["finetune"]).learning_rate == best["learning_rate"]
    assert complete["best"].is_monotonic_increasing and complete["best"].iloc[-1] == best["score"]
    assert "trial" in (tmp_path / "best.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"learning_rat": [1]}, "'learning_rat' is not one of .* did you mean 'learning_rate'"),
        ({"epochs": None}, "every entry is null"),
    ],
)
def test_a_space_that_is_none(space, expected):
    with pytest.raises(ProbelineError, match=expected):
        searched(space)


def test_a_space_has_an_order_of_its_own():
    assert list(searched(dict(reversed(SPACE.items())))) == [n for n in SEARCHED if n in SPACE]


LOCKED = """
import os, signal
from optuna.storages.journal import JournalFileSymlinkLock
from probeline.search.study import open_study
taken = JournalFileSymlinkLock.acquire

def acquire(self):
    taken(self)
    os.kill(os.getpid(), signal.SIGKILL)

JournalFileSymlinkLock.acquire = acquire
open_study("search/journal.log", {"model": "m"})
"""


def test_the_lock_of_a_killed_worker_is_taken_from_it(tmp_path, monkeypatch):
    """Also where the journal is named by a relative path, as in a run."""
    done = subprocess.run([sys.executable, "-c", LOCKED], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "search" / "journal.log.lock").is_symlink()
    monkeypatch.chdir(tmp_path)
    # Optuna waits half a minute: whether a lock is left behind is known by nothing else.
    passed, clock = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: passed.__setitem__(0, passed[0] + 5))
    waiting = threading.Thread(
        target=open_study, args=("search/journal.log", SETTINGS), daemon=True
    )
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()
    assert not (tmp_path / "search" / "journal.log.lock").is_symlink()


@pytest.mark.parametrize("left", [b'{"op_code": 0, "wor', b""])
def test_a_line_that_was_half_written(tmp_path, left):
    journal = tmp_path / "journal.log"
    work(open_study(journal, SETTINGS), hill, SPACE, 2)
    before = journal.read_bytes()
    journal.write_bytes(before + left)
    assert work(open_study(journal, SETTINGS), hill, SPACE, 3) == [0, 1, 2]
    assert left == b"" or left not in journal.read_bytes()
    assert journal.read_bytes().startswith(before)
    assert len(load_study(journal, open_study(journal, SETTINGS).study_name).trials) == 3


def test_a_trial_is_forgotten_when_the_journal_has_its_score(journal):
    study, told = open_study(journal, SETTINGS), []

    def forget(number):
        assert study.trials[number].state.is_finished()
        told.append(number)

    work(study, hill, SPACE, 3, told=forget)
    assert told == [0, 1, 2]
    # Killed before it could be: the next run does it.
    work(open_study(journal, SETTINGS), hill, SPACE, 3, told=forget)
    assert told == [0, 1, 2, 0, 1, 2]


def test_a_journal_that_is_none(tmp_path):
    path = tmp_path / "journal.log"
    with pytest.raises(ProbelineError, match="no such journal"):
        load_study(path, "x")
    path.write_text("no json\n{}\n")
    with pytest.raises(ProbelineError, match=r"journal.log: not a readable journal"):
        open_study(path, SETTINGS)
    path.unlink()
    open_study(path, SETTINGS)
    with pytest.raises(ProbelineError, match="holds no study x"):
        load_study(path, "x")
