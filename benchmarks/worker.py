"""A process that measures workloads and prints one row a line, as JSON; on one thread.

python -m polyad_benchmarks.worker --rounds 41 3 4 5     # by their numbers in WORKLOADS
"""

import argparse
import json
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("numbers", type=int, nargs="+")
    given = parser.parse_args()
    from dataclasses import replace

    from .row import measured
    from .workload import WORKLOADS

    rows, sys.stdout = sys.stdout, sys.stderr  # what frameworks print is not a row
    for number in given.numbers:
        workload = WORKLOADS[number]
        if given.quick:
            workload = replace(workload, budget=workload.budget / 4)
        print(json.dumps([number, measured(workload, given.rounds).json()]), file=rows, flush=True)


if __name__ == "__main__":
    main()
