"""Every model class of transformers that a tiny configuration can build: explained, and held against an oracle.

`python -m sweep` builds each class with random weights in a process of its own, explains one number of its output, and
compares what flowed with dense matrices on eager attention. docs/sweep.md is what it writes.

`finding.py` which classes, `configuring.py` and `exceptions.py` how they are made tiny, `feeding.py` what goes in,
`asking.py` which number is explained, `oracle.py` the truth, from the `calls.py` that `attending.py` and `sampling.py`
see and from `places.py`, `comparing.py` how far apart the two are, `trying.py` one class from start to end, `pool.py` a
process for each, `declaring.py` and `refusals.py` what is said of those refused, `report.py` the page, `__main__.py`
the order of it all.
"""
