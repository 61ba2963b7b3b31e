"""A copy of an image for bug reports: its structures as they are, names and contents replaced."""
