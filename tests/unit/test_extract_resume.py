"""An extraction that is killed goes on at the last complete block, to the same bits."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import pytest
from tiny_datasets import write_texts
from tiny_models import SENTENCES, build
from torch.nn.modules.module import register_module_forward_pre_hook

from probeline.activations.extract import extract, free_bytes
from probeline.activations.shards import open_shard
from probeline.errors import ProbelineError

TEXTS = [f"{first} {second}" for first in SENTENCES for second in SENTENCES for _ in range(2)]
BLOCK = 8
BLOCKS = len(TEXTS) // BLOCK
OPTIONS = {
    "representations": ["ffn", "hidden"],
    "poolings": ["first", "max", "mean"],
    "storage_dtype": "float16",
    "block_texts": BLOCK,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(dataset folder, model spec)"""
    folder = build("bert", tmp_path_factory.mktemp("bert"))
    data = write_texts(tmp_path_factory.mktemp("data"), TEXTS)
    spec = {"path": str(folder), "dtype": "float32", "device": "cpu", "batch_tokens": 64}
    return data, spec


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(inputs, folder)
    return shard_bytes(folder)


def run(
    inputs, folder: Path, keep_state: bool = False, free=free_bytes, seed: int = 42, **options
) -> None:
    data, spec = inputs
    extract(
        data,
        "tiny",
        spec,
        {**OPTIONS, **options},
        folder / "out",
        folder / "state",
        seed,
        free,
        keep_state=keep_state,
    )


def shard_bytes(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (folder / "out").glob("*.h5")}
    for name in found:
        with open_shard(folder / "out" / name):
            pass
    return found


def counted(call) -> int:
    """Forward passes of the whole model while `call` runs."""
    calls = []

    def count(module, args):
        if type(module).__name__ == "BertModel":
            calls.append(1)

    handle = register_module_forward_pre_hook(count)
    try:
        call()
    finally:
        handle.remove()
    return len(calls)


def journal(folder: Path) -> list[dict]:
    try:
        lines = (folder / "state" / "journal.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs fork to start processes fast"
)


def forked(inputs, folder: Path, pause: float = 0) -> int:
    """Run in a child process, which is returned, with a pause before each module's forward."""
    child = os.fork()
    if child == 0:
        try:
            if pause:
                register_module_forward_pre_hook(lambda *_: time.sleep(pause))
            run(inputs, folder)
        finally:
            os._exit(0)
    return child


def kill(child: int) -> int:
    """Return the signal by which it ended, negative."""
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
@pytest.mark.parametrize("blocks", [1, 7])
def test_killed_process_goes_on_at_the_last_complete_block(blocks, inputs, undisturbed, tmp_path):
    child = forked(inputs, tmp_path, pause=0.0005)
    path = tmp_path / "state" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < blocks:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the extraction ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert kill(child) == -signal.SIGKILL
    done = len(journal(tmp_path))
    assert blocks <= done < BLOCKS
    assert not (tmp_path / "out").exists()

    passes = counted(lambda: run(inputs, tmp_path))
    timing = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert timing["resumed_blocks"] == done
    assert timing["batches"] == passes
    assert passes < counted(lambda: run(inputs, tmp_path / "whole"))
    assert shard_bytes(tmp_path) == undisturbed
    assert not (tmp_path / "state").exists()


@needs_fork
def test_killed_at_any_moment_again_and_again(inputs, undisturbed, tmp_path):
    """Never a file that the next run stumbles over, whatever it was doing."""
    dice = random.Random(0)
    began, places = time.monotonic(), set()
    run(inputs, tmp_path / "timed")
    whole = time.monotonic() - began
    for _ in range(20):
        child = forked(inputs, tmp_path)
        time.sleep(dice.uniform(0.05, 0.4) * whole)
        kill(child)
        if len(journal(tmp_path)) in places:
            # No block further: other work slows the machine down since it was timed.
            whole *= 1.5
        places.add(len(journal(tmp_path)))
        if (tmp_path / "out" / "timing.json").exists():
            break
    run(inputs, tmp_path)
    assert len(places) > 1
    assert shard_bytes(tmp_path) == undisturbed


