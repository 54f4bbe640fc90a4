"""Name the figures and files of a report after what they show, with the settings that differ within it."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from toast_cli.folders import as_utf8
from toast_cli.report.findings import Finding

_T = TypeVar("_T")
_LONGEST = 200  # bytes; file systems take 255, and a file has a longer name while it is written


def name_of(*words: object) -> str:
    """A file name without a suffix. One that is too long ends in its hash."""
    name = "-".join(re.sub(r"[^\w.+-]+", "_", str(word)) for word in words if str(word))
    if len(name.encode()) <= _LONGEST:
        return name
    kept = name.encode()[:_LONGEST].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def folder_of(runs: Sequence[Path]) -> str:
    """A folder's name for some runs: that of the first one, how many more, and a hash of where all of them are."""
    places = sorted(str(run.resolve()) for run in runs)
    more = [f"and-{len(runs) - 1}-more"] if len(runs) > 1 else []
    digest = hashlib.sha256(os.fsencode("\n".join(places))).hexdigest()[:8]
    return f"{name_of(as_utf8(runs[0].resolve().name), *more)}-{digest}"


def grouped(findings: Iterable[_T], *names: str) -> list[tuple[tuple, list[_T]]]:
    """The findings with equal values of ``names``, by these values."""

    def key(f: _T) -> tuple:
        return tuple(getattr(f, name) for name in names)

    return [(values, list(group)) for values, group in groupby(sorted(findings, key=key), key)]


def told_apart(findings: Sequence[Finding], key: tuple) -> str:
    """Model and data, with the other settings that differ between findings."""
    model, data, *rest = key
    names = {"probe": "{} probe", "readout": "{} readout", "protocol": "{} protocol", "precision": "{}"}
    varied = [
        text.format(value)
        for (name, text), value in zip(names.items(), rest, strict=True)
        if len({getattr(f, name) for f in findings}) > 1
    ]
    return ", ".join([f"{model} on {data}", *varied])


def map_name(finding: Finding, group: Sequence[Finding]) -> str:
    """The translator, with its tokens and solver if these differ within the group."""
    fitted = [f for f in group if f.translator == finding.translator]
    told = [str(getattr(finding, name)) for name in ("tokens", "solver") if len({getattr(f, name) for f in fitted}) > 1]
    return " ".join([finding.translator, *told, *_kind(finding)])


def _kind(finding: Finding) -> list[str]:
    return ["healed"] if finding.healed else ["sequential"] if finding.sequential else []


def with_differences(rows: Sequence[Any], names: Sequence[str], values: Sequence[object]) -> str:
    """The first of ``values``, with the others that differ between ``rows``."""
    varied = [
        str(value)
        for name, value in zip(names[1:], values[1:], strict=True)
        if len({getattr(row, name) for row in rows}) > 1
    ]
    return ", ".join([str(values[0]), *varied])
