"""Python's garbage collector, told what a mounted volume is like.

What the engine keeps is freed by counting references. Its inodes, dirty records, nodes and tuples refer downwards only: none of
them is part of a cycle, and what does refer to each other (a volume and its tables) lives as long as the process. The collector,
as it comes, looks at 700 new objects at a time, moves them up twice, and from time to time looks at all there are: tens of
milliseconds for some ten thousand files, in the middle of a request, to find nothing. It stays on, for the event loop and
exceptions do make cycles, but it looks less often: at new objects by the thousand, and at all objects only when millions have
come. A cycle that nobody refers to any more is found at the second look or, if it grew old before, at the full one.
"""

import gc

YOUNG_OBJECTS = 3_000  # a look at these takes a millisecond or two if they are not in the processor's cache
MIDDLE_ROUNDS = 5
FULL_ROUNDS = 1000  # 15 million objects more than were freed


def calm() -> None:
    """For the start of a long run, when everything is imported and open: never look at what is there already, seldom at all.

    For the whole process. Nothing that exists now is examined again; what of it nobody refers to any more is freed all the same.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_ROUNDS, FULL_ROUNDS)
