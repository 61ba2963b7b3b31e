"""Values of labels in Prometheus' text format, which is UTF-8: names of files are bytes, and need not be."""


def label_value(name: str) -> str:
    r"""Return *name* with what UTF-8 cannot hold written out: of a byte 0xff, "\udcff" for os.fsdecode, six letters."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
