"""The commands of `steer`: one file for each, or for several that share their options."""
