"""The mount beside its peers: the same work, through the kernel, on other filesystems of the same machine in the same run."""
