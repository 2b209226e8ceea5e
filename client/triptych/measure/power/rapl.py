"""Energy of this machine's processors, by the counters that Linux shows of them (RAPL)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from triptych.measure.power.figures import Identity
from triptych.measure.power.source import Reading

POWERCAP = Path("/sys/class/powercap")

_NOTE = "the whole processor: the server, the load generator and whatever else runs on it"


class Rapl:
    """The packages of the processors; an AMD's are called `intel-rapl` too.

    The domains within a package (cores, graphics) are part of it, and memory is a domain of its own that few machines
    show; neither is read.
    """

    period_s = 0.1

    def __init__(self, directory: Path = POWERCAP) -> None:
        """Find the packages that may be read."""
        self.identities: dict[str, Identity] = {}
        self.missing = ""
        self._files: dict[str, Path] = {}
        self._ranges_uj: dict[str, int] = {}
        self._last_uj: dict[str, int] = {}
        self._joules: dict[str, float] = {}
        refused: list[str] = []
        for domain in sorted(directory.glob("intel-rapl:*")):
            try:
                name = (domain / "name").read_text().strip()
                if not name.startswith("package"):
                    continue
                self._ranges_uj[domain.name] = int((domain / "max_energy_range_uj").read_text())
                self._last_uj[domain.name] = int((domain / "energy_uj").read_text())
            except PermissionError:
                refused.append(str(domain / "energy_uj"))
                continue
            except (OSError, ValueError):
                continue  # gone, or no such counter
            self._files[domain.name] = domain / "energy_uj"
            self._joules[domain.name] = 0.0
            self.identities[domain.name] = Identity("CPU", name, domain.name, "rapl", note=_NOTE)
        if refused:
            self.missing = (
                f"the processor's energy may not be read: {refused[0]} is for root alone, as Linux has it since 5.10; "
                "let the user who measures read it"
            )
        elif not self.identities:
            self.missing = f"this machine shows no energy of its processor (no package in {directory})"

    def read(self) -> Mapping[str, Reading]:
        """Read the counters; one that came to its end began at zero again."""
        readings = {}
        for name, file in self._files.items():
            try:
                now_uj = int(file.read_text())
            except (OSError, ValueError):
                continue
            passed_uj = now_uj - self._last_uj[name]
            if passed_uj < 0:
                passed_uj += self._ranges_uj[name]
            self._last_uj[name] = now_uj
            self._joules[name] += passed_uj / 1e6
            readings[name] = Reading(self._joules[name])
        return readings

    def objection(self, answered: int) -> str:  # noqa: ARG002  # whoever uses it, it is this machine's
        """Object to nothing."""
        return ""

    def close(self) -> None:
        """Do nothing: no file stays open."""
