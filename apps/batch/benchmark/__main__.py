"""`python -m apps.batch.benchmark`."""

import typer

from apps.batch.benchmark.ratios import main

if __name__ == "__main__":
    typer.run(main)
