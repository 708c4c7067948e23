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
    return rest, None if folder is None else own_configs(folder)


def own_configs(folder: Path) -> Path:
    """A config folder of the user's own.

    Raises `UserError` where there is none, and for a config that has the name of one of fsl's: Hydra would take that.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of configs")
    for path in sorted(folder.rglob("*.yaml")):
        ours = conf_dir() / path.relative_to(folder)
        if ours.is_file() and not ours.samefile(path):
            raise UserError(f"{path}: fsl's own of this name would be taken; give yours another name")
    return folder
