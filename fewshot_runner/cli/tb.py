"""fsl tb: TensorBoard over all runs of a folder, for this machine alone."""

import argparse
import signal
import sys
import time
from pathlib import Path

from fewshot_runner.errors import UserError
from fewshot_runner.report.records import check_folder

HOST = "127.0.0.1"
EVENTS = "*tfevents*"  # the names by which TensorBoard knows its files


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("fsl tb", description="Starts TensorBoard on 127.0.0.1 and says where.")
    parser.add_argument("folder", nargs="?", default="outputs", help="a run, or a folder of runs (default: outputs)")
    parser.add_argument("--port", type=int, help="default: 6006, or the next free one")
    options = parser.parse_args(arguments)
    check_folder(Path(options.folder))
    if next(Path(options.folder).rglob(EVENTS), None) is None:
        raise UserError(f"{options.folder}: no runs below this folder, so nothing to show; fsl train makes some")

    from tensorboard import program  # late: takes a second

    board = program.TensorBoard()
    where = ["--host", HOST] if options.port is None else ["--host", HOST, "--port", str(options.port)]
    board.configure(argv=["fsl tb", "--logdir", options.folder, *where])
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise UserError(f"TensorBoard could not start: {error}; choose another port with --port") from error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"TensorBoard: {url}  (stop with Ctrl-C)", flush=True)
    while True:  # rather than signal.pause, which a signal that comes just before it does not end
        time.sleep(1)
