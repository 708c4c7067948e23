"""Mistakes of the user: exit code 2, a few lines that name the key, the value and the remedy, nothing left behind."""

import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from processes import FSL

from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.errors import UserError

UNKNOWN_KEYS = {
    "trainer.max_step=5": ["trainer.max_step", "did you mean trainer.max_steps"],
    "+trainer.max_step=5": ["trainer.max_step=5", "max_steps"],
    "++trainer.max_step=5": ["trainer.max_step=5", "max_steps"],
    "method.learner.skale=3": ["method.learner.skale", "scale"],
    "++method.optimizer.learning_rate=1": ["method.optimizer.learning_rate=1", "lr"],
    "+dataset.rot=5": ["dataset.rot=5", "image_size"],
    "++dataset.source.alphabet=3": ["dataset.source.alphabet=3", "alphabets"],
    "+dataset.augment.warp.rotations=3": ["dataset.augment.warp.rotations=3", "rotation"],
    "+dataset.tests.more.n_ways=3": ["dataset.tests.more.n_ways=3", "n_way"],
    "+sead=1": ["sead=1", "did you mean seed"],
    "metod=siamese": ["metod", "did you mean method"],
    "no.such.key=1": ["no.such.key", "dataset", "trainer"],
    "+no.such.key=1": ["no=", "trainer"],
    "+model.width=[8]": ["model.width=[8]", "widths"],
    "+model._args_=[1]": ["model._args_=[1]"],
    "+method.extra=1": ["method.extra=1", "optimizer"],
    "~trainer.max_steps": ["trainer.max_steps is missing", "trainer.max_steps=..."],
    "+choices.method=maml": ["choices={'method': 'maml'}: there is no such key"],
    "+experiment.seed=1": ["give them without experiment.", "# @package _global_"],
}
WRONG_VALUES = {
    "trainer.max_steps=many": ["trainer.max_steps=many", "whole number"],
    "trainer.max_steps=1.5": ["trainer.max_steps=1.5", "whole number"],
    "trainer.max_steps=-1": ["trainer.max_steps=-1", "0"],
    "trainer.val_every=0": ["trainer.val_every=0", "1 or more"],
    "trainer.monitor=accurracy": ["trainer.monitor=accurracy", "accuracy"],
    "trainer.patience=soon": ["trainer.patience=soon", "null"],
    "method.schedule.floor=2": ["method.schedule.warmup=50, method.schedule.floor=2:", "floor between 0 and 1"],
    "dataset.augment.warp.probability=2": ["dataset.augment.warp.probability=2:", "0 to 1"],
    "trainer=5": ["trainer=5", "group of keys"],
    "seed=true": ["seed=true", "whole number"],
    "name=[1]": ["name=[1]", "text"],
    "output_dir=null": ["output_dir=null", "text"],
    "output_dir=": ["output_dir= is empty", "outputs"],
    "~output_dir": ["output_dir is missing", "output_dir=..."],
    "~trusted_packages": ["trusted_packages is missing", "trusted_packages=..."],
    "trusted_packages=5": ["trusted_packages=5: give a list (text)"],
    "trusted_packages=[5]": ["trusted_packages=[5]: give a list (text)"],
    "name=5": ["name=5: give text", "\"name='5'\""],
    "hardware.precision=true": ["hardware.precision=true: give text", "\"hardware.precision='true'\""],
    "hardware=slurm": ["launcher=slurm", "fsl train -m", "hardware=slurm"],
    "~trainer.patience": ["~trainer.patience: is null already"],
    "~trainer.patiense": ["~trainer.patiense: there is no such key", "did you mean trainer.patience"],
    "dataset.source=null": ["dataset.source=null: give a group of keys with _target_"],
    "--experimental-rerun=config.pickle": ["--experimental-rerun", "overrides.yaml"],
    "--exp=config.pickle": ["--experimental-rerun", "overrides.yaml"],
    "-mr": ["--run: is not for sweeps"],
    "method.optimizer.lr=fast": ["method.optimizer.lr=fast", "number"],
    "method.optimizer.lr=-1": ["method.optimizer.lr=-1", "Invalid learning rate"],
    "episode.within_group=maybe": ["episode.within_group=maybe", "true or false"],
    "episode.n_way=some": ["episode.n_way=some: give a whole number or all"],
    "model.widths=64": ["model.widths=64", "list"],
    "model.widths=[0]": ["model.widths=[0]", "1 or more"],
    "dataset.source=5": ["dataset.source=5"],
    "dataset.augment=3": ["dataset.augment=3", "dataset.augment.warp"],
    "+dataset.tests.x=3": ["dataset.tests=", "group of keys"],
    "dataset.mean=[0.5,0.5]": ["dataset.mean=[0.5, 0.5]", "channels=1"],
    "hardware.threads=0": ["hardware.threads=0", "1 or more"],
    "hardware.device=tpu": ["hardware.device=tpu", "cpu"],
    "eval.episodes=0": ["eval.episodes=0", "auto"],
    "eval.protocol=runs": ["eval.protocol=runs", "no fixed runs"],
    "trainer.max_steps": ["trainer.max_steps", "key=value"],
    "trainer.max_steps=[1,": ["trainer.max_steps=[1,", "key=value"],
    "a=b=c": ["a=b=c", "key=value"],
    "dataset.tests.20way1shot=null": ["'dataset.tests={20way1shot:null}'"],
    "dataset.tests.20way1shot.n_way=5": ["'dataset.tests={20way1shot:{n_way:5}}'"],
    "=5": ["override"],
    "trainer.max_steps=${nowhere}": ["trainer.max_steps", "nowhere"],
    "name=a,b": ["name=a,b", "quote"],
    "hydra.mode=MULTIRUN": ["hydra.mode=MULTIRUN", "-m"],
    "++hydra.mode='MULTIRUN'": ["hydra.mode", "-m"],
}
UNKNOWN_MEMBERS = {
    "method=": ["method=: there is no such choice", "siamese"],
    "method=my/own": ["method=my/own: there is no such choice"],
    "hydra/launcher=foo": ["hydra/launcher=foo: there is no such choice"],
    "method=siamez": ["method=siamez: there is no such choice", "siamese"],
    "dataset=omniglott": ["dataset=omniglott: there is no such choice", "omniglot"],
    "episode=3way": ["episode=3way: there is no such choice", "5way1shot"],
    "experiment=null": ["a group cannot be null", "fsl list"],
    "dataset.augment={extra:{strength:1}}": [
        "dataset.augment: the value has keys that are not there",
        "++dataset.augment=...",
    ],
    "experiment=nope": ["experiment=nope: there is no such choice", "quickstart"],
    "dataset.split=lake": ["dataset.split=lake", "alphabets"],
}
IMPOSSIBLE_EPISODES = {
    "episode.n_way=9": ["episode.n_way=9", "only 8 classes"],
    "episode.n_way=1": ["episode.n_way=1", "at least 2"],
    "episode.n_shot=5": ["episode.n_shot=5", "'Alphabet_05/character01'", "only 8 images", "9 are needed"],
    "episode.n_query=8": ["episode.n_shot=1, episode.n_query=8", "lower episode.n_shot or episode.n_query"],
    "+dataset.tests.hard.n_way=30": ["dataset.tests.hard.n_way=30", "only 8 classes"],
    "method.sampler.n_classes=1000": ["n_classes=1000", "256"],
}
OF_SWEEPS_ALONE = [
    "sweep=random", "sweep.trials=5", "++sweep.trials=5", "+sweep.bogus=1", "~sweep", "launcher=parallel",
    "launcher.workers=2", "+launcher.x=1", "~launcher", "launcher@method=serial",
]  # fmt: skip
OF_A_SWEEP = {
    "output_dir=2026": ["output_dir=2026: give text", "\"output_dir='2026'\""],
    "output_dir=null": ["output_dir=null: give text"],
    "output_dir=": ["output_dir= is empty"],
    "~output_dir": ["output_dir is missing; set it"],
    "sweep.folder=2026": ["sweep.folder=2026: give text or null", "\"sweep.folder='2026'\""],
    "sweep.folder=[x]": ["sweep.folder=['x']: give text or null"],
    "sweep.params=x": ["sweep.params=x: give a group of keys or null"],
    "sweep.params=[x]": ["sweep.params=[x]"],
    "~sweep": ["sweep is missing; set it"],
    "~launcher": ["launcher is missing; set it"],
    "~method": ["method is missing; set it"],
    "trusted_packages=5": ["trusted_packages=5: give a list (text)"],
    "+experiment.seed=1": ["give them without experiment."],
}
FORBIDDEN_TARGETS = [
    "builtins.open",
    "os.system",
    "torch.load",
    "pandas.read_pickle",
    "torch.nn.modules.module.warnings.warn",
    "torch.nn.functional.torch.load",
    "fewshot_runner.runs.json.loads",
    "fewshot_runner_evil.Thing",
    "torch.nn",
    "torch.nn.Conv9",
    "fewshot_runner.runs.DONE",
    "fewshot_runner.atomic.write_text",
    "fewshot_runner.cli.session.show",
    "5",
]


