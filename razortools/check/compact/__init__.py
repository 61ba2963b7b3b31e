"""Compaction: the same files in fewer nodes and fewer pieces, written like a repair and taken back like one."""
