"""Editing sound files: goals that are measured on the file, chunks, what of the input is kept, the limiter."""