@pytest.mark.parametrize(
    ("override", "names"),
    [*UNKNOWN_KEYS.items(), *WRONG_VALUES.items(), *UNKNOWN_MEMBERS.items(), *IMPOSSIBLE_EPISODES.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_refused_by_name(refused, tiny, override, names):
    said = refused("train", *tiny(), override, lines=13)
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize("word", OF_SWEEPS_ALONE)
def test_what_only_a_sweep_heeds_is_refused_without_one_however_it_is_given(refused, tiny, word):
    assert f"{word}: is for sweeps; leave it out, or give -m" in refused("train", *tiny(), word)


@pytest.mark.parametrize(("override", "names"), OF_A_SWEEP.items(), ids=OF_A_SWEEP)
def test_a_mistake_in_what_a_sweep_has_as_a_whole_is_refused_by_name(refused, override, names):
    said = refused("train", "-m", "trainer.max_steps=0", "seed=0,1", override)
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["dataset=folder", "dataset.pth=my/pictures"], "dataset.path"),  # which has no value of its own
        (["dataset=csv", "dataset.path=x", "dataset.image_colum=f"], "dataset.image_column"),
        (["dataset=folder", "dataset.path=x", "dataset.unknown_lable=y"], "dataset.unknown_label"),
        (["method=siamese", "method.learner.hiden=4"], "method.learner.hidden"),
        (["-m", "method=siamese,koch", "method.learner.hiden=4", "seed=0,1"], "method.learner.hidden"),
        (["method=siamese", "method.learner.hiden=4", "--cfg", "job"], "method.learner.hidden"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_of_the_groups_that_were_chosen(refused, words, nearest):
    assert refused("train", *words).endswith(f": there is no such key; did you mean {nearest}?")


@pytest.mark.parametrize("choice", ["method=own", "+extra=one"])
def test_a_misspelt_key_gets_the_nearest_of_the_users_own_configs(refused, tmp_path, choice):
    for group, member in (("method", "own"), ("extra", "one")):
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / f"{member}.yaml").write_text("peculiar: 1\n")
    slip = f"{choice.lstrip('+').partition('=')[0]}.peculier"
    said = refused("train", f"--config-dir={tmp_path / 'mine'}", choice, f"{slip}=2")
    assert said == f"fsl: {slip}: there is no such key; did you mean {slip.replace('ier', 'iar')}?"
    assert "extra: there is no such key" in refused("train", f"--config-dir={tmp_path / 'mine'}", "extra=one")


def test_an_impossible_shape_of_training_episodes_is_that_of_the_sampler(refused, tiny):
    said = refused("train", *tiny("maml"), "method.sampler.n_shot=7")
    assert "method.sampler.n_shot=7, method.sampler.n_query=2: the class" in said
    assert "lower method.sampler.n_shot or method.sampler.n_query" in said
    said = refused("train", *tiny("maml"), "method.sampler.n_way=600")
    assert "method.sampler.n_way=600: the training part has only" in said


@pytest.mark.parametrize(
    ("key", "target"),
    [("model", target) for target in FORBIDDEN_TARGETS]
    + [
        (key, "fewshot_runner.runs.json.loads")
        for key in ("method.optimizer", "dataset.source", "dataset.augment.warp")
    ],
)
def test_a_target_off_the_allow_list_is_neither_called_nor_imported(refused, tiny, key, target):
    refused("train", *tiny(), "model._target_=none.of.ours")  # imports what a refusal takes
    before = set(sys.modules)
    said = refused("train", *tiny(), f"{key}._target_={target}")
    assert f"{key}._target_={target}" in said
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] not in ("torch", "fewshot_runner")}


