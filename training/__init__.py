"""Scripts that made the starter models: `python -m training.NAME`. Not part of the wheel."""
