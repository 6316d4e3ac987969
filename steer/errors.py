"""Errors of SAEs, edits, recipes and training; all are `AudioSteerError`s."""

from hooks.errors import AudioSteerError


class SAEError(AudioSteerError):
    """An SAE that cannot be read, does not fit its site, or whose file cannot be trusted."""


class EditError(AudioSteerError):
    """An edit that names a feature that is not there, or a value that makes no sense."""


class RecipeError(AudioSteerError):
    """A recipe that cannot be read or does not say what to do."""


class TrainingError(AudioSteerError):
    """A training that cannot start or go on."""


class ProbeError(AudioSteerError):
    """A probe that cannot be fitted or read, or a class that it does not know."""
