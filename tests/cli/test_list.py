"""fsl list: all choices with their purpose, and the settings of one."""

import re

from fewshot_runner.cli.conf import conf_dir


def test_list_shows_every_file_of_conf_with_its_purpose(fsl, refused):
    answer = fsl("list")
    assert answer.code == 0
    files = list(conf_dir().glob("*/*.yaml"))
    assert files
    for path in files:
        [line] = [line for line in answer.out.splitlines() if line.split()[:1] == [f"{path.parent.name}={path.stem}"]]
        assert len(line.split(maxsplit=1)) == 2, line
    only = fsl("list", "method").out
    assert "method=siamese" in only
    assert "dataset=" not in only
    assert "did you mean method" in refused("list", "methods")


def test_list_shows_the_settings_of_a_choice(fsl, refused, tmp_path):
    answer = fsl("list", "method=maml")
    assert answer.out.splitlines()[1:] == (conf_dir() / "method/maml.yaml").read_text().splitlines()
    assert (conf_dir() / "train.yaml").read_text() in fsl("list", "train").out
    (tmp_path / "method").mkdir()
    (tmp_path / "method/own.yaml").write_text("# mine\n")
    own = f"--config-dir={tmp_path}"
    assert fsl("list", "method=own", own).out == f"# {tmp_path}/method/own.yaml\n# mine\n"
    assert fsl("list", "method=maml", own).out == answer.out
    assert "did you mean maml" in refused("list", "method=mamal")
    for words, meant in (("methods=maml", "method"), ("trian", "train"), ("train=maml", "train")):
        said = refused("list", words)
        assert said == f"fsl: fsl list {words}: there is no such group; did you mean {meant}?"
    assert "there is no such group; choose one of: dataset, " in refused("list", "nonsense=x")
    assert "there is no such choice" in refused("list", "method=../train")


def test_names_and_purposes_are_no_markup(fsl, tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "[red]own.yaml").write_text("# [bold]mine[/x]\n")
    assert "method=[red]own [bold]mine[/x]" in " ".join(fsl("list", "method", f"--config-dir={tmp_path}").out.split())


def test_on_a_narrow_terminal_no_word_of_a_comment_is_cut_off(fsl, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    shown = fsl("list", "method=maml").out
    assert "\x1b[" in shown
    words = re.sub(r"\x1b\[[\d;]*m", "", shown).split()[2:]
    assert words == (conf_dir() / "method/maml.yaml").read_text().split()
