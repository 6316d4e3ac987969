"""`python -m benchmarks.batch`."""

import typer

from benchmarks.batch.ratios import main

if __name__ == "__main__":
    typer.run(main)
