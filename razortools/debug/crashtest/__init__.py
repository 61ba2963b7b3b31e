"""The crash explorer: workloads, every power cut that may hit them, and the proof that what is left is what was promised."""
