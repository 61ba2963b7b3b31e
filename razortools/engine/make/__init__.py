"""Making an image, from the place that is to hold it to the finished, filled filesystem: what mkfs.razorfs does."""
