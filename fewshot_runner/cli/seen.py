"""What a run was trained or selected on is no test of it."""

from typing import Any

import numpy as np

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.protocols import KINDS
from fewshot_runner.errors import UserError


def refuse_seen(builder: Builder, checkpoint: dict[str, Any]) -> None:
    """Raises `UserError` where the test would show classes, or of known classes images, that the run was trained or
    selected on.

    The name of a data set proves nothing: of pictures of one's own, it is that of a folder.
    """
    data = builder.dataset.provenance
    if not data.changes(checkpoint):
        return  # the run's own split keeps its parts apart, and its results say what is copied among them
    of_known_classes = all(KINDS[test.protocol].of_known_classes for test in builder.plan.tests.values())
    seen_files, tested_files = checkpoint.get("seen_files"), builder.dataset.files_of(*measured_parts(builder))
    files_are_known = seen_files is not None and tested_files is not None
    if not (of_known_classes and files_are_known):
        refuse_seen_classes(builder, checkpoint, of_known_classes=of_known_classes)
    if files_are_known:  # the same pictures may have other names
        refuse_seen_files(seen_files.cpu().numpy(), tested_files.view(np.int64), data.dataset)


def refuse_seen_classes(builder: Builder, checkpoint: dict[str, Any], *, of_known_classes: bool) -> None:
    """Raises `UserError` where classes to be tested have the names of some that the run was trained on."""
    data = builder.dataset.provenance
    same = data.dataset == checkpoint["dataset"] or data.images_hash == checkpoint.get("images_hash")
    if of_known_classes and (not same or data.split_hash == checkpoint["split_hash"]):
        return  # other images, as far as names tell
    if "seen_classes" not in checkpoint:
        raise UserError(
            "this run was trained by an earlier version, which did not write down its classes, so nobody knows whether "
            "the test shows any of them; train it again, or evaluate it under its own split"
        )
    seen = sorted({*checkpoint["seen_classes"]} & {*builder.dataset.classes_of("test")})
    if not seen:
        return
    count = f"{len(seen)} of its test classes ({', '.join(seen[:3])}{' ...' if len(seen) > 3 else ''})"
    if not same:
        split = "test" if checkpoint.get("classes") else "images"  # a trained head needs no images beside them
        raise UserError(
            f"dataset {data.dataset}: {count} have the names of classes of {checkpoint['dataset']} that were used in "
            "training this run; the figure would be inflated. Leave them out of the test part, or rename them if they "
            "are other classes; other images of known classes are tested by eval.protocol=closed_set "
            f"dataset.split={split}"
        )
    raise UserError(
        f"dataset.split={data.split}: {count} were used in training this run under the split "
        f"{checkpoint['split']}; the figure would be inflated. Train a run under a split that keeps them apart, or "
        "evaluate by the protocol and the split of this one"
    )


def measured_parts(builder: Builder) -> set[str]:
    """The parts that the tests' figures are of: retrieval's is validation where nobody has labelled the test."""
    unlabelled = len(builder.dataset.unlabelled()) > 0
    tests = builder.plan.tests.values()
    return {"val" if test.protocol == "retrieval" and unlabelled else "test" for test in tests}


def refuse_seen_files(seen: np.ndarray, tested: np.ndarray, dataset: str) -> None:
    """Raises `UserError` where pictures to be tested, by their checksums, are some that the run was trained on."""
    if count := np.isin(tested, seen).sum():
        raise UserError(
            f"dataset {dataset}: {count} of its {len(tested)} test pictures were used in training this run; the figure "
            "would be inflated. Leave them out, or evaluate under the run's own split"
        )
