"""What a run was made with, as its folder records it."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from toast_cli import __version__
from toast_cli.runs.folder import RunFolder


def note_versions(folder: RunFolder) -> None:
    """Record the versions in use; a run that was resumed under other versions lists both."""
    before, now = folder.record.get("versions", []), _versions()
    folder.note(versions=[*before, now] if now not in before else before)


def _versions() -> dict[str, str | None]:
    packages = ("torch", "timm", "datasets", "numpy", "pillow")
    ours = {"toast": __version__, "commit": _commit(), "python": platform.python_version()}
    return ours | {name: version(name) for name in packages}


def _commit() -> str | None:
    """The checkout's commit; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
