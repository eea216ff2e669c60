"""Compile the hot rooms with mypyc where a C compiler can be had: all of them or none.

`bot4_runtime/build.py` names them and reads the record written here. Extensions of an earlier
build are removed first, so that none outlives a failed one. A failure leaves plain Python, a
notice with the compiler's words, and no error, unless BOT4_COMPILED=1 asks for one.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from bot4_runtime import build  # noqa: E402 - found in this folder, whatever is installed

GROUP = "bot4_runtime._native"  # the shared library that the module shims load
WORDS = 40  # lines of the compiler's output that the notice keeps


class CompileRooms(build_ext):
    """All or none: mypyc over every compiled room, into one shared library."""

    def run(self) -> None:
        inplace = self.inplace
        target = ROOT if inplace else Path(self.build_lib)
        package = target / build.PACKAGE.name
        self._remove_old(package)
        modules, reason = {}, ""
        words = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        with words:
            try:
                with captured(words.fileno()):
                    self._compile()
                modules = build.fingerprint(ROOT / build.PACKAGE.name)
            except (Exception, SystemExit) as error:
                words.seek(0)
                tail = words.read().strip().splitlines()[-WORDS:]
                reason = "\n".join(["the compiler failed, plain Python runs instead:", *tail])
                reason += f"\n{type(error).__name__}: {error}"
                self.inplace = inplace
                self.extensions = []
                self.distribution.ext_modules = []
                self._remove_old(package)
                print(f"bot4: {reason}", file=sys.stderr, flush=True)
                if os.environ.get("BOT4_COMPILED") == "1":
                    raise SystemExit(
                        "bot4: BOT4_COMPILED=1 asks for compiled modules; the build failed"
                    ) from error
        package.mkdir(parents=True, exist_ok=True)
        build.write_record(package, modules, reason)

    def _compile(self) -> None:
        from mypyc.build import mypycify

        os.chdir(ROOT)
        paths = [str(path.relative_to(ROOT)) for path in build.sources(ROOT / build.PACKAGE.name)]
        self.distribution.ext_modules = mypycify(
            paths,
            opt_level="3",
            debug_level="0",
            group_name=GROUP,
            target_dir=str(Path(self.build_temp).resolve() / "mypyc"),
        )
        self.swig_opts = None  # finalised twice: only now are the extensions known
        super().finalize_options()
        super().run()

    def _remove_old(self, package: Path) -> None:
        for folder in {package, Path(self.build_lib) / build.PACKAGE.name}:
            for old in folder.rglob(f"*{build.EXTENSION_SUFFIX}"):
                old.unlink()
            (folder / build.RECORD).unlink(missing_ok=True)
        shutil.rmtree(Path(self.build_temp) / "mypyc", ignore_errors=True)


class RoomsDistribution(Distribution):
    """Has extensions before mypyc has named them, so that build_ext runs."""

    def has_ext_modules(self) -> bool:
        return True


@contextmanager
def captured(descriptor: int) -> Iterator[None]:
    """Send what this process and its children print to a file, and repeat it afterwards."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        os.close(kept[0])
        os.close(kept[1])


setup(distclass=RoomsDistribution, cmdclass={"build_ext": CompileRooms})
