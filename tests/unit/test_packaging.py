"""pyproject.toml, requirements.lock, envs/*.yaml and CITATION.cff must tell one story."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import probeline

ROOT = Path(__file__).resolve().parents[2]
# What each environment offers besides the package's own dependencies.
ENVIRONMENTS = {"cpu.yaml": ("demo", "slurm"), "gpu.yaml": ("demo", "lora", "slurm")}
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!]+)")


def pins(where: str, lines: list[str]) -> tuple[dict[str, Version], list[str]]:
    """Read lines ``name==version``; return the pins in order, and what is wrong with the lines."""
    found, wrong = {}, []
    for line in lines:
        match = PIN.fullmatch(line)
        if not match:
            wrong.append(f"{where}: '{line}' is not name==version")
            continue
        name = canonicalize_name(match[1])
        if name in found:
            wrong.append(f"{where}: {name} stands twice")
        found[name] = Version(match[2])
    if next(iter(found), None) != "torch":
        wrong.append(f"{where}: torch is not the first pin")
    return found, wrong


def requirements(project: dict, extras: tuple[str, ...]) -> list[Requirement]:
    """Return the project's own requirements and those of `extras`."""
    optional = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in extras for text in optional[extra])]
    return [Requirement(text) for text in texts]


def outside(where: str, found: dict[str, Version], wanted: list[Requirement]) -> list[str]:
    """Return one line for each requirement that `found` does not meet."""
    wrong = []
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name not in found:
            wrong.append(f"{where}: {name} is missing")
        elif found[name] not in requirement.specifier:
            wrong.append(f"{where}: {name} {found[name]} is not {requirement.specifier}")
    return wrong


