"""What a machine has too little of, which is no defect of ours: a disk that takes no more, and memory."""

import errno

TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


def shortage(error: BaseException) -> str | None:
    """What to tell the user where `error` says that disk or memory is short; None otherwise."""
    if isinstance(error, OSError) and error.errno in TAKES_NO_MORE:
        where = f"{error.filename}: " if error.filename else ""
        remedy = "make room there, or choose another folder; a run that was under way goes on with fsl resume RUN"
        return f"{where}{error.strerror}; {remedy}"
    told = str(error)
    of_torch = isinstance(error, RuntimeError) and any(word in told.lower() for word in NO_MEMORY)
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or of_torch or of_system:
        said = f" ({told.splitlines()[0]})" if told else ""
        return (
            f"not enough memory{said}; end other programs, or let the network see fewer or smaller images at once "
            "(in training: the keys of method.sampler, dataset.image_size, or hardware.precision=bfloat16)"
        )
    return None
