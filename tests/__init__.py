"""Tests; a package, so that `python -m tests.real_weights` is this one and not another package called tests."""
