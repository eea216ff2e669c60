import importlib.machinery
import json
import sys

import pytest

from bot4_runtime import build
from bot4_runtime.domain.errors import BuildError

WHERE = "import bot4_runtime.event_bus as m, bot4_runtime.fees.volume as v; print(m.__file__); print(v.__file__)"
STATE = "from bot4_runtime.build import compiled_state as s; print(s().mode, *s().stale)"
REQUIRE = """
from bot4_runtime.build import require_fresh
from bot4_runtime.domain.errors import BuildError
try:
    print(require_fresh().notice)
except BuildError as error:
    print("refused", error.exit_code, error)
"""


def test_a_build_compiles_every_room_into_the_package(built_tree):
    names = {path.name.split(".")[0] for path in built_tree.extensions()}
    assert names - {"_native__mypyc"} >= {"event_bus", "event_queue", "volume"}
    assert not list(built_tree.root.glob("*.so"))
    assert all(path.endswith(".so") for path in built_tree.ask(WHERE).split())
    assert built_tree.ask(STATE) == "compiled"
    assert "compiled: 3 modules" in built_tree.ask(REQUIRE, BOT4_COMPILED="1")


def test_compiled_and_interpreted_give_the_same(built_tree):
    code = """
from decimal import Decimal
from bot4_runtime.domain.events import Heartbeat
from bot4_runtime.event_bus import EventBus
from bot4_runtime.event_queue import Overflow
from bot4_runtime.fees.volume import VolumeTracker
bus = EventBus(on_error=lambda sub, event, error: print(sub.name, event, error))
bus.subscribe(Heartbeat, lambda event: 1 / event.ts_event_ns, name="divide")
queue = bus.subscribe_queue(Heartbeat, Overflow.DROP_OLDEST, capacity=1)
bus.publish_many([Heartbeat(ts_event_ns=n, events_total=n) for n in range(3)])
tracker = VolumeTracker()
tracker.add(5, Decimal(7))
print(bus.counters(), queue.drain(), tracker.total(86_400_000))
"""
    assert built_tree.ask(code) == built_tree.ask(code, BOT4_INTERPRETED="1")


def test_events_and_native_values_are_frozen_in_both_modes(built_tree):
    code = """
from bot4_runtime.domain.events import Heartbeat
from bot4_runtime.event_bus import EventBus
for thing, name in (
    (Heartbeat(ts_event_ns=1, events_total=1), "events_total"),
    (Heartbeat(ts_event_ns=1, events_total=1), "other"),
):
    try:
        setattr(thing, name, 3)
        print("changed", name)
    except AttributeError:
        print("frozen")
"""
    assert built_tree.ask(code).split() == ["frozen", "frozen"]
    assert built_tree.ask(code, BOT4_INTERPRETED="1").split() == ["frozen", "frozen"]


def test_bot4_interpreted_imports_the_sources_beside_the_compiled_ones(built_tree):
    paths = built_tree.ask(WHERE, BOT4_INTERPRETED="1").split()
    assert [path.rsplit("/", 1)[1] for path in paths] == ["event_bus.py", "volume.py"]
    assert built_tree.ask(STATE, BOT4_INTERPRETED="1") == "interpreted"
    told = built_tree.ask(REQUIRE, BOT4_INTERPRETED="1", BOT4_COMPILED="1")
    assert "BOT4_INTERPRETED=1 asks for the sources" in told


def test_a_changed_source_is_stale_until_it_is_built_again(built_tree, tmp_path):
    tree = built_tree.copy(tmp_path / "tree")
    source = tree.package / "fees/volume.py"
    source.write_text(source.read_text() + "\nADDED = 7\n")
    told = tree.ask(REQUIRE)
    assert told.startswith("refused 2")
    assert "bot4_runtime.fees.volume" in told
    assert "make setup" in told
    printed = tree.run("-m", "bot4_runtime.build")
    assert printed.returncode == 2
    assert "stale: bot4_runtime.fees.volume" in printed.stdout
    assert tree.ask(REQUIRE, BOT4_INTERPRETED="1").startswith("interpreted")
    assert tree.build().returncode == 0
    assert tree.ask("import bot4_runtime.fees.volume as v; print(v.ADDED, v.__file__)").endswith(
        ".so"
    )
    assert tree.ask(STATE) == "compiled"


def test_a_new_module_of_a_compiled_room_is_stale_as_well(built_tree, tmp_path):
    tree = built_tree.copy(tmp_path / "tree")
    (tree.package / "fees/added.py").write_text('"""New."""\n')
    assert tree.ask(STATE) == "stale bot4_runtime.fees.added"


def test_a_failed_rebuild_leaves_no_old_extension_and_says_why(built_tree, tmp_path):
    tree = built_tree.copy(tmp_path / "tree")
    done = tree.build(CC="/bin/false")
    assert done.returncode == 0
    assert "plain Python runs instead" in done.stderr
    assert tree.extensions() == []
    assert "interpreted: the compiler failed" in tree.ask(REQUIRE)
    assert "/bin/false" in tree.ask(REQUIRE)
    assert all(path.endswith(".py") for path in tree.ask(WHERE).split())
    assert tree.ask(REQUIRE, BOT4_COMPILED="1").startswith("refused 2 BOT4_COMPILED=1 demands")


