"""How the threads of this process wait for one another between the parts of a computation."""

import os

# What a person may have said about it: OpenMP's own name, and those of the libraries that come with torch (GNU's and LLVM's).
_SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_asleep() -> None:
    """Let a thread that waits for others sleep, unless the environment says how threads wait.

    By default it asks again and again for milliseconds. Where another process keeps a core busy, that takes the time of the
    thread that it waits for. OpenMP reads the environment once, when torch loads it: this has to come before.
    """
    if not any(name in os.environ for name in _SAID):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
