"""The mounted volume: FUSE requests in, engine calls out. The only package that knows pyfuse3 and trio."""