def interrupted(inputs, folder: Path, **options) -> int:
    """Leave a partial extraction behind, as Ctrl-C does; return how many blocks it has."""
    calls = []

    def stop(module, args):
        if type(module).__name__ == "BertModel":
            calls.append(1)
            if len(calls) > 20:
                raise KeyboardInterrupt

    handle = register_module_forward_pre_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(inputs, folder, **options)
    finally:
        handle.remove()
    return len(journal(folder))


def test_line_that_was_half_written(inputs, undisturbed, tmp_path):
    done = interrupted(inputs, tmp_path)
    assert done >= 2
    with (tmp_path / "state" / "journal.jsonl").open("a") as file:
        file.write('{"block": ')
    run(inputs, tmp_path)
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["resumed_blocks"] == done
    assert shard_bytes(tmp_path) == undisturbed


@pytest.mark.parametrize(
    "change", [{"poolings": ["first", "last"]}, {"block_texts": 5}, {"storage_dtype": "float32"}]
)
def test_state_of_other_settings_is_not_continued(inputs, tmp_path, change):
    assert interrupted(inputs, tmp_path) > 0
    run(inputs, tmp_path, **change)
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["resumed_blocks"] == 0
    run(inputs, tmp_path / "fresh", **change)
    assert shard_bytes(tmp_path) == shard_bytes(tmp_path / "fresh")


def test_state_of_another_model_config_is_not_continued(inputs, tmp_path):
    """The same weights under another config.json compute something else."""
    data, spec = inputs
    folder = Path(shutil.copytree(spec["path"], tmp_path / "model"))
    begun = (data, {**spec, "path": str(folder)})
    assert interrupted(begun, tmp_path) > 0
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    run(begun, tmp_path)
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["resumed_blocks"] == 0


CODE_OF_ITS_OWN = """
from transformers import BertModel as Body


class BertModel(Body):
    def forward(self, **inputs):
        return super().forward(**inputs)
"""


