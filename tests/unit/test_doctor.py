"""The doctor on a small folder of results: every fault is found, named and mendable."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from snakemake.iocontainers import Namedlist

from probeline.activations.join import write_lengths
from probeline.activations.names import LENGTHS
from probeline.activations.parts import part_files, write_index
from probeline.activations.shards import write_shard
from probeline.data.writing import write_dataset
from probeline.doctor import doctor, examine
from probeline.doctor.planned import Output
from probeline.doctor.report import mending, print_report
from probeline.doctor.whole import trouble
from probeline.errors import ProbelineError
from probeline.files import write_json, write_text
from probeline.models.weights import files_hash
from probeline.provenance import read_records, record_path, write_record
from probeline.results.frames import write_frame
from probeline.sealed import sealing
from probeline.workflow.states import held

TEXTS = "results/datasets/made/texts.parquet"
ABOUT = "results/datasets/made/texts.json"
SHARD = "results/activations/made/tiny/hidden.mean.00.h5"
PREDICTIONS = "results/predictions/made/label/tiny/stc.h5"
SCORES = "results/scores/made/label/tiny/stc.json"
FOLDER = "results/classifiers/made/label/tiny"
TABLE, TABLE_PARQUET = "results/summary.csv", "results/summary.parquet"
JOBS = {
    "texts": [TEXTS, ABOUT],
    "dataset": ["results/datasets/made/labels.parquet", "results/datasets/made/dataset.json"],
    "extract_made.tiny": [SHARD],
    "classifier": [FOLDER, PREDICTIONS, SCORES],
    "summary": [TABLE, TABLE_PARQUET],
}


def record(folder, rule, outputs, log="made", **params):
    """As the job of the workflow does it."""
    named = Namedlist(["unnamed"])
    for name, value in params.items():
        named.append(value)
        named._add_name(name)
    job = SimpleNamespace(
        rule=rule,
        log=[f"logs/{rule}/{log}.log"],
        wildcards=Namedlist(fromdict={"dataset": "made"}),
        params=named,
        input=["notes.csv"],
        output=outputs,
    )
    here = Path.cwd()
    os.chdir(folder)
    try:
        write_record(job)
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A folder in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("healthy")
    model = folder / "model"
    model.mkdir()
    save_file({"weight": np.arange(6, dtype="f4")}, model / "model.safetensors")
    write_json(model / "config.json", {})
    task = {"kind": "single", "labels": ["a", "b"], "counts": {}}
    manifest = write_dataset(
        folder / "results/datasets/made",
        {"name": "made", "tasks": {"label": task}},
        pa.table({"text": [f"text {i}" for i in range(12)]}),
        {"train": 6, "validation": 3, "test": 3},
        {"label": np.arange(12) % 2},
    )
    about = {"dataset": "made", "dataset_fingerprint": manifest["fingerprint"]}
    shard = {"model": "./model", "revision": f"sha256:{files_hash([model / 'model.safetensors'])}"}
    (folder / SHARD).parent.mkdir(parents=True)
    write_shard(folder / SHARD, np.ones((12, 4), "f2"), about | shard)
    with sealing(folder / PREDICTIONS) as file:
        file["logits"] = np.zeros((12, 2), "f4")
        file.attrs.update(about)
    write_json(folder / SCORES, {"test": 0.5})
    write_json(folder / FOLDER / "classifier.json", {"provenance": about})
    save_file({"w": np.zeros(3, "f4")}, folder / FOLDER / "head.safetensors")
    write_frame(pd.DataFrame({"x": [1, 2]}), folder / TABLE, folder / TABLE_PARQUET)
    for rule, outputs in JOBS.items():
        record(folder, rule, outputs, version=1)
    return folder


@pytest.fixture
def folder(healthy, tmp_path):
    return Path(shutil.copytree(healthy, tmp_path / "run"))


def outputs(changed=(), without=()):
    """The plan of the configuration, some outputs changed or left out."""
    whole = {
        path: Output(rule, rule, False, "ok") for rule, paths in JOBS.items() for path in paths
    }
    return {path: out for path, out in (whole | dict(changed)).items() if path not in without}


def found(folder, plan=None):
    report = examine(folder, plan or outputs())
    return [(f.kind, f.path, f.mend, f.target) for f in report.findings]


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_nothing_wrong(folder):
    report = examine(folder, outputs())
    assert report.findings == []
    assert (report.files, report.unverified) == (11, 0)
    sizes = [path.stat().st_size for path in (folder / "results").rglob("*") if path.is_file()]
    records = [path.stat().st_size for path in (folder / "results/provenance").rglob("*.json")]
    assert report.bytes == sum(sizes) - sum(records)


def test_progress_counts_every_byte(folder):
    steps = []
    report = examine(folder, outputs(), advance=steps.append)
    assert sum(steps) == pytest.approx(report.bytes, abs=12)


FILES = [TEXTS, ABOUT, PREDICTIONS, SCORES, TABLE, TABLE_PARQUET, f"{FOLDER}/head.safetensors"]


@pytest.mark.parametrize("name", [*FILES, SHARD])
@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "empty"])
def test_damage_of_any_file_is_found(folder, name, how):
    path = folder / name
    content = path.read_bytes()
    if how == "flipped":
        flip(path)
    else:
        path.write_bytes({"cut": content[:-3], "longer": content + b"\n", "empty": b""}[how])
    target = FOLDER if name.startswith(FOLDER) else name
    assert found(folder) == [("damaged", name, "force", target)]


def test_damage_of_files_without_a_record(folder):
    """By what their formats tell; what they do not tell counts as unverified."""
    shutil.rmtree(folder / "results/provenance")
    clean = examine(folder, outputs())
    assert clean.findings == []
    assert clean.unverified == clean.files - 2
    for name in (TEXTS, ABOUT, PREDICTIONS, SCORES, TABLE_PARQUET, f"{FOLDER}/head.safetensors"):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert [finding[:2] for finding in found(folder)] == [("damaged", name)]
        path.write_bytes(content)


def zipped(path):
    np.savez(path.with_suffix(".npz"), np.ones(3))
    path.with_suffix(".npz").replace(path)


def unverifiable(path):
    """A bit of a value, which the format alone does not tell from another."""
    table = pa.table({"x": np.arange(1000)})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    flip(path, path.stat().st_size // 2)


CRAFTED = [
    ("results/a.json", lambda path: path.write_text("[" * 100_000)),
    ("results/a.yaml", lambda path: path.write_text("[" * 100_000)),
    ("results/a.npy", lambda path: path.write_bytes(b"PK\3\4" + b"nothing")),
    ("results/a.npy", zipped),
    ("results/a.npy", lambda path: path.write_bytes(NPY % b"'shape': (10**15,)")),
    ("results/a.npy", lambda path: path.write_bytes(NPY % b"'shape': (1000000000000000,)")),
    ("results/a.parquet", unverifiable),
]
NPY = b"\x93NUMPY\1\0\x60\0{'descr': '<i4', 'fortran_order': False, %-52s}\n"


@pytest.mark.parametrize(("name", "write"), CRAFTED)
def test_a_file_that_is_made_to_break_its_reader_is_damaged(folder, name, write):
    write(folder / name)
    (finding,) = examine(folder, None, "config.yaml: wrong").findings
    assert (finding.kind, finding.path) == ("damaged", name) and finding.reason


def test_a_shard_that_another_process_has_locked(folder, monkeypatch):
    monkeypatch.setenv("PROBELINE_HDF5_LOCKING", "1")
    with (folder / SHARD).open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        (finding,) = examine(folder, outputs()).findings
    assert finding.reason == "locked by another process that writes it"


def test_an_array_without_values_is_whole(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(0, "i4"))
    assert trouble(tmp_path / "a.npy") is None


def test_a_valid_file_in_the_place_of_another(folder):
    """An older copy of a sealed file is whole, but not what the last job wrote."""
    with sealing(folder / PREDICTIONS) as file:
        file["logits"] = np.ones((12, 2), "f4")
    assert found(folder) == [("damaged", PREDICTIONS, "force", PREDICTIONS)]


def test_a_file_gone_from_a_folder_and_one_that_does_not_belong(folder):
    (folder / FOLDER / "head.safetensors").unlink()
    (folder / FOLDER / "notes.txt").write_text("mine")
    assert found(folder) == [
        ("foreign", f"{FOLDER}/notes.txt", "delete", f"{FOLDER}/notes.txt"),
        ("damaged", f"{FOLDER}/head.safetensors", "force", FOLDER),
    ]


def test_a_damaged_record(folder):
    path = record_path("logs/summary/made.log")
    flip(folder / path, 40)
    name = path.as_posix()
    assert found(folder) == [("damaged", name, "delete", name)]


@pytest.mark.parametrize("status", ["params changed", "updated input files", "ok"])
def test_stale(folder, status):
    plan = outputs(changed={SCORES: Output("classifier", "c", True, status)})
    assert found(folder, plan) == [("stale", SCORES, "run", "")]


def test_not_made_yet(folder):
    (folder / TABLE).unlink()
    plan = outputs(changed={TABLE: Output("summary", "s", True, "missing")})
    assert found(folder, plan) == [("incomplete", TABLE, "run", "")]


def test_other_texts_and_other_weights(folder):
    write_json(folder / "model/config.json", {"changed": "config alone"})
    assert found(folder) == []
    save_file({"weight": np.ones(6, dtype="f4")}, folder / "model/model.safetensors")
    assert found(folder) == [("stale", SHARD, "force", SHARD)]
    about = json.loads((folder / ABOUT).read_text())
    write_json(folder / ABOUT, about | {"fingerprint": "other"})
    record(folder, "texts", JOBS["texts"])
    stale = {path for kind, path, *_ in found(folder) if kind == "stale"}
    assert stale == {SHARD, PREDICTIONS, f"{FOLDER}/classifier.json"}


def test_what_is_stale_without_a_plan_is_made_again_not_deleted(folder):
    save_file({"weight": np.ones(6, dtype="f4")}, folder / "model/model.safetensors")
    report = examine(folder, None, "config.yaml: wrong")
    (finding,) = report.findings
    assert (finding.kind, finding.mend, finding.target) == ("stale", "force", SHARD)


def test_a_model_that_is_not_here_is_no_fault(folder):
    shutil.rmtree(folder / "model")
    assert found(folder) == []


def test_a_shard_that_names_no_model(folder):
    about = {"dataset": "made", "revision": "sha256:f00d"}
    write_shard(folder / SHARD, np.ones((12, 4), "f2"), about)
    record(folder, "extract_made.tiny", [SHARD])
    assert found(folder) == []


def test_foreign(folder):
    """Of the workflow, but not of this configuration; and of nobody."""
    write_text(folder / "results/thesis.txt", "mine")
    report = examine(folder, outputs(without=[SCORES]))
    reasons = {f.path: f.reason for f in report.findings}
    assert reasons == {
        SCORES: "made by rule classifier, for another configuration",
        "results/thesis.txt": "no rule of this configuration makes it, no record says which did",
    }


def test_without_a_plan_only_damage_is_told(folder):
    write_text(folder / "results/thesis.txt", "mine")
    flip(folder / SHARD)
    report = examine(folder, None, "config.yaml: wrong")
    assert [(f.kind, f.path) for f in report.findings] == [("damaged", SHARD)]


def test_leftovers(folder):
    (folder / "results/scores/.a.json.0123abcd.tmp").write_text("{")
    half = folder / "results/classifiers/made/.label.0123abcd.old"
    half.mkdir()
    (half / "head.safetensors").write_bytes(b"")
    state = folder / ".probeline/extract/made/tiny"
    (state / "shards").mkdir(parents=True)
    (state / "settings.json").write_text("{}")
    names = [
        "results/classifiers/made/.label.0123abcd.old/head.safetensors",
        "results/scores/.a.json.0123abcd.tmp",
    ]
    temporary = [("incomplete", name, "delete", name) for name in names]
    name = ".probeline/extract/made/tiny"
    assert found(folder) == [*temporary, ("incomplete", name, "delete", name)]
    plan = outputs(changed={SHARD: Output("extract", "e", True, "params changed")})
    assert ("incomplete", name, "run", "") in found(folder, plan)


def test_while_a_snakemake_may_be_at_work_nothing_of_its_is_to_be_deleted(folder):
    temporary = "results/scores/.a.json.0123abcd.tmp"
    state = ".probeline/extract/made/tiny"
    (folder / temporary).write_text("{")
    (folder / state).mkdir(parents=True)
    (folder / state / "settings.json").write_text("{}")
    lock = folder / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert found(folder) == [
        ("incomplete", name, "unlock", "") for name in (temporary, ".snakemake/locks", state)
    ]
    (command,) = mending(examine(folder, outputs()), outputs(), [])
    assert command.endswith("--unlock  # if no other snakemake works here")
    lock.unlink()
    assert found(folder) == [("incomplete", name, "delete", name) for name in (temporary, state)]


@pytest.mark.parametrize("name", [".notes.old", ".draft.tmp", ".a.json.0123abcd.tmp.old"])
def test_a_hidden_file_of_a_user_is_no_temporary_one(folder, name):
    path = f"results/scores/{name}"
    write_text(folder / path, "mine")
    (finding,) = examine(folder, outputs()).findings
    assert (finding.kind, finding.path) == ("foreign", path)
    assert examine(folder, None, "config.yaml: wrong").findings == []


def test_locks_of_states_are_no_states(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with held("extract", "made", "tiny"):
        pass
    assert [path.name for path in (folder / ".probeline/extract/made").iterdir()] == ["tiny.lock"]
    assert found(folder) == []


def test_marks_of_snakemake(folder):
    mark = base64.b64encode(SCORES.encode(), altchars=b"_-").decode()
    (folder / ".snakemake/incomplete").mkdir(parents=True)
    (folder / ".snakemake/incomplete" / mark).touch()
    (folder / ".snakemake/locks").mkdir()
    (folder / ".snakemake/locks/0.input.lock").touch()
    assert found(folder) == [
        ("incomplete", SCORES, "run", ""),
        ("incomplete", ".snakemake/locks", "unlock", ""),
    ]


def test_a_broken_link_and_what_it_is_a_link_to(folder):
    """Of a shared cache: what is damaged there would be handed out again."""
    cache = folder / "cache/shard.h5"
    cache.parent.mkdir()
    (folder / SHARD).replace(cache)
    (folder / SHARD).symlink_to(cache)
    assert found(folder) == []
    flip(cache)
    report = examine(folder, outputs())
    (first, second) = mending(report, outputs(), [])
    assert first == f"rm -r {cache}"
    assert second.endswith(f"--forcerun {SHARD}")
    cache.unlink()
    (finding,) = examine(folder, outputs()).findings
    assert "which is not there" in finding.reason


def from_cache(folder, name, key):
    """As Snakemake has an output from its cache: a file is a link, a folder holds links."""
    entry = folder / "cache" / f"{key * 64}{Path(name).name}"
    entry.parent.mkdir(exist_ok=True)
    (folder / name).replace(entry)
    if not entry.is_dir():
        (folder / name).symlink_to(entry)
        return entry
    (folder / name).mkdir()
    for part in entry.iterdir():
        (folder / name / part.name).symlink_to(part)
    return entry


def test_a_record_tells_nothing_of_what_came_from_a_cache(folder):
    """One shard of a setting, one of another, then the first again, by a link: no job ran."""
    with h5py.File(folder / SHARD, "r") as file:
        about = {name: value for name, value in file.attrs.items() if name != "format"}
    first = (folder / SHARD).read_bytes()
    write_shard(folder / SHARD, np.zeros((12, 5), "f2"), about)
    record(folder, "extract_made.tiny", [SHARD], version=1)
    (folder / SHARD).write_bytes(first)
    assert [kind for kind, *_ in found(folder)] == ["damaged"]
    entry = from_cache(folder, SHARD, "a")
    assert found(folder) == []
    # Its own checksum is still compared.
    flip(entry)
    report = examine(folder, outputs())
    assert [(f.kind, f.path) for f in report.findings] == [("damaged", SHARD)]
    assert mending(report, outputs(), [])[0] == f"rm -r {entry}"


def test_a_record_tells_nothing_of_a_folder_that_came_from_a_cache(folder):
    home = folder / FOLDER
    (home / "head.safetensors").rename(home / "model.safetensors")
    assert len(found(folder)) == 2
    from_cache(folder, FOLDER, "b")
    report = examine(folder, outputs())
    assert report.findings == []
    # Neither file has a checksum that counts.
    assert report.unverified == 2


def test_folders_that_are_linked_are_looked_into(folder):
    """Of a cache, where a folder in an output is a link; or all of them, to a disk with room."""
    home = folder / FOLDER
    (home / "pooling").mkdir()
    (home / "pooling" / "config.json").write_text('{"words": ')
    entry = from_cache(folder, FOLDER, "b")
    # A link that leads up again is followed once.
    (home / "pooling" / "up").symlink_to(folder / "results")
    name = f"{FOLDER}/pooling/config.json"
    for report in (examine(folder, outputs()), examine(relocated(folder), outputs())):
        damaged = [f for f in report.findings if f.kind == "damaged"]
        assert name in {f.path for f in damaged}
        assert f"rm -r {entry / 'pooling'}" in mending(report, outputs(), [])[0]


def relocated(folder):
    """Results that lie elsewhere."""
    (folder / "results").rename(folder.with_name("scratch"))
    (folder / "results").symlink_to(folder.with_name("scratch"))
    return folder


def test_a_stale_entry_of_a_cache_stays_there(folder):
    """It is right for the texts it is of, which another folder may have."""
    entry = from_cache(folder, SHARD, "a")
    texts = json.loads((folder / ABOUT).read_text())
    write_json(folder / ABOUT, texts | {"fingerprint": "another"})
    record(folder, "texts", JOBS["texts"])
    report = examine(folder, outputs())
    assert ("stale", SHARD, "force") in [(f.kind, f.path, f.mend) for f in report.findings]
    assert not any(str(entry) in command for command in mending(report, outputs(), []))


PARTS = [f"{Path(SHARD).parent}/part-{number}-of-3" for number in (1, 2, 3)]
# Twelve rows in blocks of eight: a part is empty.
ENDS = [(0, 0), (0, 8), (8, 12)]


@pytest.fixture
def parted(folder):
    """The folder with its shard in parts, and what its plan has of them."""
    about = {"dataset": "made", "model": "./model", "whole": "f00d", "extraction": "f00d"}
    about["dataset_fingerprint"] = json.loads((folder / ABOUT).read_text())["fingerprint"]
    about["revision"] = f"sha256:{files_hash([folder / 'model/model.safetensors'])}"
    plan = {}
    for number, (place, (start, stop)) in enumerate(zip(PARTS, ENDS, strict=True), start=1):
        own = {"part": number, "parts": 3, "start": start, "stop": stop, "total_rows": 12}
        path = folder / place / Path(SHARD).name
        path.parent.mkdir()
        write_shard(path, np.ones((stop - start, 4), "f2"), about | own)
        write_lengths(path.parent, np.ones(stop - start, "i4"))
        files = [f"{place}/{path.name}", f"{place}/{LENGTHS}"]
        record(folder, "extract_made.tiny", files, log=f"part-{number}", part=number)
        plan |= {file: Output("extract_made.tiny", place, False, "ok") for file in files}
    write_index(folder / SHARD, [f"{Path(place).name}/{Path(SHARD).name}" for place in PARTS])
    (folder / record_path("logs/extract_made.tiny/made.log")).unlink()
    record(folder, "join_made.tiny", [SHARD])
    return folder, outputs(changed=plan | {SHARD: Output("join_made.tiny", "join", False, "ok")})


def test_a_shard_in_parts(parted):
    """Each part is read where it lies, and none is foreign."""
    folder, plan = parted
    steps = []
    report = examine(folder, plan, advance=steps.append)
    assert report.findings == []
    assert (report.files, report.unverified) == (11 + 6, 0)
    assert sum(steps) == pytest.approx(report.bytes, abs=20)
    assert examine(folder, None, "config.yaml: wrong").findings == []


@pytest.mark.parametrize("recorded", [True, False])
def test_damage_of_a_part_is_told_of_that_part(parted, recorded):
    folder, plan = parted
    if not recorded:
        shutil.rmtree(folder / "results/provenance")
    index, _, second, _ = (
        path.relative_to(folder).as_posix() for path in part_files(folder / SHARD)
    )
    with h5py.File(folder / second) as file:
        place = file["activations"].id.get_offset()
    flip(folder / second, place)
    assert found(folder, plan) == [("damaged", second, "force", second)]
    (command,) = mending(examine(folder, plan), plan, [])
    assert command.endswith(f"--forcerun {second}")
    flip(folder / second, place)
    flip(folder / index)
    assert found(folder, plan) == [("damaged", index, "force", index)]
    flip(folder / index)
    counts = f"{PARTS[1]}/{LENGTHS}"
    (folder / counts).write_bytes((folder / counts).read_bytes()[:90])
    assert found(folder, plan) == [("damaged", counts, "force", counts)]


def test_a_part_that_is_gone_or_of_another_extraction(parted):
    folder, plan = parted
    second, third = (f"{place}/{Path(SHARD).name}" for place in PARTS[1:])
    content = (folder / third).read_bytes()
    (folder / third).unlink()
    (finding,) = examine(folder, None, "config.yaml: wrong").findings
    assert (finding.path, finding.target) == (SHARD, SHARD)
    assert finding.reason.endswith("part 3 of 3 of this shard is missing")
    (folder / third).write_bytes(content)
    shutil.copyfile(folder / third, folder / second)
    damaged = [(kind, path) for kind, path, *_ in found(folder, plan)]
    assert damaged == [("damaged", SHARD), ("damaged", second)]


def test_a_shard_in_parts_of_other_texts_and_weights(parted):
    folder, plan = parted
    save_file({"weight": np.ones(6, dtype="f4")}, folder / "model/model.safetensors")
    stale = {SHARD, *(f"{place}/{Path(SHARD).name}" for place in PARTS)}
    assert {(kind, path) for kind, path, *_ in found(folder, plan)} == {
        ("stale", path) for path in stale
    }


def test_parts_of_another_configuration(parted):
    folder, _ = parted
    write_shard(folder / SHARD, np.ones((12, 4), "f2"), {"dataset": "made"})
    # Records count by the second, the later one.
    (folder / record_path("logs/join_made.tiny/made.log")).unlink()
    record(folder, "extract_made.tiny", [SHARD])
    foreign = [(kind, path) for kind, path, *_ in found(folder, outputs())]
    inside = [f"{place}/{name}" for place in PARTS for name in (Path(SHARD).name, LENGTHS)]
    assert foreign == [("foreign", path) for path in inside]


def printed(report, plan, arguments=()):
    stream = StringIO()
    print_report(report, plan, list(arguments), Console(file=stream, width=80))
    return stream.getvalue().splitlines()


def test_what_is_printed(folder):
    flip(folder / SHARD)
    flip(folder / TABLE)
    write_text(folder / "results/my thesis.txt", "mine")
    plan = outputs()
    lines = printed(examine(folder, plan), plan, ["--configfile", "a b.yaml"])
    assert lines[0].startswith(f"damaged    {SHARD}: ")
    assert f"damaged    {TABLE}: not the bytes that were written (checksum)" in lines
    assert "foreign    results/my thesis.txt: no rule of this configuration makes it" in lines[2]
    assert lines[3:6] == [
        "to mend:",
        f"  rm -r '{folder}/results/my thesis.txt'  # if nothing is to use them again",
        f"  probeline run --directory {folder} --configfile 'a b.yaml' --forcerun {SHARD} {TABLE}",
    ]
    assert lines[6].endswith("2 damaged, 1 foreign")
    assert len(lines) == 7


def test_files_with_the_same_trouble_are_one_line(folder):
    plan = {path: Output(out.rule, "j", True, "params changed") for path, out in outputs().items()}
    lines = printed(examine(folder, plan), plan)
    assert lines[0] == (
        f"stale      {TEXTS} and 1 more: made with other settings, or by another version"
    )
    assert len([line for line in lines if line.startswith("stale")]) == len(JOBS)


def test_records_of_a_job(healthy):
    known, damaged = read_records(healthy)
    assert damaged == []
    assert known[f"{FOLDER}/head.safetensors"].output == FOLDER
    assert known[SHARD].seal.startswith("probeline crc32=")
    record = json.loads((healthy / record_path("logs/summary/made.log")).read_text())
    assert record["params"] == {"0": "unnamed", "version": 1}
    assert record["wildcards"] == {"dataset": "made"}


def test_refusals(tmp_path, folder):
    with pytest.raises(ProbelineError, match="no results/ here"):
        examine(tmp_path / "nothing", outputs())
    lock = folder / ".probeline/run.lock"
    lock.parent.mkdir()
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ProbelineError, match="`probeline run` is working here"):
            doctor(folder)
