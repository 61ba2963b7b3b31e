"""Incidents an operator meets: what is seen, typed and got. One declaration makes the document and is the test."""
