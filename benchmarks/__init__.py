"""How fast: edits, reading, SAEs and training beside the plain model and beside other libraries, in one process.

`python -m benchmarks` runs all lines. Models have their published sizes and random weights, so nothing is
downloaded.
"""
