"""`python -m bench.routing`: the figures of docs/complexity.md; `--half dev --misses` to work on the weights."""

import argparse

from bench.routing.evaluation import HALVES, examples_report, misses, report, weights_table

parser = argparse.ArgumentParser(prog="python -m bench.routing", description="How well requests are sorted by difficulty.")
parser.add_argument("--half", choices=HALVES, default="test", help="weights are fitted on `dev` alone")
parser.add_argument("--misses", action="store_true", help="list what was sorted otherwise than labelled (dev only)")
parser.add_argument("--weights", action="store_true", help="print the table of weights instead")
parser.add_argument("--examples", action="store_true", help="sort the test half by its likeness to the other half instead")
options = parser.parse_args()
if options.misses and options.half != "dev":
    parser.error("whoever looks at the misses of the test half fits to it; use `--half dev --misses`")
if options.weights:
    print(weights_table())
elif options.examples:
    print(examples_report())
else:
    print(report(options.half))
if options.misses:
    print("", *misses(options.half), sep="\n")
