"""Data sets with classes that mean none of the known, and parts that have other classes than training."""

import pytest
import torch
from class_tables import read
from processes import NEEDS_PROC, kernel_flags

from fewshot_runner.data import layout
from fewshot_runner.data.source import PARTS, Item, Split

CPU = torch.device("cpu")


@pytest.fixture
def retrieval(make, squares):
    """Train and val know warm/0 and warm/1; "cold/0" means none of the known, and nobody has labelled pale/0."""

    class Retrieval(squares):
        name, unknown_label = "retrieval", "cold/0"

        def items(self):
            return [Item(i.name, "" if i.class_name == "pale/0" else i.class_name) for i in super().items()]

        def split(self, name: str) -> Split:
            known = ["warm/0", "warm/1", "cold/0"]
            classes = {"train": known, "val": [known[1], known[2]], "test": ["cold/0", "warm/1", "pale/1", ""]}
            return Split(name, classes, {
                "train": [f"{c}/{n}.png" for c in known for n in range(4)],
                "val": [f"{c}/4.png" for c in known[1:]],
                "test": [f"{c}/5.png" for c in ("cold/0", "warm/1", "pale/1")] + ["pale/0/3.png"],
            })  # fmt: skip

    return make(Retrieval())


def test_the_unknown_label_is_no_class_unless_it_is_asked_for(retrieval):
    assert read(retrieval.table("train")) == {"warm/0": [0, 1, 2, 3], "warm/1": [6, 7, 8, 9]}
    assert read(retrieval.table("val")) == {"warm/1": [10]}
    assert read(retrieval.table("train", unknown=True)) == {
        "warm/0": [0, 1, 2, 3], "warm/1": [6, 7, 8, 9], "cold/0": [12, 13, 14, 15]
    }  # fmt: skip
    assert read(retrieval.table("test", unknown=True)) == {"cold/0": [17], "pale/1": [35], "warm/1": [11]}


@pytest.mark.parametrize(
    ("val", "test", "said"),
    [
        (["warm/1"], ["cold/0", "warm/1"], ["cold/0 is never answered"]),
        (["warm/1", "cold/0"], ["cold/0"], ["no figure says whether known individuals are recognised"]),
        (["warm/1", "cold/0"], ["cold/0", "warm/1"], []),
    ],
)
def test_a_search_that_cannot_tell_the_unknown_or_the_known_says_so(make, squares, val, test, said):
    class Retrieval(squares):
        name, unknown_label = "retrieval", "cold/0"

        def split(self, name: str) -> Split:
            classes = {"train": ["warm/0", "warm/1", "cold/0"], "val": val, "test": test}
            return Split(
                name, classes, {part: [f"{c}/{n}.png" for c in classes[part]] for n, part in enumerate(classes)}
            )

    remarks = make(Retrieval()).remarks(searched=True)
    assert [remark.partition(": ")[2] for remark in remarks] == said


def test_a_test_that_leaves_out_what_is_no_class_says_so(retrieval):
    [said] = retrieval.remarks(searched=False)
    assert said.startswith("6 images are labelled cold/0")
    assert retrieval.remarks(searched=True) == []


def test_unlabelled_images_are_in_no_table_and_have_their_own_list(retrieval, make):
    assert retrieval.unlabelled().tolist() == list(range(24, 30))
    for part in PARTS:
        assert "" not in retrieval.table(part, unknown=True).names
    assert make().unlabelled().tolist() == []


@NEEDS_PROC
@pytest.mark.parametrize(
    ("limits", "keep", "scattered"),
    [
        ({}, None, False),
        ({"SURE_TO_FIT": 1000}, None, True),
        ({"SURE_TO_FIT": 1000, "FEW_PAGES": 1000}, None, False),  # a picture has 1,200 bytes
        ({"SURE_TO_FIT": 1000}, torch.clone, False),
    ],
)
def test_a_large_store_of_small_pictures_is_read_as_it_is_asked_for(make, monkeypatch, limits, keep, scattered):
    """Where pictures stay in the file; one that is put elsewhere as a whole is read ahead."""
    for name, value in limits.items():
        monkeypatch.setattr(layout, name, value)
    dataset = make(**({} if keep is None else {"keep": keep}))
    assert dataset.viewer("train", CPU)(torch.arange(36)).shape == (36, 3, 20, 20)
    flags = kernel_flags(dataset.store.path / "pixels.npy")
    assert "mr" in flags  # it may be read: the right map was found
    assert ("rr" in flags) == scattered
