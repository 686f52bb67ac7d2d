"""What an audit finds: one value per fault, and which faults count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One fault of a package.

    Attributes:
        rule: short name of the rule.
        severity: "error": some consumer writes wrong pixels, or fails, without being told the size
            is bad; "warning": some consumer refuses what the package promises, or cannot load it;
            "note": worth knowing, not a fault.
        axis: "output.y", "" for the whole package.
        declared, measured: the two sides, as text; "" where there is none.
        message: one sentence of what happens.
        hint: what to do.
    """

    rule: str
    severity: Severity
    axis: str
    declared: str
    measured: str
    message: str
    hint: str


def is_fault(finding: Finding) -> bool:
    """Errors and warnings make an audit end with 1; notes do not."""
    return finding.severity != "note"


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without repetitions, errors first, otherwise in the order found."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: ORDER.index(f.severity)))
