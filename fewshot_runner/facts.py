"""What a model or a method must know of the data before it can be built."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """Learnt from the data and the episode, never written into a config: it reaches every constructor as it is.

    `image_shape` is (channels, height, width) as the network sees them; `n_classes` counts the training classes,
    symmetries included; `n_way` is the number of ways of the episodes that the run is judged on.
    """

    image_shape: tuple[int, int, int]
    n_classes: int
    n_way: int
