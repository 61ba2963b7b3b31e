"""Blocks kept safe: devices, space, tree, journal, checkpoint, recovery. Knows keys and values, but no file."""
