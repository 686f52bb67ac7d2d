"""The experiments of the SPOCO paper (Wolny et al. 2022), on data that anyone can have.

One suite per data set: a common configuration, and what each run changes in it. A change is the
dotted name of a value in the TOML file; None takes the value, or its whole section, out.
"""

from __future__ import annotations

from typing import Any

from training.experiments.suite import Run, Suite

WITH_BACKGROUND: dict[str, Any] = {
    "teacher": None,
    "clusterer.tried.merge": [2.6, 3.0, 3.4, 4.0],
    "clusterer.tried.radius": [1.9, 2.8, 3.4, 3.8],
}
"""The background is labeled and pulled to one place: its spread is not tried, and a radius is a
distance."""

FULL: dict[str, Any] = {**WITH_BACKGROUND, "supervision": None}
"""Every instance is labeled, and the background."""

AGAIN: dict[str, Any] = {"transfer.lr_factor": 0.5}
"""A second run of the same length, from the weights of the first one."""

PSEUDO: dict[str, Any] = {
    **WITH_BACKGROUND,
    **AGAIN,
    "supervision.pseudo_background": True,
}
"""AGAIN, with the background that the first run's model sees."""


def pseudo(percent: int, suite: str) -> Run:
    """PSEUDO, after the suite's run of SPOCO with `percent` of the labels."""
    return Run(
        f"sparse-{percent}-pseudo",
        f"SPOCO@{percent / 100}, then as long with the background that it sees",
        {"supervision.fraction": percent / 100, **PSEUDO},
        source=f"{suite}/sparse-{percent}",
    )


NOT_TRAINED: dict[str, Any] = {
    "run.max_steps": 1,
    "run.epoch_steps": 1,
    "run.compile": False,
    "optimiser.lr": 0.0,
}

READY: dict[str, Any] = {
    "network": {"width": 32, "levels": 3, "local_radius": 32},
    "loss.push": 0.25,
    "patch.output": 180,
}
"""As nuclei-fluo-2d was trained, on patches that fit the images of bbbc039."""

BUDGET: dict[str, Any] = {"supervision.fraction": None, "supervision.instances": 16}

DENSE: dict[str, Any] = {**FULL, "supervision": {"instances": 16, "dense": True}}


DSB2018_FLUO = Suite(
    name="dsb2018_fluo",
    title="Supervision, terms and teachers on nuclei in fluorescence",
    runs=(
        Run("full", "SPOCO, full supervision", FULL),
        Run(
            "discriminative",
            "discriminative loss, full supervision",
            {**FULL, "loss.kind": "discriminative"},
        ),
        Run("sparse-100", "SPOCO@1.0", {"supervision.fraction": 1.0}),
        Run("sparse-40", "SPOCO@0.4", {"supervision.fraction": 0.4}),
        Run("sparse-10", "SPOCO@0.1", {}),
        Run(
            "all-pairs",
            "every instance compared with every other, as in the paper",
            {"loss.neighbourhood": None},
        ),
        Run("no-unlabeled-push", "without U_push", {"loss.unlabeled_push": 0.0}),
        Run("no-consistency", "without U_con", {"loss.consistency": 0.0, "teacher": None}),
        Run(
            "momentum-99",
            "teacher: momentum 0.99, which forgets in 100 steps",
            {"teacher.momentum": 0.99},
        ),
        Run("shared", "teacher: shared weights", {"teacher.kind": "shared"}),
        Run("dropout", "teacher: dropout", {"teacher.kind": "dropout"}),
        Run("trained", "teacher: trained", {"teacher.kind": "trained"}),
        Run("budget-sparse", "16 instances over all images", BUDGET),
        Run(
            "budget-dense",
            "16 instances of whole images, with their background",
            DENSE,
        ),
        Run(
            "sparse-10-again",
            "SPOCO@0.1, twice as long",
            AGAIN,
            source="dsb2018_fluo/sparse-10",
        ),
        pseudo(10, "dsb2018_fluo"),
        pseudo(40, "dsb2018_fluo"),
        pseudo(100, "dsb2018_fluo"),
        Run(
            "budget-sparse-pseudo",
            "16 instances over all images, then as long with the background that it sees",
            {**BUDGET, **PSEUDO},
            source="dsb2018_fluo/budget-sparse",
        ),
        Run(
            "budget-dense-again",
            "16 instances of whole images, twice as long",
            {**DENSE, **AGAIN},
            source="dsb2018_fluo/budget-dense",
        ),
        Run("t-50", "t = 0.5 in place of 0.9", {"loss.t": 0.5}),
        Run(
            "valid",
            "valid convolutions, full supervision, no local normalisation",
            {**FULL, "network.local_radius": None, "network.upsampling": "nearest"},
        ),
        Run(
            "same",
            "zero-padded convolutions that read the same patches",
            {
                **FULL,
                "network.local_radius": None,
                "network.architecture": "unet_same",
                "patch.output": 164,
            },
        ),
    ),
)

BBBC039 = Suite(
    name="bbbc039",
    title="Transfer from dsb2018_fluo to an assay with few annotations",
    runs=(
        Run(
            "source",
            "the source as it is",
            {**FULL, **NOT_TRAINED},
            source="dsb2018_fluo/full",
        ),
        *(
            run
            for percent in (1, 5, 10)
            for run in (
                Run(
                    f"transfer-{percent}",
                    f"transfer, p = {percent / 100:g}",
                    {"supervision.fraction": percent / 100},
                    source="dsb2018_fluo/full",
                ),
                Run(
                    f"scratch-{percent}",
                    f"from scratch, p = {percent / 100:g}",
                    {"supervision.fraction": percent / 100},
                ),
            )
        ),
        Run(
            "ready",
            "nuclei-fluo-2d as it is",
            {**FULL, **READY, **NOT_TRAINED},
            source="nuclei-fluo-2d",
        ),
        Run("ready-10", "nuclei-fluo-2d, transfer, p = 0.1", READY, source="nuclei-fluo-2d"),
        Run(
            "ready-dense-10",
            "the same, a tenth of the images with their background",
            {**FULL, **READY, "supervision": {"fraction": 0.1, "dense": True}},
            source="nuclei-fluo-2d",
        ),
    ),
)

USIIGACI = Suite(
    name="usiigaci",
    title="Non-convex cells in phase contrast",
    runs=(
        Run("full", "SPOCO, full supervision", FULL),
        Run("sparse-10", "SPOCO@0.1", {}),
        pseudo(10, "usiigaci"),
    ),
)

BBBC050 = Suite(
    name="bbbc050",
    title="3D nuclei of two cameras: what is tile-safe and holds for both",
    runs=(
        Run("full", "SPOCO, full supervision", FULL),
        Run("sparse-10", "SPOCO@0.1", {}),
        pseudo(10, "bbbc050"),
        Run(
            "fixed",
            "SPOCO, full supervision, fixed constants for the intensities",
            {**FULL, "network.local_radius": 0, "data.gain": 0.002, "data.offset": -0.2},
        ),
    ),
)

VNC = Suite(
    name="vnc",
    title="Mitochondria in sections, evaluation only",
    runs=(Run("full", "SPOCO, full supervision", FULL), Run("sparse-10", "SPOCO@0.1", {})),
)

SUITES = {suite.name: suite for suite in (DSB2018_FLUO, BBBC039, USIIGACI, BBBC050, VNC)}
