"""How fast: edits, reading, SAEs and training beside the plain model and beside other libraries, in one process.

`python -m evaluation.benchmark` runs all lines. Models have their published sizes and random weights, so nothing is
downloaded.
"""