def environment_problems(name: str, root: Path, project: dict, lock: dict) -> list[str]:
    """Return what is wrong with one file of envs/, one line each."""
    listed = yaml.safe_load((root / "envs" / name).read_text(encoding="utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    found, wrong = pins(name, [line for line in pip if not line.startswith("--")])
    wrong += outside(name, found, requirements(project, ENVIRONMENTS[name]))
    for package, version in found.items():
        if lock.get(package) != version:
            wrong.append(f"{name}: {package} {version}, but requirements.lock {lock.get(package)}")
    python = next(entry for entry in listed if str(entry).startswith("python="))
    if python.removeprefix("python=") not in SpecifierSet(project["requires-python"]):
        wrong.append(f"{name}: {python} is not {project['requires-python']}")
    return wrong


def lock_lines(root: Path) -> list[str]:
    """Return the lines of requirements.lock that are not comments."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def problems(root: Path) -> list[str]:
    """Return every disagreement between the packaging files under `root`, one line each."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    lock, wrong = pins("requirements.lock", lock_lines(root))
    wanted = requirements(project, tuple(project["optional-dependencies"]))
    wanted += [Requirement(text) for text in settings["build-system"]["requires"]]
    wrong += outside("requirements.lock", lock, wanted)
    for name in ENVIRONMENTS:
        wrong += environment_problems(name, root, project, lock)
    return wrong


def test_pyproject_lock_and_environments_agree():
    assert problems(ROOT) == []


def test_every_environment_file_is_checked():
    assert {path.name for path in (ROOT / "envs").glob("*.y*ml")} == set(ENVIRONMENTS)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with copies of the packaging files, free to edit."""
    for name in ("pyproject.toml", "requirements.lock", "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "expected"),
    [
        ("pyproject.toml", r'"h5py>=[^"]*"', '"h5py>=99"', "requirements.lock: h5py"),
        ("pyproject.toml", r'"ruff>=[^"]*"', '"ruff<0.1"', "requirements.lock: ruff"),
        ("pyproject.toml", r'"typer>', '"not-pinned", "typer>', "not-pinned is missing"),
        ("pyproject.toml", r'"setuptools>=[^"]*"', '"setuptools>=999"', "lock: setuptools"),
        ("pyproject.toml", r'">=3\.11"', '">=3.12"', "cpu.yaml: python=3.11 is not"),
        ("requirements.lock", r"\nnumpy==.*", "\nnumpy==0.1", "lock: numpy 0.1 is not"),
        ("requirements.lock", r"\npeft==.*", "", "lock: peft is missing"),
        ("requirements.lock", r"\ntqdm==.*", "\ntqdm>=4", "'tqdm>=4' is not name==version"),
        ("requirements.lock", r"\ntyper==.*", r"\g<0>\g<0>", "typer stands twice"),
        ("requirements.lock", r"(torch==\S+)\n(.*)\n", r"\2\n\1\n", "torch is not the first"),
        ("requirements.lock", r"(torch==\S+)", r"\1+cpu", "+cpu' is not name==version"),
        ("requirements.lock", r"\npandas==.*", "\npandas @ https://x.org/p.whl", "'pandas @ h"),
        ("envs/cpu.yaml", r"scipy==.*", "scipy==1.15.0", "cpu.yaml: scipy 1.15.0, but"),
        ("envs/cpu.yaml", r" *- rich==.*\n", "", "cpu.yaml: rich is missing"),
        ("envs/gpu.yaml", r"python=3.11", "python=3.10", "gpu.yaml: python=3.10 is not"),
        ("envs/gpu.yaml", r"torch==(\S+)", r"torch==\1+cu130", "is not name==version"),
    ],
)
def test_a_disagreement_is_found(copy: Path, file, pattern, replacement, expected):
    text = (copy / file).read_text(encoding="utf-8")
    edited, count = re.subn(pattern, replacement, text, count=1)
    assert count == 1
    (copy / file).write_text(edited, encoding="utf-8")
    assert any(expected in line for line in problems(copy)), problems(copy)


def test_the_lock_is_complete():
    """What the pinned packages need themselves, as installed here, is pinned too."""
    lock, _ = pins("requirements.lock", lock_lines(ROOT))
    missing = set()
    for name in lock:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # this environment was not made from the lock's every line
        for requirement in map(Requirement, needs):
            # Which CUDA packages torch brings depends on the machine: they cannot be pinned.
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and name != "torch" and canonicalize_name(requirement.name) not in lock:
                missing.add(f"{requirement.name} (needed by {name})")
    assert not missing


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == probeline.__version__
    assert citation["license"] == "Apache-2.0"
    assert len(citation["references"]) == 3
    assert probeline.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run make in `folder`, untouched by the variables of a make that runs these tests."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    ours = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON", "CORES", "WORKERS"}
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def fake_python(path: Path, text: str) -> Path:
    """Write an executable shell script that stands for a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('[ "$1" = --version ] && echo Python 3.10.9; exit 1', "is 'Python 3.10.9'"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt install python3-venv"),
    ],
)
def test_an_unfit_python_gets_one_line(copy: Path, script: str, expected: str):
    done = make(copy, "setup", f"PYTHON={fake_python(copy / 'fake', script)}")
    assert done.returncode != 0
    assert expected in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "" and not (copy / ".venv").exists()


def test_setup_installs_torch_first_and_only_when_something_changed(copy: Path):
    calls = copy / "calls"
    inner = fake_python(
        copy / "inner", f'case "$*" in *install*) echo "$*" >> {calls};; esac; exit 0'
    )
    outer = f'[ "$2" != venv ] || {{ mkdir -p .venv/bin; cp {inner} .venv/bin/python; '
    outer += 'echo "#!$PWD/.venv/bin/python" > .venv/bin/pip; }'
    python = f"PYTHON={fake_python(copy / 'outer', outer)}"

    assert make(copy, "setup", python).returncode == 0
    first = calls.read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in first] == ["torch", "requirements.lock", "."]
    assert "--constraint requirements.lock" in first[0]

    assert make(copy, "setup", python).returncode == 0
    assert calls.read_text(encoding="utf-8").splitlines() == first

    newest = max(path.stat().st_mtime for path in (copy / ".venv").iterdir())
    os.utime(copy / "requirements.lock", (newest + 5, newest + 5))
    assert make(copy, "setup", python).returncode == 0
    assert calls.read_text(encoding="utf-8").splitlines() == first * 2


def test_help_is_the_default_goal_and_names_every_target(copy: Path):
    listed = set(re.findall(r"^ +make ([a-z-]+)", make(copy).stdout, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)", (copy / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(phony[1].split())
