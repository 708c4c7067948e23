"""Whether data that were kept are those that stand here."""

from fewshot_runner.data.provenance import Provenance

NOW = Provenance("birds", "classes", "5" * 16, "1" * 16, "f" * 16)


def test_every_entry_is_looked_at() -> None:
    entries = NOW.entries()
    assert list(entries) == ["dataset", "split", "split_hash", "images_hash", "files_hash"]
    assert NOW.changes({**entries, "step": 3}) == []
    for key, value in entries.items():
        assert NOW.changes({**entries, key: "other"}) == [f"{key} was other, is {value}"]


def test_what_is_not_known_on_either_side_has_not_changed() -> None:
    entries = NOW.entries()
    assert NOW.changes({}) == []
    assert NOW.changes({key: value for key, value in entries.items() if key != "images_hash"}) == []
    of_ours = Provenance("omniglot", "lake", "5" * 16, "1" * 16)
    assert "files_hash" not in of_ours.entries()
    assert of_ours.changes({**of_ours.entries(), "files_hash": "a" * 16}) == []
