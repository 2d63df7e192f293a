"""`python -m benchmarks`: measure, print, write. `--help` lists the options."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import report
from .cases import ALL, CASES, TINY, Case
from .contestants import CONTESTANTS, MODELS, Contestant, disagreement, entering
from .machine import describe
from .memory import measure_memory
from .timing import measure_time

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-4
REPEATS, MEMORY_REPEATS = 7, 3


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the benchmark; the path of the Markdown page is returned."""
    options = read_options(arguments)
    cases = [ALL[name] for name in options.cases]
    load = round(os.getloadavg()[0], 2)  # what else the machine was doing
    differences = check_agreement(options.device) if compares(options.contestants) else {}
    rows = []
    for dtype in options.dtype:
        for case in cases:
            rows += measure(case, dtype, options)
    report.show(rows)
    run = {
        "date": datetime.date.today().isoformat(),
        "load_before": load,
        "rounds": options.repeats,
        "memory_processes": options.memory_repeats,
        "dense_against_heedmap": differences,
    }
    name = f"{run['date']}-{options.device}" + ("-quick" if options.quick else "")
    path = report.write(options.out, name, rows, run, describe(options.device))
    print(f"Written: {path} and {path.with_suffix('.json').name}")
    return path


def measure(case: Case, dtype_name: str, options: argparse.Namespace) -> list[report.Figure]:
    """All contestants on one case: memory first, because it tells who fits."""
    dtype = getattr(torch, dtype_name)
    contestants = entering(case, options.contestants)
    peaks = {}
    for contestant in contestants if options.memory_repeats and case.kind != "command" else ():
        if not contestant.control:
            say(f"{case.name} {dtype_name}: memory of {contestant.name}")
            peaks[contestant.name] = repeat_memory(case, contestant, dtype, options)
    fitting = [c for c in contestants if peaks.get(c.name, ()) is not None]
    seconds = {}
    if options.repeats:
        say(f"{case.name} {dtype_name}: time of {len(fitting)} contestants, {options.repeats} rounds")
        seconds = measure_time(case, fitting, options.device, dtype, options.repeats)
    order = {c.name: i for i, c in enumerate(contestants)}
    rows = report.figures(case.name, dtype_name, seconds, peaks)
    return sorted(rows, key=lambda figure: order[figure.contestant])


def repeat_memory(
    case: Case, contestant: Contestant, dtype: torch.dtype, options: argparse.Namespace
) -> list[int] | None:
    """Several processes, one after the other; one that does not fit is enough."""
    found = []
    for _ in range(1 if contestant.slow else options.memory_repeats):
        count = measure_memory(case, contestant, options.device, dtype)
        if count is None:
            return None
        found.append(count)
    return found


def compares(names: Sequence[str] | None) -> bool:
    return names is None or any(name.startswith(("heedmap", "method")) for name in names)


def check_agreement(device: str) -> dict[str, float]:
    """Two contestants that compute different things must not be compared: on the tiny cases they agree."""
    differences = {case.name: disagreement(case, device) for case in TINY.values() if case.kind in MODELS}
    for name, difference in differences.items():
        say(f"{name}: the dense way's map differs from heedmap's by {difference:.1e} of its largest entry")
        if not difference <= TOLERANCE:
            sys.exit(
                f"The maps differ by {difference:.1e} on {name}, expected {TOLERANCE:.0e} at most: "
                "nothing was measured."
            )
    return differences


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    for option, table in (("--cases", ALL), ("--contestants", CONTESTANTS)):
        parser.add_argument(option, nargs="+", choices=table, metavar="NAME", help=", ".join(table))
    parser.add_argument("--quick", action="store_true", help="small cases, fewest repeats: only a look")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument(
        "--dtype", nargs="+", choices=("float32", "bfloat16"), help="default: float32, on cuda bfloat16 too"
    )
    parser.add_argument("--repeats", type=int, help=f"rounds of the clock, 0: none (default {REPEATS})")
    parser.add_argument("--memory-repeats", type=int, help=f"processes, 0: none (default {MEMORY_REPEATS})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args(arguments)
    usual = [case.name for case in CASES.values() if (case.small if options.quick else not case.long)]
    options.cases = options.cases or usual
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.dtype = options.dtype or (["float32", "bfloat16"] if options.device == "cuda" else ["float32"])
    if options.repeats is None:
        options.repeats = 2 if options.quick else REPEATS
    if options.memory_repeats is None:
        options.memory_repeats = 1 if options.quick else MEMORY_REPEATS
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
