"""Which alphabets validate under the split `lake`: figures that were chosen on others cannot be compared."""

from pathlib import Path

import pytest

from fewshot_runner.data.sources import omniglot
from fewshot_runner.data.sources.omniglot import Omniglot

BACKGROUND = [
    "Alphabet_of_the_Magi", "Anglo-Saxon_Futhorc", "Arcadian", "Armenian", "Asomtavruli_(Georgian)", "Balinese",
    "Bengali", "Blackfoot_(Canadian_Aboriginal_Syllabics)", "Braille", "Burmese_(Myanmar)", "Cyrillic",
    "Early_Aramaic", "Futurama", "Grantha", "Greek", "Gujarati", "Hebrew",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)", "Japanese_(hiragana)", "Japanese_(katakana)", "Korean", "Latin",
    "Malay_(Jawi_-_Arabic)", "Mkhedruli_(Georgian)", "N_Ko", "Ojibwe_(Canadian_Aboriginal_Syllabics)", "Sanskrit",
    "Syriac_(Estrangelo)", "Tagalog", "Tifinagh",
]  # fmt: skip


def test_five_alphabets_validate_and_the_other_25_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On empty files with Omniglot's names, a character of each alphabet: it needs no data."""
    parts = {"images_background": BACKGROUND, "images_evaluation": ["Angelic"]}
    monkeypatch.setattr(omniglot, "CHARACTERS", {part: len(alphabets) for part, alphabets in parts.items()})
    for part, alphabets in parts.items():
        for number, alphabet in enumerate(alphabets, start=1):
            folder = tmp_path / "omniglot-py" / part / alphabet / "character01"
            folder.mkdir(parents=True)
            for drawer in range(1, 21):
                (folder / f"{number:04d}_{drawer:02d}.png").touch()
    split = Omniglot(root=str(tmp_path), download=False).split("lake")
    found = {part: [name.partition("/")[0] for name in names] for part, names in split.classes.items()}
    validation = ["Armenian", "Burmese_(Myanmar)", "Japanese_(katakana)", "N_Ko", "Tagalog"]
    assert found["val"] == validation
    assert found["train"] == [alphabet for alphabet in BACKGROUND if alphabet not in validation]
    assert len(found["train"]) == 25
    assert found["test"] == ["Angelic"]
