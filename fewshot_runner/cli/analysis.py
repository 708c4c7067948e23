"""Computes what a report shows of a run and its summary does not hold."""

import io
from dataclasses import replace
from typing import Any

from PIL import Image

from fewshot_runner import atomic
from fewshot_runner.cli.session import build
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.engine.analysis import analyse
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.errors import UserError
from fewshot_runner.report.analysis import VERSION
from fewshot_runner.runs import RunFolder


def analyse_run(run: RunFolder) -> None:
    """Leaves the analysis of the best weights in the run folder. Raises `UserError`."""
    trained = load_trained(run)
    narrator = Narrator()
    with run.held(), StopRequest() as stop:
        builder = build(trained.config, narrator, stop)
        refuse_changed(builder.dataset.provenance, trained.checkpoint)
        with narrator.doing(f"analyse {run.name}"):
            analysis = analyse(
                trained.method, builder.tests(trained.classes), hardware=builder.hardware, between=stop.check
            )
        folder = run.analysis
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        for name, picture in analysis.pictures.items():
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG", optimize=True)
            atomic.write_bytes(folder / name, buffer.getvalue())
        step = trained.checkpoint["step"]
        content = {"version": VERSION, "step": step, **builder.dataset.provenance.entries(), **analysis.content}
        atomic.write_json(run.analysis_content, content)  # last: with it the analysis is whole


def refuse_changed(data: Provenance, checkpoint: dict[str, Any]) -> None:
    """Raises `UserError` where the data are no longer the run's, whatever their folder is called by now."""
    if changed := replace(data, dataset=checkpoint["dataset"]).changes(checkpoint):
        raise UserError(
            f"the data has changed since this run was trained on it ({'; '.join(changed)}), so it may show classes of "
            "training; put the former data back"
        )
