"""Where the configs lie: in the installed package, or in the checkout."""

from pathlib import Path

from fewshot_runner.errors import UserError

INSTALLED = Path(__file__).parents[1] / "conf"
CHECKOUT = Path(__file__).parents[2] / "conf"


def conf_dir() -> Path:
    """The folder with train.yaml and the config groups."""
    return INSTALLED if INSTALLED.is_dir() else CHECKOUT


def without_config_dir(words: list[str]) -> tuple[list[str], Path | None]:
    """The other words, and the config folder of the user's own that --config-dir (-cd) names."""
    rest, folder, following = [], None, iter(words)
    for word in following:
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            if not (path := value if equals else next(following, "")):
                raise UserError(f"{option}: give a folder of configs, as in --config-dir=my_conf")
            folder = Path(path)
        else:
            rest.append(word)
    if folder is not None and not folder.is_dir():
        raise UserError(f"--config-dir={folder}: there is no such folder")
    return rest, folder
