"""The documented examples as cases that every backend must pass.

reference.py   losses and their gradients, by hand and by complex steps, without polyad
cases.py       the examples as data
broken.py      adapters that are wrong on purpose, which the runner must reject
modes.py       how passes are put inside each other, by name
operations/    every differentiable function of the array API, in each mode
runner.py      one case on one backend in one precision: a Result
report.py      all results as a table or as JSON
"""
