"""What a training loop does, written down."""

import io

import torch


class Recorder:
    """Stands for the log and for the checkpoint folder, and writes down what is asked of them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.train: dict[int, dict[str, float]] = {}
        self.val: dict[int, dict[str, float]] = {}
        self.states: dict[int, dict] = {}
        self.best: dict | None = None
        self.speeds: list[float] = []

    def step(self, step: int, figures: dict[str, float], *, rate: float, images_per_second: float) -> None:
        self.events.append(f"log {step}")
        self.train[step] = {**figures, "learning_rate": rate}
        self.speeds.append(images_per_second)

    def validation(self, step: int, figures: dict[str, float]) -> None:
        self.events.append(f"log validation {step}")
        self.val[step] = figures

    def flush(self) -> None:
        self.events.append("flush")

    def save_step(self, step: int, state: dict) -> None:
        self.events.append(f"save step {step}")
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        self.states[step] = torch.load(buffer, weights_only=True)

    def save_best(self, state: dict) -> None:
        self.events.append(f"save best {state['step']}")
        self.best = {name: value.clone() for name, value in state["method"].items()}
