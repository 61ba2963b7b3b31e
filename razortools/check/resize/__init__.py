"""Resizing: the same files in an image of another size."""
