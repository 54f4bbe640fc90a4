"""How long encoding takes beside a neighbour: another process that keeps half of the cores busy.

    python scripts/bench_neighbour.py
    python scripts/bench_neighbour.py model=vit_s model.pretrained=false --images 4

Takes the settings of `toast run` for the model, its translator and the spans. Two processes encode the same images through all
plans, in turn: in one, all threads share every product and wait for each other as OpenMP has it by default; in the other each
computes its own images, as in toast's command. Each is timed alone, then beside busy loops, several rounds long. Prints medians,
and of the ratios of the times in each round too; writes them as <out>/neighbour.csv.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

WAYS = ("shared", "apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of toast run: model=... translator=... spans=...")
    parser.add_argument("--images", type=int, default=128, help="encoded at a time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_neighbour"), help="where the CSV file goes")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # what the processes are started with
    args = parser.parse_args()
    if args.way:
        encode_when_asked(args.way, args.overrides, args.images)
        return
    rows = compare([*args.overrides, "--images", str(args.images)], args.rounds)
    lines = [
        ",".join(rows[0]),
        *(",".join(f"{value:.4g}" if value == value else "" for value in row.values()) for row in rows),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "neighbour.csv").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def compare(words: list[str], rounds: int) -> list[dict]:
    """A row for the machine alone and one beside a neighbour: seconds in both ways, and their ratios."""
    loops = max(1, (os.cpu_count() or 1) // 2)
    took: dict[tuple[int, str], list[float]] = {(busy, way): [] for busy in (0, loops) for way in WAYS}
    with ExitStack() as stack:
        processes = {way: stack.enter_context(encoding(way, words)) for way in WAYS}
        for way in WAYS:
            seconds(processes[way])  # the first has no memory yet
        for _ in range(rounds):
            for busy in (0, loops):
                with neighbours(busy):
                    for way in WAYS:
                        took[busy, way].append(seconds(processes[way]))
    return [row_of(took, busy) for busy in (0, loops)]


def row_of(took: dict[tuple[int, str], list[float]], busy: int) -> dict:
    shared, apart = (took[busy, way] for way in WAYS)
    ratio = statistics.median(one / other for one, other in zip(apart, shared, strict=True))
    alone = {
        way: statistics.median(one / other for one, other in zip(took[busy, way], took[0, way], strict=True))
        for way in WAYS
    }
    return {"busy_loops": busy, "cores": os.cpu_count() or 0, "shared_s": statistics.median(shared), "apart_s": statistics.median(apart),
            "apart_to_shared": ratio, "shared_to_alone": alone["shared"], "apart_to_alone": alone["apart"]}  # fmt: skip


@contextmanager
def encoding(way: str, words: list[str]) -> Iterator[subprocess.Popen]:
    """A process that encodes once for each line that it is sent."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    }
    command = [sys.executable, __file__, *words, "--way", way]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        child.communicate()  # no more lines: it ends


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that do nothing but keep a core busy each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.2)
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds(child: subprocess.Popen) -> float:
    """How long the process takes to encode once."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def encode_when_asked(way: str, overrides: list[str], images: int) -> None:
    """What one of the processes does: encode for each line of its input, and print the seconds."""
    if way == "apart":
        from toast_cli.machine.threads import wait_briefly

        wait_briefly()
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from toast_cli.plans import parse_plans
    from toast_cli.registry import CONF
    from toast_cli.runs.naming import register_resolvers
    from toast_cli.stages.settings import plain
    from toast_cli.stages.walk import Encoder
    from toast_cli.translators.by_token import example

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides)
    backbone, translator = (instantiate(cfg[name], _convert_="all") for name in ("model", "translator"))
    plans = parse_plans(plain(cfg.spans), backbone.depth)
    spans = {span for plan in plans for span in plan.spans}
    maps = {span: example(translator, backbone.width, backbone.prefix_tokens, backbone.tokens) for span in spans}
    encoder, pixels = Encoder(backbone, plans, maps), torch.zeros(images, *backbone.image_shape, dtype=torch.uint8)
    encode = encoder if way == "apart" else encoder.encode
    for _ in sys.stdin:
        begun = time.perf_counter()
        encode(pixels)
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()
