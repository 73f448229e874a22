"""What was measured: samples by work, figure and supervisor, as they go into a file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What a series of samples is of."""

    work: str
    figure: str
    """With its unit in brackets, if it is not a count."""
    peer: str
    agents: int


@dataclass
class Results:
    """Samples, in the order in which the first of each kind came."""

    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    configured: dict[str, str] = field(default_factory=dict)
    samples: dict[Key, list[float]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a supervisor has no figure of some work, by work and supervisor."""
    targets: list[dict[str, Any]] = field(default_factory=list)
    """Figures that have a target of their own; see `bench.figures.Figure`."""

    def add(self, key: Key, *values: float) -> None:
        """Add samples of a kind."""
        self.samples.setdefault(key, []).extend(values)

    def median(self, key: Key) -> float | None:
        """Return the median of a kind, None where nothing was measured."""
        values = self.samples.get(key)
        return median(values) if values else None

    def total(self, work: str, figure: str, peer: str) -> float:
        """Return the sum of all samples, whatever the number of agents."""
        kinds = (
            key for key in self.samples if (key.work, key.figure, key.peer) == (work, figure, peer)
        )
        return sum(sum(self.samples[key]) for key in kinds)

    def save(self, path: Path) -> None:
        """Write all of it as JSON, a line for each kind of sample."""
        samples = [
            {**key._asdict(), "values": [float(f"{value:.5g}") for value in values]}
            for key, values in self.samples.items()
        ]
        reasons = [
            {"work": work, "peer": peer, "reason": reason}
            for (work, peer), reason in self.reasons.items()
        ]
        whole = {**vars(self), "samples": samples, "reasons": reasons}
        path.write_text(json.dumps(whole).replace('{"work"', '\n{"work"') + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Return what was saved."""
        whole = json.loads(path.read_text())
        samples = {
            Key(one["work"], one["figure"], one["peer"], one["agents"]): one["values"]
            for one in whole.pop("samples")
        }
        reasons = {(one["work"], one["peer"]): one["reason"] for one in whole.pop("reasons")}
        return cls(samples=samples, reasons=reasons, **whole)
