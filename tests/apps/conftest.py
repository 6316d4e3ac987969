"""All tests of commands call `steer` as a function."""

from tests.steer_command import steer  # noqa: F401 - fixture
