"""The page that `steer demo` opens."""
