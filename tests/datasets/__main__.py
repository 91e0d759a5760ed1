"""Show the data set of a seed, and what the tap makes of it: `python -m tests.datasets SEED`."""

from __future__ import annotations

import argparse

from tests.datasets.case import case, judge, reduced
from tests.unit.test_tap_differential import tapped


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.datasets", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--reduce", action="store_true", help="only what its failure needs")
    options = parser.parse_args()
    one = case(options.seed)
    if options.reduce and judge(one, tapped).problems:
        one = reduced(one, tapped)
    verdict = judge(one, tapped)
    print(one.describe([*verdict.problems, str(verdict.outcome)]))


main()
