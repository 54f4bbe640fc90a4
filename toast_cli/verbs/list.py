"""``toast list``: what can be chosen on the command line."""

from pathlib import Path

from toast_cli.errors import Parser, ToastError, did_you_mean
from toast_cli.registry import CONF, options

USAGE = "list [group]"
SUMMARY = "what can be chosen: models, data, translators, probes, experiments"
GROUPS = {
    "models": "model",
    "data": "data",
    "translators": "translator",
    "probes": "probe",
    "protocols": "protocol",
    "sweeps": "sweep",
    "trackers": "tracker",
    "experiments": "experiment",
}


def main(argv: list[str]) -> None:
    """Print the options of config groups, each with its file's first comment. Raises ToastError for unknown ones."""
    parser = Parser(prog="toast list", description="What can be chosen on the command line of toast run.")
    parser.add_argument("group", nargs="?", metavar="{" + "|".join(GROUPS) + "}", help="one group (default: all)")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a folder of your own groups, listed too")
    args = parser.parse_args(argv)
    if args.group is not None and args.group not in GROUPS:
        raise ToastError(
            f"'{args.group}' cannot be listed{did_you_mean(args.group, GROUPS)}: use one of {', '.join(GROUPS)}."
        )
    if args.config_dir is not None and not args.config_dir.is_dir():
        raise ToastError(
            f"--config-dir {args.config_dir} is not a folder: give one that holds groups such as model/ or data/."
        )
    roots = [CONF] if args.config_dir is None else [CONF, args.config_dir]
    for title, group in GROUPS.items():
        if args.group in (None, title):
            _list_group(title, group, roots)


def _list_group(title: str, group: str, roots: list[Path]) -> None:
    from toast_cli.machine.console import visible

    files = options(group, roots)
    print(f"{title} ({group}=...)")
    width = max(map(len, files), default=0)
    for name, path in files.items():
        comments = [
            line.lstrip("# ")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#") and "@package" not in line
        ]
        print(visible(f"  {name:{width}}  {comments[0] if comments else ''}".rstrip()))
    print()
