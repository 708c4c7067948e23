"""Run folders of which a file is damaged or gone: refused by its name, or passed over aloud."""

import pytest
from PIL import Image


@pytest.mark.parametrize("file", ["config.yaml", "status.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "\x00\x01"])
def test_a_damaged_run_folder_is_refused_by_file(refused, copied, file, content):
    run = copied()
    (run / file).write_text(content)
    command = ["resume", run] if file == "status.json" else ["eval", f"run={run}"]
    said = refused(*command)
    assert str(run / file) in said
    assert "damaged" in said


@pytest.fixture
def harmed(copied, tmp_path):
    """A run whose best checkpoint is damaged in some way, and the words of commands that read it."""
    run = copied()
    for name in ("a", "b"):
        (tmp_path / "support" / name).mkdir(parents=True)
        Image.new("L", (20, 20), 255).save(tmp_path / "support" / name / "1.png")

    def harm(damage):
        best = run / "checkpoints" / "best.pt"
        content = bytearray(best.read_bytes())
        if damage == "absent":
            best.unlink()
        elif damage == "cut off":
            best.write_bytes(content[:-100])
        elif damage == "a byte":
            content[len(content) // 2] ^= 1
            best.write_bytes(content)
        else:
            best.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
        return best

    support = tmp_path / "support"
    words = {"export": [run], "eval": [f"run={run}"], "predict": [run, support / "a", "--support", support]}
    return harm, words


@pytest.mark.parametrize("command", ["export", "eval", "predict"])
@pytest.mark.parametrize("damage", ["absent", "cut off", "a byte", "a pickle"])
def test_where_every_checkpoint_is_damaged_the_run_is_refused(refused, harmed, elsewhere, command, damage):
    harm, words = harmed
    best = harm(damage)
    for file in best.parent.glob("step-*.pt"):
        file.write_bytes(file.read_bytes()[:-1])
    said = refused(command, *words[command])
    assert str(best) in said
    assert "fsl resume" in said


@pytest.mark.parametrize("command", ["export", "eval", "predict"])
def test_past_a_damaged_best_checkpoint_the_newest_is_read_aloud(fsl, harmed, command):
    harm, words = harmed
    best = harm("a byte")
    answer = fsl(command, *words[command])
    assert answer.code == 0, answer.err
    assert str(best) in answer.err
    assert "using the state of step 20 instead" in answer.err


def test_a_run_that_was_never_validated_is_no_damaged_one(fsl, harmed):
    harm, words = harmed
    best = harm("absent")
    metrics = best.parent.parent / "metrics.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if '"val"' not in line]
    metrics.write_text("".join(f"{line}\n" for line in lines))
    answer = fsl("export", *words["export"])
    assert answer.code == 0, answer.err
    assert "there is no best state before the first validation; using the state of step 20 instead" in answer.err
    assert "cannot be read" not in answer.err
