"""How fast batch work is, what it costs at any size, and whether it lasts."""
