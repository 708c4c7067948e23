"""scripts/quickstart: the commands that it gives, with settings that make them small."""

import shlex
from pathlib import Path

from fewshot_runner.runs import RunFolder

SCRIPT = Path(__file__).parents[2] / "scripts" / "quickstart"


def test_the_quickstart_trains_and_compares(fsl, tiny, elsewhere):
    lines = [shlex.split(line) for line in SCRIPT.read_text().splitlines() if line.startswith("fsl ")]
    *trainings, comparison = [words[1:] for words in lines]
    assert comparison == ["compare", "outputs"]
    runs = {}
    for command, *words in trainings:
        [method] = [word.removeprefix("method=") for word in words if word.startswith("method=")] or ["prototypical"]
        chosen = ("dataset=", "model", "method=", "episode.n_way")  # by the script and the recipe
        small = [word for word in tiny(method) if not word.startswith(chosen)]
        answer = fsl(command, *small, *words)  # what the script itself says counts last
        assert answer.code == 0, answer.err
        runs[method] = RunFolder(answer.run)
    assert {method: run.read_status()["step"] for method, run in runs.items()} == {"prototypical": 20, "pixels": 0}
    for run in runs.values():
        config = run.read_config()
        assert config["choices"]["experiment"] == "quickstart"
        assert (config["choices"]["dataset"], config["choices"]["episode"]) == ("glyphs", "5way1shot")
        [result] = run.read_summary()["results"]
        assert (result["n_way"], result["n_shot"]) == (5, 1)
    answer = fsl(*comparison)
    assert answer.code == 0, answer.err
    assert {method for method in runs if method in answer.out} == {"prototypical", "pixels"}
    assert [path.name for path in elsewhere.iterdir()] == ["outputs"]
