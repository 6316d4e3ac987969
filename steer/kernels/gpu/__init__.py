"""Kernels in Triton, which is imported with them."""
