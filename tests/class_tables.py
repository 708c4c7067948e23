"""Tables of classes for the tests of samplers."""

import numpy as np

from fewshot_runner.data.classes import ClassTable


def make_table(sizes: dict[str, list[int]]) -> ClassTable:
    """A table of groups with classes of the given numbers of images, whose indices are scattered."""
    names = [f"{group}/{number}" for group, classes in sizes.items() for number in range(len(classes))]
    groups = [group for group, classes in sizes.items() for _ in classes]
    counts = [count for classes in sizes.values() for count in classes]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(names)), counts))
    return ClassTable.build(labels, names, groups, np.arange(len(labels)))


def lookup(table: ClassTable) -> dict[int, int]:
    """image -> class number"""
    return {
        int(image): c
        for c in range(table.n_classes)
        for image in table.members[table.offsets[c] : table.offsets[c + 1]]
    }


def read(table: ClassTable) -> dict[str, list[int]]:
    """class name -> its images"""
    return {name: table.members[table.offsets[c] : table.offsets[c + 1]].tolist() for c, name in enumerate(table.names)}


GREEK, LATIN, RUNES = [9, 12, 10, 9, 15], [11, 9, 9, 20, 9, 9, 10], [9, 9]
TABLE = make_table({"Greek": GREEK, "Latin": LATIN, "Runes": RUNES})


CLASS_OF = lookup(TABLE)
