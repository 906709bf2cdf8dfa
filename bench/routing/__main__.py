"""`python -m bench.routing`: the figures of docs/complexity.md; `--half dev --misses` to work on the weights."""

import argparse

from bench.routing.evaluation import HALVES, misses, report, weights_table

parser = argparse.ArgumentParser(prog="python -m bench.routing", description="How well requests are sorted by difficulty.")
parser.add_argument("--half", choices=HALVES, default="test", help="weights are fitted on `dev` alone")
parser.add_argument("--misses", action="store_true", help="list what was sorted otherwise than labelled (dev only)")
parser.add_argument("--weights", action="store_true", help="print the table of weights instead")
options = parser.parse_args()
if options.misses and options.half != "dev":
    parser.error("whoever looks at the misses of the test half fits to it; use `--half dev --misses`")
print(weights_table() if options.weights else report(options.half))
if options.misses:
    print("", *misses(options.half), sep="\n")
