"""What may be turned off: fast ways of computing the same."""


class FastPaths:
    """A module that has some; `Hardware` sets them."""

    fuse: bool = True  # layers as one, in training; see conv_block.py
    fold: bool = True  # batch norm into the convolution, in evaluation; see conv_block.py
    side_by_side: bool = True  # tasks at the same time; see methods/side_by_side.py