def test_a_type_error_fails_the_whole_build_with_the_compilers_words(built_tree, tmp_path):
    tree = built_tree.copy(tmp_path / "tree")
    source = tree.package / "fees/volume.py"
    source.write_text(source.read_text() + '\nWRONG: int = "text"\n')
    done = tree.build(BOT4_COMPILED="1")
    assert done.returncode != 0
    assert "Incompatible types in assignment" in done.stderr
    assert "BOT4_COMPILED=1 asks for compiled modules" in done.stderr
    assert tree.extensions() == []


def test_without_a_compiler_the_install_works_and_runs_interpreted(plain_tree, tmp_path):
    tree = plain_tree.copy(tmp_path / "tree")
    target = tmp_path / "installed"
    done = tree.run(
        "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--quiet",
        "--disable-pip-version-check", "--target", str(target), ".", CC="/bin/false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(target.rglob("*.so"))
    installed = {"PYTHONPATH": str(target)}
    state = tree.run("-P", "-m", "bot4_runtime.build", **installed)
    assert state.stdout.startswith("interpreted: the compiler failed"), state.stderr
    where = tree.run("-P", "-c", WHERE, **installed)
    assert where.stdout.splitlines()[0] == str(target / "bot4_runtime/event_bus.py")


# ------------------------------------------------------- the record, in this process
@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one room whose extension is an empty file."""
    monkeypatch.delenv("BOT4_INTERPRETED", raising=False)
    monkeypatch.delenv("BOT4_COMPILED", raising=False)
    folder = tmp_path / "bot4_runtime"
    (folder / "risk").mkdir(parents=True)
    for name in ("event_bus.py", "risk/__init__.py", "risk/limits.py"):
        (folder / name).write_text("A = 1\n")
    return folder


def pretend_built(package):
    for source in build.sources(package):
        source.with_name(source.stem + build.EXTENSION_SUFFIX).touch()
    build.write_record(package, build.fingerprint(package), "")


def test_the_rooms_are_found_without_their_package_files(package):
    assert list(build.fingerprint(package)) == [
        "bot4_runtime.event_bus",
        "bot4_runtime.risk.limits",
    ]


def test_a_package_never_built_is_interpreted(package):
    state = build.require_fresh(package)
    assert (state.mode, state.modules) == ("interpreted", ())
    assert "nothing was compiled" in state.notice


def test_a_matching_record_is_compiled_and_a_changed_source_refused(package):
    pretend_built(package)
    assert build.require_fresh(package).mode == "compiled"
    assert "2 modules" in build.compiled_state(package).notice
    (package / "risk/limits.py").write_text("A = 2\n")
    assert "limits changed" in build.compiled_state(package).notice
    with pytest.raises(BuildError, match=r"risk\.limits.*make setup"):
        build.require_fresh(package)


def test_extensions_without_a_readable_record_are_stale(package):
    pretend_built(package)
    (package / build.RECORD).write_text("[]")
    assert build.compiled_state(package).mode == "stale"


def test_a_record_of_another_python_says_so(package):
    pretend_built(package)
    for extension in package.rglob("*.so"):
        extension.unlink()
    assert "files are gone" in build.compiled_state(package).reason
    body = json.loads((package / build.RECORD).read_text()) | {"tag": "cpython-399"}
    (package / build.RECORD).write_text(json.dumps(body))
    assert "compiled for cpython-399" in build.compiled_state(package).reason


def test_demanded_compilation_that_is_missing_is_refused(package, monkeypatch):
    monkeypatch.setenv("BOT4_COMPILED", "1")
    with pytest.raises(BuildError, match="demands compiled modules"):
        build.require_fresh(package)
    monkeypatch.setenv("BOT4_INTERPRETED", "1")
    assert build.require_fresh(package).mode == "interpreted"


def test_the_path_hook_serves_the_package_alone_source_first(package, monkeypatch):
    pretend_built(package)
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    cached = {str(package / "risk"): None, "/elsewhere": None}
    monkeypatch.setattr(sys, "path_importer_cache", cached)
    build.prefer_sources(package)
    hook = sys.path_hooks[0]
    assert cached == {"/elsewhere": None}
    found = hook(str(package)).find_spec("event_bus")
    assert isinstance(found.loader, importlib.machinery.SourceFileLoader)
    with pytest.raises(ImportError, match="is not under"):
        hook(str(package.parent))


def test_this_process_runs_what_its_state_says(capsys):
    with pytest.raises(SystemExit) as ended:
        build.main()
    assert ended.value.code == (2 if build.compiled_state().mode == "stale" else 0)
    assert build.compiled_state().notice in capsys.readouterr().out
