"""All that a sampler knows of the data: which indices belong to which class, and which classes to which group."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fewshot_runner.data.draws import draw_distinct


@dataclass(frozen=True)
class ClassTable:
    """Image indices in compressed rows: class c owns `members[offsets[c]:offsets[c + 1]]`.

    Classes are numbered group by group, so a group is a range of class numbers as well: group g owns the classes
    `group_offsets[g]` to `group_offsets[g + 1]`. Data without groups has one.

    members (I,), offsets (C + 1,), group_offsets (G + 1,): int64.
    """

    members: np.ndarray
    offsets: np.ndarray
    group_offsets: np.ndarray
    names: tuple[str, ...]
    group_names: tuple[str, ...]

    @classmethod
    def build(
        cls, labels: np.ndarray, class_names: Sequence[str], class_groups: Sequence[str], keep: np.ndarray
    ) -> "ClassTable":
        """The table of the images at indices `keep`, given every image's class and every class's name and group.

        Classes are ordered by group, then by name; a class's images by index. Classes without images drop out.
        """
        kept_labels = labels[keep]
        present = np.unique(kept_labels)
        order = sorted(present, key=lambda c: (class_groups[c], class_names[c]))
        number = np.full(len(class_names), -1)
        number[order] = np.arange(len(order))
        by_class = np.lexsort((keep, number[kept_labels]))
        counts = np.bincount(number[kept_labels], minlength=len(order))
        groups = [class_groups[c] for c in order]
        starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
        return cls(
            members=keep[by_class].astype(np.int64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            group_offsets=np.array([*starts, len(order)], dtype=np.int64),
            names=tuple(class_names[c] for c in order),
            group_names=tuple(groups[i] for i in starts),
        )

    @property
    def n_classes(self) -> int:
        return len(self.names)

    @property
    def n_groups(self) -> int:
        return len(self.group_names)

    @cached_property  # samplers ask for it with every item
    def sizes(self) -> np.ndarray:
        """(C,) images per class."""
        return np.diff(self.offsets)

    @cached_property  # samplers ask for it with every item
    def group_sizes(self) -> np.ndarray:
        """(G,) classes per group."""
        return np.diff(self.group_offsets)

    @cached_property  # samplers ask for it with every item
    def class_groups(self) -> np.ndarray:
        """(C,) group number of each class."""
        return np.repeat(np.arange(self.n_groups), self.group_sizes)

    @property
    def image_labels(self) -> np.ndarray:
        """(I,) class number of each entry of `members`."""
        return np.repeat(np.arange(self.n_classes), self.sizes)

    def draw_images(self, classes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """(..., k) indices of k different images of each class number in `classes` (...), as the numbers `uniform`
        (..., k) in [0, 1) draw them.
        """
        within = draw_distinct(uniform, self.sizes[classes])
        return self.members[self.offsets[classes][..., None] + within]

    def merged(self, other: "ClassTable") -> "ClassTable":
        """The union of both tables; a class that is in both keeps the images of both."""
        names = sorted({*self.names, *other.names})
        number = {name: label for label, name in enumerate(names)}
        group_of = {}
        for table in (self, other):
            group_of |= {n: table.group_names[g] for n, g in zip(table.names, table.class_groups, strict=True)}
        members = np.concatenate([self.members, other.members])
        labels = np.full(members.max() + 1, -1)
        for table in (self, other):
            labels[table.members] = np.array([number[name] for name in table.names])[table.image_labels]
        return ClassTable.build(labels, names, [group_of[name] for name in names], members)

    def with_symmetries(self, names: Sequence[str], stride: int) -> "ClassTable":
        """Every class once more for each further symmetry: class c under symmetry v is a class of its own.

        The index of image i under symmetry v is `i + v * stride`. Groups multiply as well, so a group holds one
        alphabet under one symmetry. `names[0]` is the identity and changes no name.
        """
        suffixes = ["", *(f"/{name}" for name in names[1:])]
        versions = np.arange(len(names))
        return ClassTable(
            members=(self.members + stride * versions[:, None]).ravel(),
            offsets=np.concatenate([[0], np.tile(self.sizes, len(names)).cumsum()]),
            group_offsets=np.concatenate([[0], np.tile(self.group_sizes, len(names)).cumsum()]),
            names=tuple(name + suffix for suffix in suffixes for name in self.names),
            group_names=tuple(name + suffix for suffix in suffixes for name in self.group_names),
        )
