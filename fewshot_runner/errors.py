"""What goes wrong on the user's side, as opposed to a defect of ours."""


class UserError(ValueError):
    """A mistake that its message lets the user mend: what was given, why it is refused, what to do instead.

    The command line prints the message without a traceback and exits with code 2.
    """
