"""Memory that a step has freed stays with the process, for the next step.

A step of training asks for maps of many megabytes and frees them again. The C library gives such blocks back to the
system at once and gets them anew, page by page and filled with zeros: a third of the time of a step on a CPU. Kept,
they cost what the largest step needs for as long as the process runs, which is what its peak was anyway; the first
steps may take a little more, until small objects that stay no longer lie between freed blocks. Large pages do the rest:
the processor finds its way to 2 MB at a time instead of 4 KB.

glibc alone has these settings; elsewhere nothing changes.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Whether the C library took the settings. Torch reads the one on large pages when it first makes a tensor."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
