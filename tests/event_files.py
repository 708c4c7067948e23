"""Files of events of several sessions, as TensorBoard reads them."""

import time


def begin_another_second() -> None:
    """They are read in the order of their names, which tell the second and then process and number without zeros."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.02)
