"""What can go wrong with the page."""

from hooks.errors import AudioSteerError


class PageError(AudioSteerError):
    """The page cannot be opened: a port that is taken, a host that is not here, a network that cannot be reached."""
