"""Filling a volume from outside: a host directory, a tarball, or a tar on standard input."""
