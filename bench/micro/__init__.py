"""What each layer costs by itself, with pytest-benchmark: few figures, chosen to tell where the time of a request goes."""
