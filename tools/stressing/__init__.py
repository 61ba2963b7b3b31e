"""A mixed stress of a mount by many processes: what a client does, what it may find, how the daemon fares meanwhile."""
