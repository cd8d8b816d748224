"""The outcomes of one run, and what they were measured on."""

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polyad
from polyad.backends import BackendInfo, backends, get

from ..outcome import Outcome
from .counts import backends_of

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """What `polyad conformance` found.

    missing   how to install each backend that is not there
    device    "cpu" or "gpu", as it was asked for
    devices   of each backend that was run, as the framework names them
    versions  of polyad, NumPy and each installed backend
    date      of the end, UTC, ISO 8601
    seconds   of the whole run
    """

    outcomes: tuple[Outcome, ...]
    missing: Mapping[str, str]
    device: str
    devices: Mapping[str, tuple[str, ...]]
    command: str
    date: str
    seconds: float
    python: str
    platform: str
    processor: str
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls,
        outcomes: Iterable[Outcome],
        *,
        missing: Iterable[BackendInfo] = (),
        device: str = "cpu",
        command: str = "polyad conformance",
        seconds: float = 0.0,
    ) -> "Report":
        """The report of these outcomes, measured here and now."""
        outcomes = tuple(outcomes)
        return cls(
            outcomes=outcomes,
            missing={info.name: info.install for info in missing},
            device=device,
            devices={name: _devices(name) for name in backends_of(outcomes)},
            command=command,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=seconds,
            python=platform.python_version(),
            platform=platform.platform(),
            processor=_processor(),
            versions=_versions(),
        )

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.failed)

    @property
    def conforms(self) -> bool:
        """Whether something was run, and every cell of it is ok or a documented gap."""
        run = any(outcome.cell != "skipped" for outcome in self.outcomes)
        return run and not self.failures

    @property
    def where(self) -> str:
        """The device, and the accelerators that each backend sees."""
        found = {name: ", ".join(d for d in devices if d != "cpu") for name, devices in self.devices.items()}
        there = "; ".join(f"{name} sees {devices}" for name, devices in found.items() if devices)
        return f"{self.device} ({there or 'no backend sees an accelerator'})"

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        if self.failures:
            return f"Does not conform: {len(self.failures)} of {len(self.outcomes)} cells failed."
        if not self.conforms:
            return "Nothing was run."
        return "Conforms: every cell that was run is ok or a documented gap."


def _devices(backend: str) -> tuple[str, ...]:
    try:
        return get(backend).devices()
    except Exception:  # an adapter that does not load; its cells say so
        return ()


def _versions() -> dict[str, str]:
    """Of polyad, of what it stands on, and of every installed backend."""
    found = {info.name: info.version for info in backends() if info.version}
    stands_on = {name: importlib.metadata.version(name) for name in ("array-api-compat", "numpy", "optree")}
    return {"polyad": polyad.__version__, **stands_on, **found}


def _processor() -> str:
    """Its name where the system tells; else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
