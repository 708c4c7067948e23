"""fsl export: a run's best weights as safetensors, its config beside them."""

import argparse
import json
import shutil
from pathlib import Path

from fewshot_runner.errors import UserError
from fewshot_runner.runs import WEIGHTS, RunFolder


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl export",
        description="Writes model.safetensors (the best weights) and config.yaml to a folder. The metadata of the "
        "weights hold step, data set and split, and as JSON the facts that the network was built for and the classes "
        "of a trained head in the order of its outputs, of which other methods have none.",
    )
    parser.add_argument("run", help="the run folder")
    parser.add_argument("-o", "--output", type=Path, help="the folder to write to (default: RUN/export)")
    options = parser.parse_args(arguments)
    folder = RunFolder.open(options.run)
    folder.read_config()  # refused where it is damaged: weights without their config are of no use
    output = options.output or folder.export

    from safetensors.torch import save  # late: a wrong folder is refused without torch

    from fewshot_runner import atomic
    from fewshot_runner.cli.trained import best_checkpoint

    checkpoint = best_checkpoint(folder)
    weights = {name: tensor.contiguous().clone() for name, tensor in checkpoint["method"].items()}
    about = {"step": str(checkpoint["step"]), "dataset": checkpoint["dataset"], "split": checkpoint["split"]}
    about |= {key: json.dumps(checkpoint.get(key, [])) for key in ("classes", "facts")}  # safetensors holds text alone
    made = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(output / WEIGHTS, save(weights, metadata=about))
        shutil.copyfile(folder.config, output / folder.config.name)
    except OSError as error:
        if made:
            shutil.rmtree(output, ignore_errors=True)
        raise UserError(f"{output}: cannot be written ({error}); choose another folder with --output") from error
    print(f"export: {output}")
