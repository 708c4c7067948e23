"""What goes wrong on the user's side, as opposed to a defect of ours."""


class UserError(ValueError):
    """A mistake that its message lets the user mend: what was given, why it is refused, what to do instead.

    The command line prints the message without a traceback and exits with code 2.
    """


class Absent(UserError):
    """Data are missing; damaged ones are a plain `UserError`."""


class RunFailed(Exception):
    """A run ended before its results, by no mistake of the user's and no defect of ours; `exit_code` says how."""

    exit_code: int
