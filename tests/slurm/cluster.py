"""A SLURM of one node on this machine: munged, slurmctld and slurmd on the loopback address.

No systemd, no cgroups and no accounting database: what became of a job is read off the
job-completion log. The GPU is a file. All that is written lies in one folder, and ends with it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue")
PACKAGES = "munge slurmctld slurmd slurm-client"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NODE = "localhost"

_CONFIGURATION = """\
ClusterName=probeline
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other_port}
# The loopback address instead of all.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
PlugStackConfig={folder}/etc/plugstack.conf
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
# No cgroups: processes are found by their parents, memory is looked at every other second.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.log
# squeue still knows finished jobs when Snakemake asks.
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
KillWait=5
GresTypes=gpu
# More CPUs than there may be.
SlurmdParameters=config_overrides
NodeName={node} NodeAddr=127.0.0.1 NodeHostname={node} CPUs={cpus} RealMemory={memory} \
Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE DefMemPerCPU=512 State=UP
"""


def missing() -> str | None:
    """Why no SLURM can be started here; None where it can."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "needs snakemake-executor-plugin-slurm: pip install -e '.[slurm]'"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"needs SLURM ({absent[0]} is missing): apt-get install {PACKAGES}"
    if os.geteuid() != 0:
        return "needs root, to start SLURM"
    if shutil.which("unshare") is None:
        return "needs unshare (util-linux), to start SLURM"
    return None


@dataclass(frozen=True)
class Done:
    """A job that has ended, by the job-completion log and, for what that lacks, the controller.

    Attributes
    ----------
    rule : str
        As the executor's comment names it, `rule_{rule}` and the wildcards.
    gres : str
        Such as gres:gpu:1.
    """

    id: int
    state: str
    start: datetime
    end: datetime
    rule: str
    gres: str


class Cluster:
    """Start with `start`, end with `stop`; `environment` is for the programs that use it.

    Parameters
    ----------
    folder : Path
        Where everything of it lies; short, for the path of a socket has at most 107 bytes.
    cpus, memory : int
        What the node says that it has: CPUs, MB.
    """

    def __init__(self, folder: Path, cpus: int = 4, memory: int = 8000):
        self.folder = folder
        self.cpus = cpus
        self.memory = memory
        self._configuration = folder / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which programs find this cluster and no other."""
        # The step of a job forgets where the configuration lies: srun is one that knows it.
        path = f"{self.folder}/bin:{os.environ.get('PATH', '')}:{_PATH}"
        return {"SLURM_CONF": str(self._configuration), "PATH": path}

    def start(self) -> None:
        """Start the daemons; returns when the node takes jobs."""
        for name in ("etc", "state", "spool", "log", "run", "munge", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o711)
        self._write_configuration()
        self._start_munge()
        for name in ("slurmctld", "slurmd"):
            more = ["-N", _NODE] if name == "slurmd" else []
            # With the loopback address alone, a daemon listens where its host's name leads: in a
            # namespace of its own that is the loopback address.
            daemon = [name, "-f", str(self._configuration), *more]
            named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', _NODE]
            self._call([*named, *daemon])
        self._wait(self._is_ready, 120, "the node takes no jobs")

    def _write_configuration(self) -> None:
        port = _free_ports()
        gpu = self.folder / "etc" / "gpu0"
        try:
            # As /dev/null: slurmd wants a device.
            os.mknod(gpu, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except OSError:
            gpu.touch()
        self._configuration.write_text(
            _CONFIGURATION.format(
                node=_NODE,
                folder=self.folder,
                port=port,
                other_port=port + 1,
                cpus=self.cpus,
                memory=self.memory,
            )
        )
        etc = self._configuration.parent
        (etc / "plugstack.conf").touch()
        (etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (etc / "gres.conf").write_text(f"NodeName={_NODE} Name=gpu File={gpu}\n")
        srun = self.folder / "bin" / "srun"
        srun.write_text(
            f'#!/bin/sh\nSLURM_CONF={self._configuration} exec {shutil.which("srun")} "$@"\n'
        )
        srun.chmod(0o755)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = {
            "key-file": key,
            "socket": folder / "munge.socket",
            "pid-file": folder / "munged.pid",
            "log-file": folder / "munged.log",
            "seed-file": folder / "munged.seed",
        }
        self._call(["munged", *(f"--{name}={path}" for name, path in files.items())])

    def _is_ready(self) -> bool:
        found = self.call("sinfo", "-h", "-n", _NODE, "-o", "%T", check=False)
        return found.strip() in ("idle", "mixed", "allocated")

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": f"{_PATH}:{os.environ.get('PATH', '')}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[-3:]} did not start: {done.stdout}")

    def _wait(self, ready, seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                logs = [self.folder / "log" / f"{name}.log" for name in ("slurmctld", "slurmd")]
                last = "".join(path.read_text()[-2000:] for path in logs if path.exists())
                raise RuntimeError(f"{what} after {seconds} s\n{last}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Cancel what runs and end the daemons."""
        self.call("scancel", "--state=PENDING", check=False)
        self.call("scancel", "--state=RUNNING", check=False)
        self.settle()
        for path in ("run/slurmd.pid", "run/slurmctld.pid", "munge/munged.pid"):
            _end(self.folder / path)

    def settle(self) -> None:
        """Wait until cancelled jobs are gone."""
        for _ in range(100):
            if not self.active():
                return
            time.sleep(0.2)

    def call(self, *command: str, check: bool = True) -> str:
        """Run one of SLURM's programs; returns what it printed."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=check,
        ).stdout

    def active(self) -> dict[int, str]:
        """{job: state} of the jobs that wait or run."""
        states = "PENDING,RUNNING,COMPLETING,SUSPENDED"
        lines = self.call("squeue", "-h", "-t", states, "-o", "%A %T", check=False).splitlines()
        pairs = (line.split() for line in lines)
        return {int(job): state for job, state in (p for p in pairs if p[0].isdigit())}

    def running(self) -> list[int]:
        return [job for job, state in self.active().items() if state == "RUNNING"]

    def shown(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says."""
        text = self.call("scontrol", "-o", "show", "job", str(job))
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def done(self) -> list[Done]:
        """Jobs that have ended, in the order of their numbers."""
        path = self.folder / "log" / "jobcomp.log"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            logged = dict(re.findall(r"(\w+)=(\S*)", line))
            number = int(logged["JobId"])
            shown = self.shown(number)
            times = [datetime.fromisoformat(logged[key]) for key in ("StartTime", "EndTime")]
            rule, gres = shown.get("Comment", ""), shown.get("TresPerJob", "")
            found.append(Done(number, logged["JobState"], *times, rule, gres))
        return sorted(found, key=lambda one: one.id)


def _free_ports() -> int:
    """The first of two free ports that follow each other."""
    for port in range(16817, 16917, 2):
        try:
            for one in (port, port + 1):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", one))
        except OSError:
            continue
        return port
    raise RuntimeError("no free ports from 16817 to 16917")


def _end(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    for _ in range(150):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise RuntimeError(f"{pid_file.stem} ({pid}) did not end within 15 s")