@pytest.mark.parametrize("change", ["code", "tokenizer's code", "flag", "seed", "none"])
def test_state_of_other_code_is_not_continued(inputs, tmp_path, change, monkeypatch):
    """A model that comes with code: what runs, and the seed, decide what is computed."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    data, spec = inputs
    model, tokenizer = (
        Path(shutil.copytree(spec["path"], tmp_path / name)) for name in ("model", "tokenizer")
    )
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_mine.BertModel"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "modeling_mine.py").write_text(CODE_OF_ITS_OWN)
    own = {"path": str(model), "tokenizer": str(tokenizer), "trust_remote_code": change != "flag"}
    assert interrupted((data, spec | own), tmp_path) > 0
    if change == "code":
        edited = CODE_OF_ITS_OWN.replace("forward(**inputs)\n", "forward(**inputs) # edited\n")
        (model / "modeling_mine.py").write_text(edited)
    elif change == "tokenizer's code":
        (tokenizer / "tokenization_mine.py").write_text("")
    again = (data, spec | own | {"trust_remote_code": True})
    run(again, tmp_path, seed=7 if change == "seed" else 42)
    timing = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert (timing["resumed_blocks"] > 0) == (change == "none")


def test_state_about_other_texts_is_not_continued(inputs, tmp_path):
    assert interrupted(inputs, tmp_path) > 0
    others = write_texts(tmp_path / "others", [text.upper() for text in TEXTS])
    run((others, inputs[1]), tmp_path)
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["resumed_blocks"] == 0


@pytest.mark.parametrize("damage", ["truncate", "delete", "overwrite"])
def test_damaged_state_is_not_continued(inputs, undisturbed, tmp_path, damage):
    assert interrupted(inputs, tmp_path) > 0
    path = tmp_path / "state" / "shards" / "hidden.max.02.h5"
    if damage == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes(b"something else")
    run(inputs, tmp_path)
    assert shard_bytes(tmp_path) == undisturbed


def test_interrupted_while_finished_shards_are_moved(inputs, undisturbed, tmp_path):
    """A folder stands where a shard should go: some shards are moved, others not yet."""
    obstacle = tmp_path / "out" / "hidden.max.01.h5"
    (obstacle / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        run(inputs, tmp_path)
    moved = [path for path in (tmp_path / "out").glob("*.h5") if path.is_file()]
    assert 0 < len(moved) < len(undisturbed)
    (obstacle / "inside").rmdir()
    obstacle.rmdir()
    assert counted(lambda: run(inputs, tmp_path)) == 0
    assert shard_bytes(tmp_path) == undisturbed


def test_shards_that_are_deleted_come_back_without_a_forward_pass(inputs, undisturbed, tmp_path):
    """As Snakemake deletes them, killed before it took note that the job was done."""
    run(inputs, tmp_path, keep_state=True)
    shard = tmp_path / "out" / "hidden.max.01.h5"
    assert shard.samefile(tmp_path / "state" / "shards" / shard.name)  # and takes no room twice
    shutil.rmtree(tmp_path / "out")
    assert counted(lambda: run(inputs, tmp_path, keep_state=True)) == 0
    assert shard_bytes(tmp_path) == undisturbed
    run(inputs, tmp_path)
    assert shard_bytes(tmp_path) == undisturbed
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("where", ["rows", "header"])
def test_a_damaged_shard_does_not_come_back_from_the_state(inputs, undisturbed, tmp_path, where):
    """One file with two names: what is deleted in one folder is damaged in the other, too."""
    run(inputs, tmp_path, keep_state=True)
    shard = tmp_path / "out" / "hidden.max.01.h5"
    with h5py.File(shard) as file:
        place = file["activations"].id.get_offset() + 5 if where == "rows" else 700
    with shard.open("r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)[0]
        handle.seek(place)
        handle.write(bytes([byte ^ 4]))
    with pytest.raises(ProbelineError, match="delete it and run"), open_shard(shard) as opened:
        opened.check()
    shard.unlink()
    run(inputs, tmp_path, keep_state=True)
    assert shard_bytes(tmp_path) == undisturbed


def test_finished_shards_whose_journal_is_cut_are_begun_anew(inputs, undisturbed, tmp_path):
    run(inputs, tmp_path, keep_state=True)
    path = tmp_path / "state" / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    run(inputs, tmp_path)
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["resumed_blocks"] == 0
    assert shard_bytes(tmp_path) == undisturbed


@pytest.mark.parametrize("error", [ValueError, RuntimeError, TypeError])
def test_an_unfinished_shard_broken_in_any_way_is_begun_anew(
    inputs, undisturbed, tmp_path, error, monkeypatch
):
    """As HDF5 raises them of broken metadata, on opening a dataset or an attribute."""
    assert interrupted(inputs, tmp_path) > 0
    find, raised = h5py.Group.__getitem__, []

    def broken(group, name):
        if not raised:
            raised.append(name)
            raise error("broken")
        return find(group, name)

    monkeypatch.setattr(h5py.Group, "__getitem__", broken)
    run(inputs, tmp_path)
    assert raised == ["activations"]
    assert shard_bytes(tmp_path) == undisturbed


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV])
def test_disks_on_which_a_file_has_one_name(inputs, undisturbed, tmp_path, monkeypatch, number):
    def refuse(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    if number == errno.EXDEV:
        rename = Path.replace

        def across(source, target):
            if source.parent != Path(target).parent:
                refuse(source, target)
            return rename(source, target)

        monkeypatch.setattr(Path, "replace", across)
    run(inputs, tmp_path, keep_state=True)
    assert shard_bytes(tmp_path) == undisturbed
    assert not list((tmp_path / "state" / "shards").iterdir())
    # Those that are in place are known; those that are not are computed again.
    assert counted(lambda: run(inputs, tmp_path, keep_state=True)) == 0
    (tmp_path / "out" / "hidden.max.01.h5").unlink()
    run(inputs, tmp_path)
    assert shard_bytes(tmp_path) == undisturbed


@pytest.fixture
def two_disks(tmp_path):
    """A folder whose `out` is a link to another disk."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second disk; /dev/shm is none here")
    with TemporaryDirectory(dir=memory) as results:
        (tmp_path / "out").symlink_to(results)
        yield tmp_path


