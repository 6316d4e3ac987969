"""Networks that have no maintained package, written here from their papers.

Parameter names are those of the published checkpoints, so that their files load with `strict=True`.
"""
