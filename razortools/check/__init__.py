"""The check: distrusts the image and judges it. Uses format and engine/store, never the live engine."""
