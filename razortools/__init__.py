"""razortools: the RAZORFS filesystem in one image, and the tools that operate it."""

__version__ = "0.1.0"
