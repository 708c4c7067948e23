"""Where the configs lie: in the installed package, or in the checkout."""

from pathlib import Path

INSTALLED = Path(__file__).parents[1] / "conf"
CHECKOUT = Path(__file__).parents[2] / "conf"


def conf_dir() -> Path:
    """The folder with train.yaml and the config groups."""
    return INSTALLED if INSTALLED.is_dir() else CHECKOUT
