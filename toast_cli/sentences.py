"""What a user is told about an error: one line that says what was given, what is allowed and what to do."""

import errno
import re
import shutil
from pathlib import Path

from toast_cli.errors import ToastError, causes, did_you_mean, out_of_memory
from toast_cli.registry import CONF, options, settings
from toast_cli.room import in_words, memory


def sentence(error: Exception) -> str | None:
    """The one line about an error that the user can correct; None for any other error, which is a bug in toast."""
    if out_of_memory(error):  # before anything that blames a file or a setting for it
        return f"Memory ran out{shortage(error)}: use a smaller batch_size=, fewer spans= at a time, or another device=; {_KEPT}"
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, ToastError):
            return str(link)
        if isinstance(link, OSError) and link.errno is not None:
            return _file_sentence(link)
        if isinstance(link, UnicodeEncodeError):  # a file's name: streams write such letters out
            return f"The system's encoding, {link.encoding}, has no letter for {link.object[link.start]!a}: set PYTHONUTF8=1; {_KEPT}"
    if str(error).startswith('Could not detect "srun"'):
        return "hydra/launcher=submitit_slurm needs SLURM, and there is no srun here: start it where SLURM is, or use hydra/launcher=submitit_local."
    if _raised_in(error, "hydra._internal.defaults_list"):  # plain ValueErrors and TypeErrors from Hydra
        return "A group of settings was given no name: write model=<name>, data=<name> and so on; see toast list for the names."
    ours = type(error).__name__ == "InstantiationException" and not re.search(
        r"Error locating target|a callable target| argument", str(error)
    )
    if type(error).__module__.startswith(("hydra.", "omegaconf.")) and not ours:
        return _settings_sentence(error)
    return None


def _raised_in(error: Exception, module: str) -> bool:
    """Whether ``error`` is a plain TypeError or ValueError that comes from ``module``."""
    link = error.__traceback__
    while link is not None and link.tb_next is not None:
        link = link.tb_next
    return (
        isinstance(error, TypeError | ValueError) and link is not None and link.tb_frame.f_globals["__name__"] == module
    )


_KEPT = "what is finished is kept, and the same command goes on from there."
_REMEDIES = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EACCES: "change the permissions"}


def shortage(error: BaseException) -> str:
    """What memory was asked for and what there is, in brackets after a blank, as far as that is known."""
    text = " ".join(str(link) for link in causes(error))
    asked = re.search(r"(?:allocate|mmap|malloc of size) ([\d.]+) ?([KMGT]iB)?", text)
    told = [f"{in_words(_bytes(asked[1], asked[2]))} more were asked for"] if asked else []
    if device := re.search(r"total capacity of ([\d.]+) ([KMGT]?i?B)\S* of which ([\d.]+) ([KMGT]iB) is free", text):
        total, free = _bytes(device[1], device[2]), _bytes(device[3], device[4])
        told.append(f"{in_words(free)} of {in_words(total)} are free on the device")
    elif not re.search(r"CUDA|CUBLAS|CUDNN|CUSOLVER|MPS|XPU", text) and (there := memory()):
        told.append(str(there))
    return f" ({'; '.join(told)})" if told else ""


def _bytes(number: str, unit: str | None) -> float:
    """The bytes in a size such as 20.00 MiB, as torch and numpy write it; without a unit they are bytes."""
    return float(number) * 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit or "B")


def _file_sentence(error: OSError) -> str:
    told = [str(error.filename)] if error.filename else []
    if error.filename and error.errno == errno.ENOSPC:
        told.append(f"{in_words(_free(Path(error.filename)))} are free there")
    where = f" ({'; '.join(told)})" if told else ""
    remedy = _REMEDIES.get(error.errno or 0, "check that path")
    return f"{error.strerror}{where}: {remedy}, or give another place with hydra.run.dir=<dir> (for an export: out=<dir>); {_KEPT}"


def _free(path: Path) -> int:
    """Bytes free on the disk of ``path``, which need not exist."""
    place = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(place).free


# What Hydra and OmegaConf say, and what a person is told instead.
_TOLD = (
    (r"Ambiguous value for argument '(\S+?)=(\S+)'", "{0}={1} has several values: write {0}=[{1}] for a list, or toast run -m for a run with each."),
    (r"Error merging override (.+)", "{} is not the kind of value that this setting takes: see toast run --help for what it looks like."),
    (r"ToastError raised while resolving interpolation: (.+)", "{}."),
    (r"Key '(\w+)' is not in struct", "{} is missing: do not remove it; toast run --help shows its default."),
    (
        r".*Could not find 'hydra/launcher/(.+?)'",
        "hydra/launcher={} is not available: joblib, submitit_local and submitit_slurm come with pip install toast-cli[launchers], and basic is "
        "always available.",
    ),
    (
        r".*call to target '(.+?)': TypeError\(.(\S+)\(\) got an unexpected keyword argument '(\w+)'",
        "_target_={} cannot be made: {}() takes no {}; toast run --help lists the settings.",
    ),
    (
        r"Error locating target '(.+?)'",
        "_target_={} cannot be imported: write <module>.<class>, and name the folder of the module, such as PYTHONPATH=.",
    ),
    (r"Additional config directory '(.+)' not found", "--config-dir {} is not a folder: give one that holds groups such as model/ or data/."),
    (r".*Missing mandatory value: ([\w.]+)", "{0} is missing: give {0}=<value>, see toast run --help for what it means."),
)  # fmt: skip


def _settings_sentence(error: Exception) -> str:
    """An error of Hydra or OmegaConf, which takes several lines, in one line."""
    if (word := getattr(error, "override", None)) is not None and type(error).__name__ == "OverrideParseException":
        return _unread(str(word))
    lines = [re.sub(r"\s+", " ", line).strip() for line in str(error).splitlines()]
    lines = [
        line for line in lines if line and not line.startswith(("full_key", "object_type", "See https", "Set the env"))
    ]
    text = re.sub(r"Config search path:.*|,? set env var HYDRA_FULL_ERROR.*", "", " ".join(lines)).strip().rstrip(".")
    if unknown := re.match(r"Could not override '(\S+?)'.*\+\1(=.*|$)", text):
        return _unknown_setting(*unknown.groups())
    for pattern, told in _TOLD:
        if found := re.match(pattern, text):
            return told.format(*found.groups())
    if missing := re.search(r"Could not find '(\w+)/(.*?)'", text):
        group, name = missing.groups()
        offered = sorted(options(group, [CONF]))
        return f"{group}={name} does not exist{did_you_mean(name, offered)}: use one of {', '.join(offered)}, or --config-dir <dir> with your own."
    return f"{text}. See toast run --help for the settings and toast list for the options."


def _unread(word: str) -> str:
    if "=" not in word:
        return f"{word} has no value: settings are written key=value, such as spans=all; see toast run --help."
    return f"{word} cannot be read: close its brackets and quotes, and put text with other signs in quotes of its own, such as \"key='a (b)'\"."


def _unknown_setting(key: str, value: str) -> str:
    known = settings()
    if key not in known:
        return f"{key} is not a setting{did_you_mean(key, known)}: toast run --help lists them, and +{key}{value} would add one."
    if value.startswith("={"):
        return f"{key}{value} has a key that {key} does not have yet: write +{key}{value} to add it."
    group, _, name = key.partition(".")
    if having := [
        option for option, path in options(group, [CONF]).items() if f"\n{name}:" in path.read_text(encoding="utf-8")
    ]:
        return f"{key} is a setting of {group}={' and '.join(having)}: choose that too, or leave it out."
    return f"{key} is a setting of other verbs, not of this one: leave it out, or see toast <verb> --help."
