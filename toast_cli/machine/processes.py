"""Whether work can be shared by the processes that were started for it."""

import os

from toast_cli.errors import ToastError


def check_processes(config: str, argv: list[str]) -> None:
    """Raises ToastError if several processes were started for work that only one can do."""
    size, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK")
    if not size.isdecimal() or int(size) == 0:
        raise ToastError(
            f"WORLD_SIZE={size} is not a number of processes: unset it, or start the processes with torchrun."
        )
    if int(size) == 1 or rank is None:
        return
    if config != "config":
        raise ToastError(
            f"{os.environ['WORLD_SIZE']} processes were started, but only toast run can share its work between them: start one, or unset WORLD_SIZE."
        )
    if {"-m", "--multirun"} & set(argv):
        raise ToastError(
            "Several processes can share one run, but not a multirun: leave out -m, or start the multirun without torchrun."
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing or not rank.isdecimal() or int(rank) >= int(size):
        why = f"{missing[0]} is not" if missing else f"RANK={rank} is none of them"
        raise ToastError(
            f"WORLD_SIZE={size} and RANK are set, as for one of {size} processes, but {why}: unset both, or start the processes with torchrun."
        )
