"""What a machine has too little of, which is no defect of ours: a disk that takes no more, and memory."""

import errno

TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")  # torch's words


def shortage(error: BaseException) -> str | None:
    """What to tell the user where `error` says that disk or memory is short; None otherwise."""
    if isinstance(error, OSError) and error.errno in TAKES_NO_MORE:
        where = f"{error.filename}: " if error.filename else ""
        remedy = "make room there, or choose another folder; a run that was under way goes on with fsl resume RUN"
        return f"{where}{error.strerror}; {remedy}"
    told = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in told for word in NO_MEMORY)):
        return (
            "not enough memory; let the network see fewer or smaller images at once (method.sampler, "
            "dataset.image_size), or store less of each number (hardware.precision=bfloat16)"
        )
    return None
