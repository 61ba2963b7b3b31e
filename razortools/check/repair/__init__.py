"""Repair: findings become edits, edits make a new image in an overlay, the new image is judged and then written out."""
