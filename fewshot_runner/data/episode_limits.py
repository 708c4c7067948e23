"""Which episodes the classes of a table can fill.

Counts alone decide it, so a run can refuse an impossible test before it trains.
"""

import numpy as np

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.errors import UserError

MOST_QUERIES = 4  # of one class, in even shares, where queries are imbalanced
COUNT = "give a whole number of 1 or more"


def check_episode(
    classes: ClassTable, *, n_way: int | str, n_shot: int, n_query: int, within_group: bool, key: str, part: str
) -> int:
    """The number of ways of such episodes, or `UserError` where the classes, called `part`, cannot fill one.

    `key` goes before the names of the settings, as "episode." does.
    """
    _check_counts(n_way, n_shot, n_query, key)
    n_ways = _number_of_ways(classes, n_way, within_group, key)
    if within_group and classes.group_names == ("",):
        raise UserError(
            f"{key}within_group=true: {part} has no groups, so this would change nothing; set {key}within_group=false, "
            "or tell the groups (a folder a group around the folders of its classes, or dataset.group_column)"
        )
    if within_group:
        where, largest = "the largest group", int(classes.group_sizes.max(initial=0))
    else:
        where, largest = part, classes.n_classes
    if largest < 2:
        raise UserError(
            f"{key}n_way={n_way}: {where} has only {largest} {'class' if largest == 1 else 'classes'}, and an episode "
            f"needs at least 2 to tell apart; {_remedy_of_too_few(classes, key)}"
        )
    _check_ways(n_ways, largest, where, key)
    _check_images(classes, n_way=n_ways, n_shot=n_shot, n_query=n_query, within_group=within_group, key=key)
    return n_ways


def _check_counts(n_way: int | str, n_shot: int | str, n_query: int | str, key: str) -> None:
    if n_way != "all" and not _is_count(n_way):
        raise UserError(f"{key}n_way={n_way}: {COUNT} or all")
    if n_shot == "all":
        raise UserError(f"{key}n_shot=all: {COUNT}; all is for the protocol closed_set")
    for name, value in {"n_shot": n_shot, "n_query": n_query}.items():
        if not _is_count(value):
            raise UserError(f"{key}{name}={value}: {COUNT}")


def _is_count(value: int | str) -> bool:
    return not isinstance(value, str) and value >= 1


def _number_of_ways(classes: ClassTable, n_way: int | str, within_group: bool, key: str) -> int:
    if n_way != "all":
        return int(n_way)
    if within_group:
        raise UserError(f"{key}n_way=all and {key}within_group=true exclude each other: groups differ in size")
    return classes.n_classes


def _remedy_of_too_few(classes: ClassTable, key: str) -> str:
    if classes.n_classes > 1:
        return f"set {key}within_group=false, or add classes to a group"
    return "add classes, or classify your images with fsl predict and a run that is trained"


def _check_ways(n_way: int, largest: int, where: str, key: str) -> None:
    if n_way < 2:
        raise UserError(f"{key}n_way={n_way}: an episode needs at least 2 classes to tell apart")
    if n_way > largest:
        raise UserError(
            f"{key}n_way={n_way}: {where} has only {largest} classes; lower {key}n_way to {largest} or less"
        )


def _check_images(classes: ClassTable, *, n_way: int, n_shot: int, n_query: int, within_group: bool, key: str) -> None:
    smallest = smallest_class(classes, n_way=n_way, within_group=within_group)
    size = classes.sizes[smallest]
    if size < n_shot + n_query:
        raise UserError(
            f"{key}n_shot={n_shot}, {key}n_query={n_query}: the class {classes.names[smallest]!r} has only {size} "
            f"{'image' if size == 1 else 'images'} where {n_shot + n_query} are needed; lower {key}n_shot or "
            f"{key}n_query, or add images to the class"
        )


def check_imbalance(
    classes: ClassTable, *, n_way: int, n_shot: int, n_query: int, within_group: bool, imbalance: float, key: str
) -> int:
    """The most queries that a class may have in imbalanced episodes; `key` goes before the names of the settings.

    Raises `UserError` where that is less than two even shares: such queries would hardly be imbalanced.
    """
    if imbalance <= 0:
        raise UserError(f"{key}imbalance={imbalance}: give a number above 0, such as 2, or null for balanced queries")
    smallest = smallest_class(classes, n_way=n_way, within_group=within_group)
    spare = int(classes.sizes[smallest]) - n_shot
    if spare < 2 * n_query:
        lower = f"lower {key}n_query to {spare // 2} or less" if spare >= 2 else "add images to the class"
        raise UserError(
            f"{key}n_query={n_query}: with imbalance={imbalance} a class may have to answer twice as many, and "
            f"{classes.names[smallest]!r} has only {spare} images besides its {n_shot} of support; {lower}"
        )
    return min(MOST_QUERIES * n_query, spare)


def smallest_class(classes: ClassTable, *, n_way: int, within_group: bool) -> int:
    """The number of the class with the fewest images among those that an episode may hold."""
    drawable = np.arange(classes.n_classes)
    if within_group:
        drawable = drawable[classes.group_sizes[classes.class_groups] >= n_way]
    return int(drawable[classes.sizes[drawable].argmin()])