def test_of_each_disk_is_asked_what_it_lacks(inputs, undisturbed, two_disks):
    """A resume has a part of the shards on the disk of the state already, none on the other."""
    assert interrupted(inputs, two_disks) > 0
    shards = [path.stat() for path in (two_disks / "state" / "shards").iterdir()]
    whole = sum(shard.st_size for shard in shards)
    # What `du` does not find there yet.
    rest = sum(max(0, shard.st_size - 512 * shard.st_blocks) for shard in shards)
    assert 0 < rest < whole
    spare = 1 << 20
    enough = {"state": rest + spare, "out": whole + spare}
    for name in enough:
        free = enough | {name: enough[name] - 1}
        with pytest.raises(ProbelineError, match=f"^{two_disks / name}: its .* shards need"):
            run(inputs, two_disks, free=lambda place, free=free: free[place.name])
    run(inputs, two_disks, free=lambda place: enough[place.name])
    assert json.loads((two_disks / "out" / "timing.json").read_text())["resumed_blocks"] > 0
    assert shard_bytes(two_disks) == undisturbed


def test_killed_amid_copying_to_another_disk(inputs, undisturbed, two_disks, monkeypatch):
    """Snakemake then deletes what was copied: every shard is in the state still."""
    copied, copyfile = [], shutil.copyfile

    def killed(source, target):
        if len(copied) == 3:
            raise KeyboardInterrupt
        copied.append(source)
        return copyfile(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "copyfile", killed)
        run(inputs, two_disks)
    for path in (two_disks / "out").iterdir():
        path.unlink()
    # The disk of the state has room for nothing more.
    free = {"state": 1 << 20, "out": 10**9}

    def again():
        run(inputs, two_disks, keep_state=True, free=lambda place: free[place.name])

    assert counted(again) == 0
    assert shard_bytes(two_disks) == undisturbed
    # They take their room on one disk.
    assert not list((two_disks / "state" / "shards").iterdir())


CODE = """
import json, sys
from pathlib import Path
from probeline.activations.extract import extract
data, spec, options, folder = json.loads(sys.argv[1])
folder = Path(folder)
extract(Path(data), "tiny", spec, options, folder / "out", folder / "state", 42, lambda _: 10**12)
"""

FULL = """
mount -t tmpfs -o size=400k none "$1" || exit 77
"$2" -c "$3" "$4" && exit 91
mount -o remount,size=100m "$1"
"$2" -c "$3" "$4" || exit 2
mkdir "$5"
cp -r "$1/out" "$5/"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a tiny disk")
def test_disk_that_fills_up_is_named_and_the_run_goes_on_later(inputs, undisturbed, tmp_path):
    """Somebody else takes the space that was free at the start: here, a disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = json.dumps([str(inputs[0]), inputs[1], OPTIONS, str(disk)])
    command = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(disk), sys.executable, CODE]
    done = subprocess.run(
        [*command, arguments, str(tmp_path / "kept")], capture_output=True, text=True
    )
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("this system does not let tests mount a tiny disk")
    assert done.returncode == 0, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "ProbelineError" in line
    assert "no space left on the disk" in line
    timing = json.loads((tmp_path / "kept" / "out" / "timing.json").read_text())
    assert timing["resumed_blocks"] > 0
    assert shard_bytes(tmp_path / "kept") == undisturbed
