"""polyad_benchmarks: time and memory of polyad against what people write by hand with each framework.

problem.py     a network, its parameters and points: the same numbers for everybody
quantities.py  the derivatives in the losses, as a user of polyad writes them
ways/          the same by each framework alone, in every way that is known; a file a framework
workload.py    which of them at which sizes: one Workload is one row of the table
measure.py     CPU seconds of candidates in random order, and what follows from them
memory.py      bytes at the highest point of one call
row.py         one Workload, checked and measured: a Row
worker.py      a process that measures rows and prints them, one thread
runner.py      the processes, one after the other
report.py      all rows of a run and what they were measured on; JSON
table.py       the report as Markdown
plots.py       the report as small multiples

Scripts of their own are laplacian.py, layers.py and nested.py; docs/ says what they show.
"""
