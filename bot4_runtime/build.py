"""What of Bot4 is compiled, whether it is fresh, and how sources are preferred.

`setup.py` compiles `COMPILED` with mypyc and writes `_compiled.json`: the sha256 of every
compiled source, or why there is none. Here that record is read back. Nothing here compiles.
`python -m bot4_runtime.build` prints the state.
"""

import hashlib
import importlib.machinery
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bot4_runtime.domain.errors import BuildError

PACKAGE: Final = Path(__file__).resolve().parent
COMPILED: Final = ("event_*.py", "risk/*.py", "signals/*.py", "fees/*.py")
"""Globs of the compiled modules under the package; ``__init__.py`` files are left out."""

RECORD: Final = "_compiled.json"
"""Written at build time beside the package's modules; never in git."""

EXTENSION_SUFFIX: Final = importlib.machinery.EXTENSION_SUFFIXES[0]


@dataclass(frozen=True)
class CompiledState:
    """How this process imports the compiled rooms.

    Attributes:
        mode: ``compiled``, ``interpreted`` (as asked by BOT4_INTERPRETED=1 or for want of
            a build) or ``stale`` (compiled, but not from these sources).
        modules: dotted names of the modules that are compiled.
        stale: dotted names whose compiled form does not match the source.
        reason: why it is not compiled, with the compiler's words; empty when it is.
    """

    mode: str
    modules: tuple[str, ...]
    stale: tuple[str, ...]
    reason: str

    @property
    def notice(self) -> str:
        """One line for people: what runs, and what to do when it is not the fast form."""
        if self.mode == "compiled":
            return f"compiled: {len(self.modules)} modules run as native code"
        if self.mode == "stale":
            return f"stale: {', '.join(self.stale)} changed after they were compiled; `make setup`"
        return f"interpreted: {self.reason}"


def sources(package: Path = PACKAGE) -> list[Path]:
    """Return the modules to compile, sorted."""
    found = {path for pattern in COMPILED for path in package.glob(pattern)}
    return sorted(path for path in found if path.name != "__init__.py")


def module_name(source: Path, package: Path = PACKAGE) -> str:
    """Return ``bot4_runtime.risk.limits`` for ``…/bot4_runtime/risk/limits.py``."""
    return ".".join((package.name, *source.relative_to(package).with_suffix("").parts))


def fingerprint(package: Path = PACKAGE) -> dict[str, str]:
    """Return the sha256 (hex) of each module to compile, by dotted name."""
    return {
        module_name(source, package): hashlib.sha256(source.read_bytes()).hexdigest()
        for source in sources(package)
    }


def write_record(folder: Path, modules: dict[str, str], reason: str) -> None:
    """Write what a build compiled, or why it did not, into a package folder."""
    body = {"tag": sys.implementation.cache_tag, "modules": modules, "reason": reason}
    (folder / RECORD).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def compiled_state(package: Path = PACKAGE) -> CompiledState:
    """Say how the compiled rooms are imported and whether they match their sources."""
    if os.environ.get("BOT4_INTERPRETED") == "1":
        return CompiledState("interpreted", (), (), "BOT4_INTERPRETED=1 asks for the sources")
    now = fingerprint(package)
    native = {name for name in now if _extension(name, package).exists()}
    built, reason = _read_record(package)
    if not native:
        return CompiledState("interpreted", (), (), reason)
    stale = tuple(name for name in now if name not in native or built.get(name) != now[name])
    return CompiledState("stale" if stale else "compiled", tuple(sorted(native)), stale, "")


def require_fresh(package: Path = PACKAGE) -> CompiledState:
    """Return the state, refusing one that would run other code than the sources say.

    Raises:
        BuildError: a compiled module does not match its source; or nothing is compiled
            although BOT4_COMPILED=1 demands it.
    """
    state = compiled_state(package)
    if state.mode == "stale":
        raise BuildError(
            f"compiled modules do not match their sources: {', '.join(state.stale)}; "
            "run `make setup` to build them again, or set BOT4_INTERPRETED=1"
        )
    demanded = os.environ.get("BOT4_COMPILED") == "1"
    if demanded and state.mode != "compiled" and os.environ.get("BOT4_INTERPRETED") != "1":
        raise BuildError(
            f"BOT4_COMPILED=1 demands compiled modules, but they are interpreted: {state.reason}; "
            "install a C compiler and run `make setup`"
        )
    return state


def prefer_sources(package: Path = PACKAGE) -> None:
    """Import the package's modules from their sources, even where compiled ones lie beside.

    Puts a path hook in front that serves only folders of the package, source loader first.
    """
    loaders = (
        (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
    )

    def hook(path: str) -> importlib.machinery.FileFinder:
        folder = Path(path).resolve()
        if folder != package and package not in folder.parents:
            raise ImportError(f"{path} is not under {package}")
        return importlib.machinery.FileFinder(path, *loaders)

    sys.path_hooks.insert(0, hook)
    for known in list(sys.path_importer_cache):
        folder = Path(known).resolve()
        if folder == package or package in folder.parents:
            del sys.path_importer_cache[known]


def _extension(name: str, package: Path) -> Path:
    *parents, last = name.split(".")[1:]
    return package.joinpath(*parents, last + EXTENSION_SUFFIX)


def _read_record(package: Path) -> tuple[dict[str, str], str]:
    try:
        body = json.loads((package / RECORD).read_text(encoding="utf-8"))
        built = {str(name): str(sha) for name, sha in body["modules"].items()}
        tag, reason = str(body["tag"]), str(body["reason"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, "nothing was compiled here; `make setup` compiles where there is a C compiler"
    if tag != sys.implementation.cache_tag:
        return {}, f"compiled for {tag}, this is {sys.implementation.cache_tag}; `make setup`"
    return built, reason or "the compiled files are gone; `make setup` builds them again"


def main() -> None:
    """Print the state; exit 2 when it is stale."""
    state = compiled_state()
    sys.stdout.write(state.notice + "\n")
    sys.exit(BuildError.exit_code if state.mode == "stale" else 0)


if __name__ == "__main__":
    main()
