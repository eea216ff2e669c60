"""The container files keep their promises: no default passwords, loopback only, pinned images."""

import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
PROFILES = ("dagster.yaml", "deploy/dagster.postgres.yaml", "deploy/dagster.celery.yaml")

COMPOSE_RULES = {
    "type": "object",
    "required": ["name", "services", "volumes"],
    "properties": {
        "services": {
            "type": "object",
            "required": [
                "postgres",
                "redis",
                "prometheus",
                "dagster-webserver",
                "dagster-daemon",
                "runtime",
            ],
            "additionalProperties": {
                "type": "object",
                "required": ["image", "restart", "security_opt", "logging"],
                "properties": {
                    "image": {
                        "type": "string",
                        "pattern": r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*$",
                    },
                    "ports": {
                        "type": "array",
                        "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"},
                    },
                    "privileged": False,
                    "security_opt": {"contains": {"const": "no-new-privileges:true"}},
                    "network_mode": {"not": {"const": "host"}},
                },
            },
        }
    },
}


def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def example():
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"^[A-Z0-9_]+=", line)]
    return {name: value for name, _, value in pairs}


def test_compose_file_keeps_the_rules():
    jsonschema.validate(compose(), COMPOSE_RULES)


@pytest.mark.parametrize(
    "broken",
    [
        {"ports": ["5432:5432"]},
        {"ports": ["0.0.0.0:5432:5432"]},
        {"image": "redis:latest"},
        {"image": "redis"},
        {"privileged": True},
        {"network_mode": "host"},
    ],
)
def test_the_rules_catch_a_careless_service(broken):
    document = compose()
    document["services"]["redis"] |= broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, COMPOSE_RULES)


def test_no_password_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{(BOT4_\w+)(:?[-?])?", text)
    assert used
    assert {mode for _, mode in used} == {":?"}
    secrets = {name: value for name, value in example().items() if "PASSWORD" in name}
    assert secrets
    assert not any(secrets.values())


def test_every_variable_of_compose_is_in_the_example_environment():
    text = (ROOT / "docker-compose.yml").read_text()
    assert {name for name, _ in re.findall(r"\$\{(BOT4_\w+)(:\?)", text)} <= set(example())


def test_every_file_compose_mounts_exists():
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                assert source in compose()["volumes"]


def test_redis_appends_and_asks_for_a_password():
    command = compose()["services"]["redis"]["command"][-1]
    assert "appendonly yes" in command
    assert "requirepass" in command


def test_health_of_postgres_is_a_query_with_its_own_user_and_database():
    test = compose()["services"]["postgres"]["healthcheck"]["test"][-1]
    assert "SELECT 1" in test
    assert "$$POSTGRES_USER" in test
    assert "$$POSTGRES_DB" in test


def test_prometheus_can_reach_the_runtime_that_listens_on_loopback():
    services = compose()["services"]
    assert services["prometheus"]["network_mode"] == "service:runtime"
    port = services["runtime"]["environment"]["BOT4_TELEMETRY__METRICS_PORT"]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = [c["static_configs"][0]["targets"][0] for c in scraped["scrape_configs"]]
    assert f"127.0.0.1:{port}" in targets


def test_the_init_script_is_valid_shell():
    script = ROOT / "deploy/postgres/10-databases.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("profile", PROFILES)
def test_dagster_accepts_every_instance_profile(profile, monkeypatch):
    from dagster._config import validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    document = yaml.safe_load((ROOT / profile).read_text())
    checked = validate_config(dagster_instance_config_schema(), document)
    assert checked.success, [error.message for error in checked.errors]
    assert document["telemetry"] == {"enabled": False}


def test_profiles_differ_only_in_where_things_are_kept_and_run():
    plain, postgres, celery = (yaml.safe_load((ROOT / name).read_text()) for name in PROFILES)
    assert plain.items() <= postgres.items()
    assert postgres["storage"] == celery["storage"]
    assert (
        postgres["concurrency"]["runs"]["tag_concurrency_limits"]
        == (celery["concurrency"]["runs"]["tag_concurrency_limits"])
    )


def test_runs_of_known_length_end_after_two_hours_and_backfills_have_a_day():
    from bot4_pipelines.definitions import defs

    known = ("pipeline", "refresh_candles", "search", "fleet_models")
    limits = {
        name: defs.resolve_job_def(name).run_tags.get("dagster/max_runtime")
        for name in (*known, "fleet_candles")
    }
    assert limits == dict.fromkeys(known, "7200") | {"fleet_candles": None}
    for name in PROFILES:
        document = yaml.safe_load((ROOT / name).read_text())
        assert document["run_monitoring"]["max_runtime_seconds"] == 86_400
    # A task that waits behind a run of a day must not be handed to a second worker meanwhile.
    worker = yaml.safe_load((ROOT / "deploy/celery.worker.yaml").read_text())["execution"]
    for settings in (document["run_launcher"]["config"], worker["config"]):
        options = settings["config_source"]["broker_transport_options"]
        assert options["visibility_timeout"] > 86_400


def test_celery_carries_json_and_never_pickles():
    launcher = yaml.safe_load((ROOT / "deploy/dagster.celery.yaml").read_text())["run_launcher"]
    worker = yaml.safe_load((ROOT / "deploy/celery.worker.yaml").read_text())["execution"]
    for settings in (launcher["config"]["config_source"], worker["config"]["config_source"]):
        assert settings["accept_content"] == ["json"]
        assert settings["task_serializer"] == settings["result_serializer"] == "json"


def test_celery_launcher_accepts_its_configuration(monkeypatch):
    launcher_module = pytest.importorskip("dagster_celery.launcher")
    from dagster._config import process_config

    monkeypatch.setenv("BOT4_CELERY_BROKER", "redis://:secret@127.0.0.1:6379/1")
    monkeypatch.setenv("BOT4_CELERY_BACKEND", "redis://:secret@127.0.0.1:6379/2")
    document = yaml.safe_load((ROOT / "deploy/dagster.celery.yaml").read_text())
    config = document["run_launcher"]["config"]
    checked = process_config(launcher_module.CeleryRunLauncher.config_type(), config)
    assert checked.success, checked.errors
    assert checked.value["broker"] == "redis://:secret@127.0.0.1:6379/1"


def test_the_code_location_has_one_name_everywhere():
    import tomllib

    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert [entry["python_module"]["location_name"] for entry in workspace] == ["bot4_pipelines"]
    assert project["code_location_name"] == project["root_module"] == "bot4_pipelines"


def test_dockerfile_pins_its_base_and_runs_as_nobody_special():
    text = (ROOT / "deploy/Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert text.rindex("USER bot4") > text.rindex("FROM")
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists() or name in {"README.md", "constraints.txt"}, name
