"""A config as a tree, and its values in words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewshot_runner.report.line import as_markup

if TYPE_CHECKING:
    from rich.tree import Tree


def config_tree(config: Mapping[str, Any]) -> "Tree":
    """Groups as branches, headed by the choices that composed them."""
    from rich.tree import Tree  # late: whoever shows a value alone need not wait for it

    choices = config.get("choices", {})
    tree = Tree("[bold]config")
    for key, value in config.items():
        if key != "choices":
            _add(tree, key, value, choices.get(key))
    return tree


def _add(tree: "Tree", key: str, value: Any, choice: str | None = None) -> None:
    if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
        branch = tree.add(_title(key, choice))
        for name, inner in value.items():
            _add(branch, name, inner)
    elif isinstance(value, Mapping) and value:
        inner = "  ".join(f"[dim]{name}[/] {_plain(item)}" for name, item in value.items() if name != "_target_")
        target = f"[cyan]{str(value['_target_']).rpartition('.')[2]}[/]  " if "_target_" in value else ""
        tree.add(f"{_title(key, choice)}  {target}{inner}")
    else:
        tree.add(f"{key} {_plain(value)}")


def _title(key: str, choice: str | None) -> str:
    return f"[bold]{as_markup(str(key))}[/]" + (f" [green]{as_markup(str(choice))}[/]" if choice else "")


def _plain(value: Any) -> str:
    return "-" if value in ({}, []) else as_markup(shown(value))


def shown(value: Any) -> str:
    """A value as one would write it on the command line."""
    if value is None or value == "":
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
