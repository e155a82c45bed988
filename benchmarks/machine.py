"""What a benchmark prints first: versions, machine, date, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rivals import version


def limit_threads(threads: int) -> None:
    """Tell the numerical libraries, which read this when they load; children inherit it."""
    for name in ("OMP", "OPENBLAS", "MKL", "RAYON"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)


def describe(threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """Return versions, machine, date and command."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", *sys.argv]),
        "commit": _commit(),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores, load {load()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "threads": threads,
        "versions": {package: version(package) for package in packages},
    }


def header(title: str, facts: dict[str, Any]) -> str:
    """Return the facts as lines of at most 100 columns."""
    versions = [f"{package} {number}" for package, number in facts["versions"].items()]
    lines = [title, ""]
    lines += [f"{name:<9} {facts[name]}" for name in facts if name != "versions"]
    for start in range(0, len(versions), 4):
        lines.append(f"{'versions' if start == 0 else '':<9} {', '.join(versions[start : start + 4])}")
    return "\n".join(lines)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def load() -> str:
    """Return the load average of the last minute: above 1, others are using the machine."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _commit() -> str:
    """Return the commit of this checkout, and whether the package differs from it."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    try:
        changed = " and uncommitted changes in fairlayer/" if git("status", "--porcelain", "--", "fairlayer") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
