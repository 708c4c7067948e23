"""A disk that takes no more, which is no defect of ours."""

import errno

TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def no_room(error: BaseException) -> str | None:
    """What to tell the user where `error` says that a disk is full, past a quota or read-only; None otherwise."""
    if not isinstance(error, OSError) or error.errno not in TAKES_NO_MORE:
        return None
    where = f"{error.filename}: " if error.filename else ""
    remedy = "make room there, or choose another folder; a run that was under way goes on with fsl resume RUN"
    return f"{where}{error.strerror}; {remedy}"
