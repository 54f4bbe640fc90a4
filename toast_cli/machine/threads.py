"""How long the threads of this process stay awake while they wait for one another."""

import os

# What a person may have said about it: OpenMP's own name, and those of the libraries that come with torch (GNU's and LLVM's).
_SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_TURNS = 1000  # of the loop in which a thread waits, about 20 µs: as long as it takes to call the next product


def wait_briefly() -> None:
    """Let a thread that waits for others fall asleep soon, unless the environment says how threads wait.

    GNU's OpenMP, which torch brings along on Linux, lets it ask 300 000 times first. Where another process keeps a core busy, that
    takes the time of the very thread that it waits for; to sleep at once would cost the time of waking up at every product.
    It reads the environment once, when torch loads it: this has to come before.
    """
    if not any(name in os.environ for name in _SAID):
        os.environ["GOMP_SPINCOUNT"] = str(_TURNS)
