"""What the commands share: options, exit codes, and the words that people read."""
