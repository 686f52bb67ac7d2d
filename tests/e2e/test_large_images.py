"""An image in blocks, cut and taken up again, comes out as the image in one piece."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from tests.e2e import blockwise
from tests.e2e.blockwise import ignore, in_blocks, outputs, segmented
from tests.e2e.conftest import contents, run
from tests.training.conftest import discs
from zoo_models.errors import BlocksFailedError, OutputExistsError
from zoo_models.prediction import stream
from zoo_models.prediction.images import read_image, read_labels
from zoo_models.prediction.label_store import LabelStore
from zoo_models.prediction.predict import Options, Predictor
from zoo_models.prediction.schedule import (
    NEEDED,
    DaskCluster,
    Done,
    dask_cluster,
)
from zoo_models.prediction.source import Place
from zoo_models.prediction.stored_embeddings import read_embeddings
from zoo_models.prediction.stream import Worker

dask_leaves_sockets = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs, of which many lie across the seams of blocks of 64 pixels."""
    path = tmp_path_factory.mktemp("image") / "discs.tif"
    tifffile.imwrite(path, discs((200, 230), 3)[0], tile=(64, 64))
    return path


@pytest.fixture(scope="module")
def whole(package: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All outputs of a run in one block."""
    return segmented(package, image, tmp_path_factory.mktemp("whole"), edge=256).parent


@pytest.mark.parametrize("edge", [32, 96])
def test_blocks_of_any_size_give_the_labels_and_the_table_of_the_whole(
    package: Path, image: Path, whole: Path, tmp_path: Path, edge: int
) -> None:
    labels = read_labels(segmented(package, image, tmp_path, edge=edge))
    expected = read_labels(whole / "labels.ome.tif")
    np.testing.assert_array_equal(labels, expected)
    assert expected.max() > 20
    assert (tmp_path / "objects.csv").read_text() == (whole / "objects.csv").read_text()
    assert [path.name for path in tmp_path.glob("*.job")] == []


def test_labels_in_blocks_are_those_of_clustering_the_embeddings_at_once(
    package: Path, whole: Path
) -> None:
    predictor = Predictor(package, Options())
    stored = read_embeddings(whole / "embeddings.ome.zarr", predictor.package.space)
    expected = predictor.package.clusterer(stored.data)
    np.testing.assert_array_equal(read_labels(whole / "labels.ome.tif"), expected)


def killed_when(wanted: int, package: Path, image: Path, out: Path) -> None:
    """Begin or go on, and kill it as soon as `wanted` files more are kept."""
    folder = outputs(out, "zarr").folder
    kept = sum(1 for _ in folder.rglob("*.npz")) + wanted
    command = [sys.executable, "-m", blockwise.__name__, str(package), str(image), str(out)]
    process = subprocess.Popen(command)
    while process.poll() is None and sum(1 for _ in folder.rglob("*.npz")) < kept:
        time.sleep(0.002)
    process.kill()  # SIGKILL, unless it has come to its end
    assert process.wait() in (0, -signal.SIGKILL)


def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(
    package: Path, image: Path, tmp_path: Path
) -> None:
    """Byte for byte."""
    undisturbed = segmented(package, image, tmp_path / "undisturbed", labels="ome-zarr").parent
    for wanted in (1, 9, 40):
        killed_when(wanted, package, image, tmp_path / "killed")
    segmented(package, image, tmp_path / "killed", labels="ome-zarr")
    assert contents(tmp_path / "killed") == contents(undisturbed)


@pytest.mark.parametrize("labels", ["ome-zarr", "ome-tiff"])
def test_a_run_that_is_killed_when_its_labels_have_their_name_keeps_them(
    package: Path, image: Path, tmp_path: Path, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = segmented(package, image, tmp_path / "undisturbed", labels=labels).parent

    def killed(_: Path) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(stream, "forget", killed)
        with pytest.raises(InterruptedError):
            segmented(package, image, tmp_path / "killed", labels=labels)
    segmented(package, image, tmp_path / "killed", labels=labels)
    assert contents(tmp_path / "killed") == contents(undisturbed)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(package: Path, image: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    undisturbed = segmented(package, image, tmp_path / "undisturbed", labels="ome-zarr").parent
    for _ in range(20):
        killed_when(int(draw.integers(0, 9)), package, image, tmp_path / "killed")
        if outputs(tmp_path / "killed", "zarr").labels.exists():
            break  # it was done before the kill
    made = outputs(tmp_path / "killed", "zarr")
    if made.folder.exists() or not made.labels.exists():
        segmented(package, image, tmp_path / "killed", labels="ome-zarr")
    assert contents(tmp_path / "killed") == contents(undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from Linux")
@pytest.mark.parametrize("mib", [1000, 1400])
def test_a_run_holds_no_more_memory_than_it_was_allowed(
    mib: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The smallest ready model on 3000 x 3000 pixels, in a process of its own."""
    folder = tmp_path_factory.mktemp("allowed")
    model = folder / "model.zip"
    assert run("export", "nuclei-fluo-2d-discriminative", "-o", model).code == 0
    image, _ = discs((300, 300), seed=0)
    array = zarr.create_array(folder / "image.zarr", shape=(3000, 3000), dtype=image.dtype)
    array[:] = np.tile(image, (10, 10))
    command = ["predict", str(model), str(folder / "image.zarr"), "--axes", "yx", "-o", str(folder)]
    code = (
        "import sys; from packager.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "print(next(t for t in open('/proc/self/status') if t.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--memory", f"{mib}MiB", "--labels", "ome-zarr"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.split()[-1]) / 1024 <= mib


def test_a_full_disk_fails_a_block_and_keeps_the_others(
    package: Path, image: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LabelStore.write

    def full(self: LabelStore, box: object, *rest: object) -> None:
        if box.start == (64, 128):  # type: ignore[attr-defined]
            raise OSError(28, os.strerror(28))
        write(self, box, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LabelStore, "write", full)
    with pytest.raises(BlocksFailedError) as error:
        segmented(package, image, tmp_path)
    assert "1 of 16 blocks failed in step 'labels': block (64, 128) to (128, 192)" in str(
        error.value
    )
    assert "No space left" in str(error.value)
    monkeypatch.undo()
    done: list[Done] = []
    monkeypatch.setattr("tests.e2e.blockwise.ignore", done.append)
    labels = read_labels(segmented(package, image, tmp_path))
    assert [(d.step, d.block.start) for d in done] == [("labels", (64, 128))]
    np.testing.assert_array_equal(labels, read_labels(whole / "labels.ome.tif"))


def test_what_was_changed_meanwhile_is_refused(
    package: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "discs.tif"
    copy.write_bytes(image.read_bytes())

    def cut(self: Worker, *rest: object) -> None:
        raise RuntimeError("cut")

    monkeypatch.setattr(Worker, "write", cut)
    with pytest.raises(BlocksFailedError):
        segmented(package, copy, tmp_path)
    monkeypatch.undo()
    os.utime(copy, (1, 1))
    with pytest.raises(OutputExistsError, match=r"image contents .* now .* --overwrite"):
        segmented(package, copy, tmp_path)
    predictor = Predictor(package, Options(tile=200))
    with pytest.raises(OutputExistsError, match="tile None, now 200"):
        predictor.prepare(Place(str(copy)), None, outputs(tmp_path))
    job = predictor.prepare(Place(str(copy)), None, outputs(tmp_path), overwrite=True)
    assert job.request.tile == 200
    assert not outputs(tmp_path).folder.exists()


def test_a_run_keeps_its_number_of_threads_as_other_threads_give_other_bytes(
    package: Path, image: Path, tmp_path: Path
) -> None:
    place, targets = Place(str(image)), outputs(tmp_path)
    begun = Predictor(package, Options(threads=1)).prepare(place, None, targets)
    begun.save(targets.folder)
    taken_up = Predictor(package, Options(threads=2)).prepare(place, None, targets)
    assert (taken_up.choice.threads, taken_up) == (1, begun)


def test_a_zarr_becomes_labels_with_a_pyramid_and_embeddings_of_half_the_size(
    package: Path, image: Path, tmp_path: Path
) -> None:
    stored = zarr.create_array(
        tmp_path / "discs.zarr", shape=(200, 230), chunks=(64, 64), dtype="u1"
    )
    stored[:] = tifffile.imread(image)
    options = ("--labels", "ome-zarr", "--embeddings", "float16", "--axes", "yx")
    outcome = run("predict", package, tmp_path / "discs.zarr", "-o", tmp_path / "out", *options)
    assert outcome.code == 0, outcome.err
    assert run("predict", package, image, "-o", tmp_path / "tif").code == 0
    expected = read_labels(tmp_path / "tif" / "discs_labels.ome.tif")
    labels = LabelStore.open(tmp_path / "out" / "discs_labels.ome.zarr").read()
    np.testing.assert_array_equal(labels, expected)
    scored = run("evaluate", tmp_path / "out", tmp_path / "tif")
    assert "1.000" in scored.out
    assert scored.code == 0, scored.err
    embeddings = zarr.open_array(tmp_path / "out" / "discs_embeddings.ome.zarr" / "0")
    assert embeddings.dtype == np.float16
    assert embeddings.shape == (4, 200, 230)


def test_the_planes_of_a_stack_are_images_of_their_own_with_ids_of_their_own(
    package: Path, tmp_path: Path
) -> None:
    planes = np.stack([discs((48, 64), seed)[0] for seed in (20, 21)])
    tifffile.imwrite(tmp_path / "stack.tif", planes, metadata={"axes": "ZYX"}, ome=True)
    outcome = run("predict", package, tmp_path / "stack.tif", "-o", tmp_path)
    assert outcome.code == 0, outcome.err
    found = read_labels(tmp_path / "stack_labels.ome.tif")
    numbers = 0
    for plane, labels in zip(planes, found, strict=True):
        tifffile.imwrite(tmp_path / "plane.tif", plane)
        run("predict", package, tmp_path / "plane.tif", "-o", tmp_path, "--overwrite")
        expected = read_labels(tmp_path / "plane_labels.ome.tif")
        np.testing.assert_array_equal(labels, np.where(expected > 0, expected + numbers, 0))
        numbers += expected.max()
    assert numbers >= 6


def test_a_region_is_an_image_of_its_own(package: Path, image: Path, tmp_path: Path) -> None:
    outcome = run("predict", package, image, "-o", tmp_path, "--region", "40:150,16:200")
    assert outcome.code == 0, outcome.err
    tifffile.imwrite(tmp_path / "cut.tif", read_image(image).data[0, 40:150, 16:200])
    assert run("predict", package, tmp_path / "cut.tif", "-o", tmp_path).code == 0
    expected = read_labels(tmp_path / "cut_labels.ome.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "discs_labels.ome.tif"), expected)
    region = ("--region", "40:150,16:200", "--labels", "ome-zarr", "--overwrite")
    assert run("predict", package, image, "-o", tmp_path, *region).code == 0
    store = tmp_path / "discs_labels.ome.zarr/labels/instances"
    np.testing.assert_array_equal(zarr.open_array(store / "0", mode="r")[:], expected)
    ome = zarr.open_group(store, mode="r").attrs["ome"]
    moved = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]  # type: ignore[index, call-overload]
    assert moved["translation"] == [40, 16]  # type: ignore[index, call-overload]


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    package: Path, image: Path, tmp_path: Path
) -> None:
    outcome = run("predict", package, image, "-o", tmp_path / "out", "--dry-run")
    assert outcome.code == 0, outcome.err
    for word in ("200 x 230 pixels", "tiles", "blocks  1 of 200 x 230", "torchscript", "KiB"):
        assert word in outcome.out
    assert not (tmp_path / "out").exists()


def test_events_for_pipelines_are_one_json_per_line(
    package: Path, image: Path, tmp_path: Path
) -> None:
    outcome = run("predict", package, image, "missing.tif", "-o", tmp_path, "--json")
    assert outcome.code == 2
    outcome = run("predict", package, image, "-o", tmp_path, "--json")
    events = [json.loads(line) for line in outcome.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["plan", "block", "block", "image"]
    assert events[0]["shape"] == [200, 230]
    assert [event["step"] for event in events[1:3]] == ["fragments", "labels"]
    assert events[-1]["instances"] == read_labels(events[-1]["labels"]).max()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--memory", "much"), ("--memory much", "4GiB")),
        (("--labels", "png"), ("--labels png", "ome-zarr")),
        (("--table", "xlsx"), ("--table xlsx", "parquet")),
        (("--embeddings", "int8"), ("--embeddings int8", "float16")),
        (("--precision", "half"), ("--precision half", "bfloat16")),
        (("--region", "1:2"), ("region", "y")),
        (("--region", "a:b,1:2"), ("--region a:b,1:2", "0:2048")),
        (("--region", "0:500,0:10"), ("(0, 500)", "200")),
        (("--axes", "xyz"), ("xyz",)),
        (("--engine", "magic"), ("magic", "torchscript")),
        (("--scheduler", "tcp://127.0.0.1:1"), ("tcp://127.0.0.1:1", "dask")),
        (("--memory", "1MB"), ("MiB", "--memory")),
    ],
)
def test_words_that_mean_nothing_are_refused(
    package: Path, image: Path, tmp_path: Path, options: tuple[str, str], words: tuple[str, ...]
) -> None:
    line = run("predict", package, image, "-o", tmp_path, *options).error
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())


def test_a_batch_that_was_cut_goes_on_with_the_images_that_are_missing(
    package: Path, image: Path, tmp_path: Path
) -> None:
    assert run("predict", package, image, "-o", tmp_path).code == 0
    before = contents(tmp_path)
    assert "--skip-existing" in run("predict", package, image, "-o", tmp_path).error
    other = tmp_path / "other.tif"
    other.write_bytes(image.read_bytes())
    outcome = run("predict", package, image, other, "-o", tmp_path, "--skip-existing")
    assert outcome.out.count("instances") == 1
    assert {name: contents(tmp_path)[name] for name in before} == before


def with_dask(package: Path, image: Path, out: Path, *, kill: bool = False) -> Path:
    """In two processes; with `kill`, one of them dies once some blocks are done."""
    from dask.distributed import Client, LocalCluster

    options = Options(threads=1, labels="ome-zarr", table="csv", embeddings="float32")
    predictor = Predictor(package, options)
    targets = outputs(out, "zarr")
    job = in_blocks(predictor.prepare(Place(str(image)), None, targets))
    two = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with two as cluster, Client(cluster) as client:
        workers = list(client.run(os.getpid).values())

        def follow(done: Done) -> None:
            if kill and (done.step, done.count) == ("fragments", 3):
                os.kill(workers[0], signal.SIGKILL)

        predictor.run(job, targets, DaskCluster(client, follow), remote=True)
    return out


@dask_leaves_sockets
def test_two_processes_of_dask_give_the_same_bytes(
    package: Path, image: Path, tmp_path: Path
) -> None:
    with_dask(package, image, tmp_path / "dask")
    segmented(package, image, tmp_path / "threads", labels="ome-zarr")
    assert contents(tmp_path / "dask") == contents(tmp_path / "threads")


@pytest.mark.slow
@dask_leaves_sockets
def test_workers_import_what_blocks_need_before_the_first_of_them() -> None:
    with dask_cluster("local", ignore) as cluster:
        for _ in range(600):
            found = cluster.client.run(lambda: set(NEEDED) <= set(sys.modules))
            if all(found.values()):
                return
            time.sleep(0.1)
    pytest.fail(f"after a minute: {found}")


@pytest.mark.slow
@dask_leaves_sockets
def test_a_worker_that_dies_is_replaced_and_nothing_is_wrong(
    package: Path, image: Path, tmp_path: Path
) -> None:
    with_dask(package, image, tmp_path / "killed", kill=True)
    segmented(package, image, tmp_path / "threads", labels="ome-zarr")
    assert contents(tmp_path / "killed") == contents(tmp_path / "threads")
