"""The live filesystem: synchronous, deterministic, on top of the store; it knows no FUSE, no terminal and no event loop."""
