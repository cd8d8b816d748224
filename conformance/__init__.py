"""The documented examples as cases that every backend must pass.

reference.py   losses and their gradients, by hand and by complex steps, without polyad
cases.py       the examples as data
broken.py      adapters that are wrong on purpose, which the runner must reject
runner.py      one case on one backend in one precision: a Result
outcome.py     a cell of the matrix of cases by backends
seam.py        all cells, one after the other
report/        all outcomes as a table, JSON, Markdown and a page
test_conformance.py  the same as tests, for pytest --pyargs
"""
