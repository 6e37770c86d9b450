"""What a run ran on: the code, the software and the machine."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import torch

from trainkit.distributed.parallel import World, count_cores

_GIT_TIMEOUT_S = 5


def describe_environment(world: World) -> dict[str, str]:
    """Return what is worth knowing about where and how a run was started, by names for people."""
    found = {
        "started": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "code": code_version() or "not from a git checkout",
        "processes": f"{world.size} x {world.device.type}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.release()} on {platform.machine()}",
        "processor": f"{processor_name()}, {count_cores()} cores, {torch.get_num_threads()} threads per process",
    }
    if world.device.type == "cuda":
        memory_gib = torch.cuda.get_device_properties(world.device).total_memory / 2**30
        found["GPU"] = f"{torch.cuda.get_device_name(world.device)}, {memory_gib:.0f} GiB"
        found["CUDA"] = torch.version.cuda or ""
    return found


def code_version(folder: Path = Path(__file__).parent) -> str | None:
    """Return the git commit of the code, with "-dirty" if it was changed since; None outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
