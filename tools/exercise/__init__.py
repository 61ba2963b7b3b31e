"""An exerciser of file contents: random operations on a mount, compared with files that are byte arrays in memory."""
