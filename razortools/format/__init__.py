"""The on-disk format: what the bytes mean. Pure: no I/O, no state."""
