"""The conformance suite: cases that an adapter must pass, and the adapters that must not.

case.py              what a case is: a question, inputs, and the answer found without polyad
laws.py              adapter laws: two primitives, their adjoint, nesting, batches, threads
arguments.py fields.py   first order: every operator with every kind of arguments
nested.py            derivatives inside losses: strategies, modes, to third order
examples.py          the documented examples 1 to 6; reference.py and reference_fields.py derive them by hand
networks.py          layers and state
refusals.py          errors: what must raise, and with which words
operations/          every differentiable function of the array API, in each of nine modes (modes.py)
groups.py            the groups by name
gaps.py defects.py   what is known not to work, in polyad and in the frameworks
broken.py            adapters that are wrong on purpose, and the cases that must reject each
devices.py           where a case runs
runner.py            a case on a backend: an Outcome (outcome.py)
report/              outcomes as a table, JSON, Markdown and a page
"""
