"""What is installed, what torch can run on, and who else claims our import names.

Three import names are short English words, so another distribution may bring one of the same
name. Python then imports whichever comes first on its path, without a word:

    sys.path   [/their/checkout]            [site-packages]
               training/   <- imported      training/  <- ours, never seen
"""

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = "spoco-zoo"
IMPORT_NAMES = ("zoo_models", "packager", "training")
OUR_ROOT = Path(__file__).resolve().parents[1]

State = Literal["good", "missing", "problem"]


@dataclass(frozen=True)
class Row:
    """One thing looked at. `missing` is optional and absent; `problem` has to be mended."""

    topic: Literal["system", "packages", "devices", "import names"]
    name: str
    value: str
    state: State = "good"
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All rows, in the order to show them."""

    rows: tuple[Row, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """One line per row that has to be mended: what was found and what to do."""
        return tuple(
            f"{row.name}: {row.value}: {row.hint}" for row in self.rows if row.state == "problem"
        )

    def as_json(self) -> dict[str, object]:
        """The diagnosis as plain values for JSON."""
        return {
            "problems": list(self.problems),
            "rows": [dict(vars(row)) for row in self.rows],
        }


def diagnose() -> Diagnosis:
    """Look at Python, our dependencies, torch's devices and the owners of our import names.

    Never raises on a broken installation: what fails is a row.
    """
    return Diagnosis((*_system(), *_packages(), *_devices(), *_import_names()))


def _system() -> list[Row]:
    return [
        Row("system", "python", f"{platform.python_version()} ({sys.executable})"),
        Row("system", "platform", platform.platform()),
    ]


def _packages() -> list[Row]:
    """Our own distribution, then what it requires, each requirement with its extras."""
    try:
        ours = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        hint = f"install it: python -m pip install {DISTRIBUTION}"
        return [Row("packages", DISTRIBUTION, "not installed", "problem", hint)]
    extras_of: dict[str, list[str]] = {}
    requirements: dict[str, Requirement] = {}
    for requirement in map(Requirement, ours.requires or ()):
        marker = requirement.marker
        extras = ["", *(ours.metadata.get_all("Provides-Extra") or ())]
        wanted_by = [e for e in extras if marker is None or marker.evaluate({"extra": e})]
        if not wanted_by:
            continue  # for another platform or Python
        name = canonicalize_name(requirement.name)
        extras_of.setdefault(name, []).extend(wanted_by)
        requirements.setdefault(name, requirement)
    rows = [_package(requirements[name], extras_of[name], ours) for name in requirements]
    return [Row("packages", DISTRIBUTION, ours.version), *rows]


def _package(requirement: Requirement, extras: list[str], ours: metadata.Distribution) -> Row:
    """`extras`: those that want it; the empty one stands for the plain installation."""
    name, optional = requirement.name, "" not in extras
    install = _install_command(ours, min(extras, key=lambda extra: extra == "dev"))
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        state: State = "missing" if optional else "problem"
        return Row("packages", name, "not installed", state, install)
    if not requirement.specifier.contains(version, prereleases=True):
        value = f"{version}, expected {requirement.specifier}"
        return Row("packages", name, value, "problem", install)
    return Row("packages", name, version)


def _install_command(ours: metadata.Distribution, extra: str) -> str:
    what = f"[{extra}]" if extra else ""
    source = _direct_url(ours)
    folder = url2pathname(urlsplit(source).path) if source.startswith("file:") else ""
    if folder and Path(folder).is_dir():  # installed from a checkout
        return f"python -m pip install -e '{folder}{what}'"
    return f"python -m pip install '{DISTRIBUTION}{what}'"


def _devices() -> list[Row]:
    """CPU, CUDA and MPS as torch sees them, and whether they compute in bfloat16."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        hint = "install torch for this platform: see https://pytorch.org/get-started"
        value = str(error).splitlines()[0] if str(error) else "cannot be imported"
        return [Row("devices", "torch", value, "problem", hint)]
    capability = torch.backends.cpu.get_cpu_capability()
    threads = f"{torch.get_num_threads()} thread(s), {capability}"
    rows = [Row("devices", "cpu", f"{threads}, bf16 {_tried(_cpu_has_bf16)}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bf16 = _tried(lambda: torch.cuda.is_bf16_supported(including_emulation=False))
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        rows.append(Row("devices", f"cuda:{index}", f"{properties.name}, {memory}, bf16 {bf16}"))
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"none found (torch built for CUDA {built})" if built else "none (torch without CUDA)"
        rows.append(Row("devices", "cuda", why, "missing"))
    if sys.platform == "darwin":
        there = torch.backends.mps.is_available()
        rows.append(
            Row("devices", "mps", "there" if there else "none", "good" if there else "missing")
        )
    return rows


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 (without, it is slower than float32)."""
    import torch

    get = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11 or so
    if get is not None:
        capabilities = get()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _tried(question: Callable[[], bool]) -> str:
    try:
        return "yes" if question() else "no"
    except Exception:  # torch's answers come from drivers; a doctor reports and goes on
        return "unknown"


def _import_names() -> list[Row]:
    return [row for name in IMPORT_NAMES for row in _import_name(name)]


def _import_name(name: str) -> list[Row]:
    """Where a name is imported from, who else has it, and which distributions list it."""
    ours = OUR_ROOT / name
    imported = _locations(find_spec(name))
    listed = metadata.packages_distributions().get(name, ())
    owners = {canonicalize_name(distribution) for distribution in listed if distribution}
    others = sorted(owners - {DISTRIBUTION})
    rows = []
    if imported != [ours]:
        value = f"imported from {_listed(imported)} instead of {ours}"
        hint = "uninstall the other one, or take its folder off the path"
        rows.append(Row("import names", name, value, "problem", hint))
    for place in _places(name):
        if place != ours and place not in imported:
            value = f"{place}{_owner_of(place)} has this name too, hidden behind ours"
            hint = "install the two in separate environments"
            rows.append(Row("import names", name, value, "problem", hint))
    if others:
        value = f"also owned by the distribution {', '.join(others)}"
        hint = f"python -m pip uninstall {' '.join(others)}, then reinstall {DISTRIBUTION}"
        rows.append(Row("import names", name, value, "problem", hint))
    return rows or [Row("import names", name, str(ours))]


def _places(name: str) -> list[Path]:
    """Every place of a name: each entry of the path, and the finders of editable installs.

    Folders without `__init__.py` are left out: a package of ours always wins over them.
    """
    specs = [PathFinder.find_spec(name, [entry]) for entry in sys.path]
    for finder in sys.meta_path:
        if finder is not PathFinder and hasattr(finder, "find_spec"):
            specs.append(finder.find_spec(name, None))
    found: dict[Path, None] = {}
    for spec in specs:
        if spec is not None and spec.origin is not None:
            found.update(dict.fromkeys(_locations(spec)))
    return list(found)


def _locations(spec: ModuleSpec | None) -> list[Path]:
    """Folders of a package, or the file of a module."""
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(location).resolve() for location in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.origin else []


def _owner_of(place: Path) -> str:
    """' (distribution)' when an editable installation brought the place, else ''."""
    for distribution in metadata.distributions():
        url = urlsplit(_direct_url(distribution))
        if url.scheme == "file" and place.is_relative_to(Path(url2pathname(url.path)).resolve()):
            return f" ({distribution.name})"
    return ""


def _direct_url(distribution: metadata.Distribution) -> str:
    text = distribution.read_text("direct_url.json")
    return str(json.loads(text).get("url", "")) if text else ""


def _listed(places: list[Path]) -> str:
    return " and ".join(f"{place}{_owner_of(place)}" for place in places) or "nowhere"