def test_a_package_of_the_users_own_is_built_once_trusted(fsl, refused, tiny, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from fewshot_runner.models.pixels import Pixels\n\nclass Mine(Pixels): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    overrides = [*tiny("pixels"), "model=pixels", "~model.widths", "model._target_=mine.Mine"]
    overrides = [word for word in overrides if "widths" not in word]
    assert "trusted_packages" in refused("train", *overrides)
    assert fsl("train", *overrides, "trusted_packages=[mine]", f"output_dir={tmp_path}/runs").code == 0


@pytest.mark.parametrize(
    ("package", "target", "names"),
    [
        ("mine_a", "matching.Matching", ["ModuleNotFoundError: No module named 'numpyy'"]),
        ("mine_b", "broken.Broken", ["SyntaxError", "broken.py, line 1"]),
        ("mine_c", "absent.Thing", ["there is no such class (No module named 'mine_c.absent')"]),
        ("mine_d", "sound.Thing", ["there is no such class (", "'mine_d.sound.Thing'"]),
        ("mine_none", "Thing", ["there is no package mine_none", "install it", "PYTHONPATH"]),
    ],
)
def test_why_a_package_of_the_users_own_cannot_be_used_is_told(
    refused, tiny, tmp_path, monkeypatch, package, target, names
):
    if package != "mine_none":
        (tmp_path / package).mkdir()
        for file, content in (("__init__", ""), ("matching", "import numpyy"), ("broken", "class"), ("sound", "")):
            (tmp_path / package / f"{file}.py").write_text(f"{content}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which would be something left behind
    said = refused("train", *tiny(), f"model._target_={package}.{target}", f"trusted_packages=[{package}]", lines=1)
    assert [name for name in [f"model._target_={package}.{target}", *names] if name not in said] == []


def test_keys_that_a_target_hands_on_to_one_that_does_not_take_them_are_refused(refused, tiny):
    said = refused("train", *tiny(), "model._target_=torchvision.models.resnet18", lines=1)
    assert "model.widths=[8, 8]: torchvision.models.resnet18 takes no such key" in said
    assert "~model.widths" in said


def test_missing_data_are_refused_by_place_and_remedy(refused, tmp_path):
    for overrides, names in (
        (["dataset=omniglot", "dataset.root=nowhere", "dataset.source.download=false"],
         ["dataset.source.download=false: ", "nowhere", "FSL_DATA"]),
        (["dataset=folder"], ["dataset.path is missing"]),
        (["dataset=folder", "dataset.path=nowhere"], ["dataset.path=", "nowhere"]),
        (["dataset=folder", f"dataset.path={tmp_path}"], [str(tmp_path), "no images"]),
        (["dataset=csv", "dataset.path=nowhere.csv"], ["dataset.path=", "nowhere.csv"]),
    ):  # fmt: skip
        said = refused("train", *overrides)
        assert [name for name in names if name not in said] == []


@pytest.mark.parametrize("damage", ["no zip", "cut off", "a byte"])
def test_a_damaged_archive_is_refused_by_name(refused, tmp_path, monkeypatch, request, damage):
    monkeypatch.setenv("FSL_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))  # outside of what is compared
    base = tmp_path / "omniglot-py"
    base.mkdir()
    background, evaluation = base / "images_background.zip", base / "images_evaluation.zip"
    if damage == "no zip":
        background.write_bytes(b"PK but no more")
        evaluation.write_bytes(b"PK but no more")
    else:
        real = request.getfixturevalue("omniglot_data") / "omniglot-py"
        if not (real / background.name).is_file():
            pytest.skip("needs Omniglot as zip files, and it lies there as folders")
        shutil.copy(real / evaluation.name, evaluation)
        content = bytearray((real / background.name).read_bytes())
        if damage == "cut off":
            content = content[: len(content) // 2]
        else:
            with zipfile.ZipFile(real / background.name) as archive:
                victim = next(info for info in archive.infolist() if info.filename.endswith(".png"))
            content[victim.header_offset + 30 + len(victim.filename) + 60] ^= 0xFF
        background.write_bytes(content)
    said = refused("train", "dataset=omniglot", f"dataset.root={tmp_path}", "dataset.source.download=false")
    assert str(background) in said
    assert "delete it" in said


@pytest.mark.parametrize("place", ["obstacle", "obstacle/below"])
def test_an_output_dir_that_cannot_hold_runs_is_refused(refused, elsewhere, tiny, place):
    (elsewhere / "obstacle").write_text("a file")
    said = refused("train", *tiny(), f"output_dir={place}")
    assert f"output_dir={place}" in said


def test_a_config_dir_that_is_none_is_refused(refused):
    assert "nowhere" in refused("train", "--config-dir=nowhere")
    assert "nowhere" in refused("list", "--config-dir=nowhere")
    for words in (["--config-dir="], ["-cd"], ["--config-dir", ""]):  # of a variable that is not set
        assert "give a folder of configs" in refused("train", *words)


def test_a_config_of_the_users_own_with_a_name_that_fsl_has_is_refused_for_hydra_would_pass_it_over(
    refused, tmp_path, tiny
):
    (tmp_path / "method").mkdir()
    own = tmp_path / "method" / "siamese.yaml"
    own.write_text("# mine\n")
    place = f"--config-dir={tmp_path}"
    for words in (["train", place, *tiny()], ["train", "-m", place, *tiny()], ["eval", place], ["list", place]):
        assert f"{own}: fsl's own of this name" in refused(*words)
    with pytest.raises(UserError, match="give yours another name"):
        compose(["method=siamese"], config_dir=tmp_path)
    own.unlink()
    own.symlink_to(conf_dir() / "method" / "siamese.yaml")  # the same one
    assert compose(["method=siamese"], config_dir=tmp_path) == compose(["method=siamese"])


def test_a_run_that_is_named_as_a_setting_is_refused_with_how_to_name_it(refused, trained):
    assert "give it without run=" in refused("predict", f"run={trained()}", __file__)


def test_an_empty_word_is_no_folder(refused, trained):
    assert "no run is named" in refused("resume", "")
    assert "no run is named" in refused("eval", "run=")
    assert "dataset.path is empty" in refused("train", "dataset=folder", "dataset.path=")
    assert "--support is empty" in refused("predict", trained(), __file__, "--support", "")


@pytest.mark.parametrize("command", ["resume", "export", "eval", "predict"])
def test_a_run_folder_that_is_none_is_refused_without_torch(refused, elsewhere, trained, command, monkeypatch):
    (elsewhere / "empty").mkdir()
    experiment = trained().parent
    monkeypatch.setitem(sys.modules, "fewshot_runner.cli.session", None)  # importing it would be an ImportError
    monkeypatch.setitem(sys.modules, "fewshot_runner.cli.trained", None)
    for place, name in (
        ("nowhere", "no such run folder"),
        ("empty", "config.yaml"),
        (experiment.parent, "did you mean"),
    ):
        words = {"eval": [f"run={place}"], "predict": [place, "x.png", "--support", "y"]}.get(command, [place])
        said = refused(command, *words)
        assert str(place) in said
        assert name in said


def test_a_loss_that_is_not_finite_ends_the_run_with_4_and_no_checkpoint_of_it(fsl, tiny, tmp_path):
    import torch

    from fewshot_runner.engine.checkpoint import load
    from fewshot_runner.runs import RunFolder

    answer = fsl("train", *tiny(), "method.optimizer.lr=1e30", f"output_dir={tmp_path}")
    assert answer.code == 4, answer.err
    assert "Traceback" not in answer.err
    [config] = tmp_path.rglob("config.yaml")
    run = RunFolder(config.parent)
    status = run.read_status()
    assert status["state"] == "failed"
    assert re.match(r"loss is (nan|inf) at step \d+: lower .*method\.optimizer\.lr", status["reason"])
    assert answer.err.splitlines()[-1] == f"fsl: {status['reason']}; the run is in {run.path}"
    for path in run.checkpoints.glob("*.pt"):
        assert all(tensor.isfinite().all() for tensor in load(path)["method"].values() if torch.is_tensor(tensor))
    assert "NotFinite" in run.log.read_text()


def test_an_unknown_command_names_the_nearest(refused):
    assert "did you mean fsl train" in refused("trian")
    assert "predict" in refused("xyz")


def test_a_defect_of_ours_shows_its_traceback_and_exits_with_1(fsl, monkeypatch):
    import fewshot_runner.cli.list

    monkeypatch.setattr(fewshot_runner.cli.list, "run", None)  # an error in fsl's own lines, not in these
    answer = fsl("list")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "TypeError" in answer.err
    assert "defect of fsl" in answer.err


def test_the_process_itself_exits_with_2_and_says_so_on_stderr(elsewhere, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # which commands called in this process set
    process = subprocess.run([*FSL, "train", "trainer.max_step=1"], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr == "fsl: trainer.max_step: there is no such key; did you mean trainer.max_steps?\n"
    assert list(elsewhere.iterdir()) == []
