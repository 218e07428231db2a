"""What is costly is built once, also where several test workers run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sentinels
import snake
import tiny_project
from filelock import FileLock


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id) -> Path:
    """A folder that all test workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def server(shared) -> Iterator[str | None]:
    """The address of a server of jobs, for `snake.run`; None where there is no way to have one."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    with socket.socket(socket.AF_UNIX) as connection:
        with FileLock(shared / "server.lock"):
            address = shared / "server"
            try:
                connection.connect(address.read_text())
            except OSError:
                address.write_text(_start_server())
                connection.connect(address.read_text())
        # It stays as long as a worker is connected.
        yield address.read_text()


def _start_server() -> str:
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("job_server.py")],
        stdout=subprocess.PIPE,
        env=snake.environment(PYTHONPATH=os.pathsep.join(sys.path)),
        text=True,
        start_new_session=True,
    )
    return server.stdout.readline().strip()


def run_once(shared: Path, name: str, build: Callable[[Path], object], server: str | None) -> Path:
    """A project that `build` makes in a folder and that has run whole; not to be changed."""
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            build(folder)
            printed = snake.run(folder, server=server, **sentinels.SECRETS)
            done.write_text(printed, encoding="utf-8")
    return folder


def assert_kept(folder: Path) -> None:
    """The run that `run_once` made of a folder wrote and printed no secret of the environment."""
    assert sentinels.written(folder) == []
    assert sentinels.printed(Path(f"{folder}.done").read_text(encoding="utf-8")) == []


def edited_stages(folder: Path, tmp_path: Path, config: dict) -> Callable[..., dict[str, int]]:
    """Return a function: what stages would run again in a folder, its configuration changed."""

    def stages(*changes: tuple[str, object]) -> dict[str, int]:
        changed = tiny_project.edited(*changes, base=config)
        path = tiny_project.write_config(tmp_path / "edited.yaml", changed)
        return snake.stages(snake.planned(folder, "--configfile", path))

    return stages


@pytest.fixture(scope="session")
def tiny_model(shared) -> Path:
    """The tiny model; not to be changed."""
    folder = shared / "tiny-model"
    with FileLock(shared / "tiny-model.lock"):
        if not folder.exists():
            tiny_project.build_model(folder)
    return folder


@pytest.fixture(scope="session")
def finished(shared, tiny_model, server) -> Path:
    """A project that has run whole; for dry runs, not to be changed."""

    def build(folder: Path) -> None:
        tiny_project.build_project(folder, tiny_model)

    return run_once(shared, "finished", build, server)


@pytest.fixture
def project(tmp_path, tiny_model) -> Path:
    """A project that has not run."""
    return tiny_project.build_project(tmp_path / "project", tiny_model)


@pytest.fixture
def copied(tmp_path, finished) -> Path:
    """A copy of the finished project, times of files included."""
    folder = tmp_path / "copied"
    subprocess.run(["cp", "-a", finished, folder], check=True)
    return folder


@pytest.fixture
def variant(tmp_path, finished):
    """Return what would run in the finished project under another configuration."""

    def jobs(*changes: tuple[str, object], config: dict | None = None, **env: str) -> list:
        config = tiny_project.edited(*changes, base=config or tiny_project.CONFIG)
        path = tiny_project.write_config(tmp_path / "edited.yaml", config)
        return snake.planned(finished, "--configfile", path, **env)

    return jobs
