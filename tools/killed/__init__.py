"""Loops of load, kill -9 and verdict: what the workers do, what they intend, what may be there afterwards."""
