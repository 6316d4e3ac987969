"""Batch work: many files through one task, in this process, in several, or on a Dask cluster; nothing is done twice."""
