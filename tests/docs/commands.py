"""The commands that the pages show: found, and told whether a test can run them to their end."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "RELIABILITY.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
_HUB_MODELS = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} - {"digits_vit"}
_HUB_DATA = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")} - {"digits", "digits_inverted", "folder"}


@dataclass(frozen=True)
class Command:
    """One ``$`` line of a page: its words, and the comment after them."""

    page: Path
    line: str

    def __str__(self) -> str:
        return self.line

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)

    @property
    def toast(self) -> list[str] | None:
        """The words after ``toast``, or after what starts it; None for another program."""
        words = self.words[2:] if self.words[:2] == ["uv", "run"] else self.words
        if words[:1] == ["torchrun"]:
            return words[words.index("toast_cli") + 1 :]
        return words[1:] if words[:1] == ["toast"] else None

    @property
    def to_its_end(self) -> bool:
        """Whether it needs neither the hub, nor other people's weights or images, nor a minute or more."""
        values = {word.partition("=")[0]: word.partition("=")[2].split(",") for word in self.toast or []}
        random_weights = values.get("model.pretrained") == ["false"]
        hub = {*values.get("data", []), *values.get("fit_data", [])} & _HUB_DATA
        hub |= set() if random_weights else {*values.get("model", [])} & _HUB_MODELS
        paper = any(name.startswith("paper/") for name in values.get("experiment", []))
        return not hub and not paper and not re.search(r"\((a minute|minutes|hours)\)", self.line)


def commands_of(page: Path) -> list[Command]:
    """All of a page, in its order."""
    return [Command(page, line) for line in re.findall(r"^\$ (.+)$", page.read_text(), re.MULTILINE)]


def inline_of(page: Path) -> list[Command]:
    """The whole commands in a page's running text and tables, without those that leave something out."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"`(toast (?:run|search|similarity|finetune|bench) [^`]*)`", prose)
    return [Command(page, line) for line in dict.fromkeys(found) if not re.search(r"[…<]|--help", line)]
