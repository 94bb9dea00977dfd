"""The configuration: defaults, the documented file, precedence, and every error at once."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import Config, load_config
from edge_agent.errors import ConfigError

DOCUMENTED = Path(__file__).parents[2] / "docs" / "edge-agent.toml"


@pytest.fixture(autouse=True)
def _no_home_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_AGENT_HOME", raising=False)


def _write(folder: Path, text: str) -> Path:
    path = folder / "edge-agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _errors(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(_write(folder, text))
    first, *lines = str(caught.value).split("\n  ")
    assert str(folder / "edge-agent.toml") in first
    return lines


def _key_paths(struct: type[msgspec.Struct], prefix: str = "") -> set[str]:
    paths: set[str] = set()
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            paths |= _key_paths(field.type, f"{prefix}{field.name}.")
        else:
            paths.add(prefix + field.name)
    return paths


def test_the_documented_file_holds_the_defaults(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert load_config(DOCUMENTED, home=home) == load_config(None, home=home)


def test_the_documented_file_names_every_key_and_no_other() -> None:
    uncommented = re.sub(r"^#(?=[a-z_]+ = )", "", DOCUMENTED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    table = tomllib.loads(uncommented)
    documented = {f"{key}.{inner}" for key, value in table.items() if isinstance(value, dict) for inner in value}
    documented |= {key for key, value in table.items() if not isinstance(value, dict)}
    assert documented == _key_paths(Config)


def test_every_error_is_told_at_once_with_its_key_path(tmp_path: Path) -> None:
    lines = _errors(
        tmp_path,
        """
        log = "loud"
        [intake]
        settle_time_s = "fast"
        on_don = "move"
        on_done = "shred"
        max_file_bytes = 1.5
        ignore = ["*.part", 3]
        [camera]
        source = 0
        still_s = 0
        [imaging]
        max_pixels = -1
        [model]
        allow_unsigned = 1
        threads = true
        bundle = ""
        """,
    )
    assert lines == [
        'log: expected a table, [log], got "loud"',
        'intake.settle_time_s: expected a number from 0 to 3600, got "fast"',
        'intake.on_don: unknown key; did you mean "on_done"?',
        'intake.on_done: expected one of "delete", "keep", "move", got "shred"',
        "intake.max_file_bytes: expected a whole number from 1024 to 4294967296, got 1.5",
        "intake.ignore: expected a list, each item text in quotes, got ['*.part', 3]",
        "camera.source: expected text in quotes, got 0",
        "camera.still_s: expected a number above 0 and up to 3600, got 0",
        "imaging.max_pixels: expected a whole number from 4096 to 1000000000, got -1",
        "model.allow_unsigned: expected true or false, got 1",
        "model.threads: expected a whole number from 0 to 64, got true",
        'model.bundle: expected a path in quotes, got ""',
    ]


def test_an_unknown_section_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    assert _errors(tmp_path, "[web]\nport = 1") == [
        "web: unknown key; known here: home, intake, camera, imaging, model, storage, retention, log"
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_must_be_finite(tmp_path: Path, value: str) -> None:
    (line,) = _errors(tmp_path, f"[intake]\nsettle_time_s = {value}")
    assert line.startswith("intake.settle_time_s: expected a number")


def test_a_whole_number_is_good_where_a_fraction_may_stand(tmp_path: Path) -> None:
    assert load_config(_write(tmp_path, "[intake]\nsettle_time_s = 2")).intake.settle_time_s == 2.0


def test_relative_paths_belong_to_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "etc", 'home = "../box"\n[intake]\ninbox = "in"\n[model]\nbundle = "/opt/bundle"')
    config = load_config(Path("etc/edge-agent.toml"))
    assert config.home == tmp_path / "box"
    assert config.inbox == tmp_path / "etc" / "in"
    assert config.model.bundle == Path("/opt/bundle")


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "maria"))
    assert load_config(_write(tmp_path, 'home = "~/box"')).home == tmp_path / "maria" / "box"
    assert load_config(_write(tmp_path, 'home = "~no-such-user-1/box"')).home == tmp_path / "~no-such-user-1" / "box"


def test_the_home_comes_from_the_option_then_the_file_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = _write(tmp_path, 'home = "from-file"')
    assert load_config(None).home == tmp_path / "edge-agent-home"
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "from-environment"))
    assert load_config(None).home == tmp_path / "from-environment"
    assert load_config(file).home == tmp_path / "from-file"
    assert load_config(file, home=Path("from-option")).home == tmp_path / "from-option"


def test_the_command_line_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = _write(tmp_path, '[intake]\ninbox = "a"\non_done = "keep"\n[model]\nbundle = "a"\nthreads = 1')
    config = load_config(file, inbox=Path("b"), bundle=Path("c"))
    assert (config.inbox, config.intake.on_done) == (tmp_path / "b", "keep")
    assert (config.model.bundle, config.model.threads) == (tmp_path / "c", 1)


def test_only_a_bundle_that_a_person_names_may_be_unsigned(tmp_path: Path) -> None:
    file = _write(tmp_path, '[model]\nbundle = "a"')
    assert not load_config(None).model.allow_unsigned
    assert not load_config(file).model.allow_unsigned
    assert load_config(file, bundle=Path("c")).model.allow_unsigned


def test_trusted_keys_are_in_the_home_unless_named(tmp_path: Path) -> None:
    assert load_config(None, home=tmp_path / "box").trusted_keys == tmp_path / "box" / "keys"
    assert load_config(_write(tmp_path, '[model]\ntrusted_keys = "etc/keys"')).trusted_keys == tmp_path / "etc" / "keys"


@pytest.mark.parametrize("inbox", ["home", ".", "home/done", "home/results/deep", "home/link"])
def test_an_inbox_that_would_hold_the_agents_own_output_is_refused(tmp_path: Path, inbox: str) -> None:
    (tmp_path / "home" / "rejected").mkdir(parents=True)
    (tmp_path / "home" / "link").symlink_to("rejected")
    (line,) = _errors(tmp_path, f'home = "home"\n[intake]\ninbox = "{inbox}"')
    assert line.startswith("intake.inbox:")


@pytest.mark.parametrize("key", ["home", "inbox"])
def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path, key: str) -> None:
    """Also where only a link leads there: what it really is called goes into records, logs and the status line of systemd."""
    real, link = tmp_path / os.fsdecode(b"r\xf6ntgen"), tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with pytest.raises(ConfigError, match=r"r\\xf6ntgen is not UTF-8") as caught:
        load_config(None, **{"home": tmp_path / "box", key: link})
    str(caught.value).encode()


def test_an_inbox_beside_the_output_folders_is_fine(tmp_path: Path) -> None:
    assert load_config(_write(tmp_path, 'home = "home"\n[intake]\ninbox = "home/drop"')).inbox == tmp_path / "home" / "drop"


def test_the_longest_wait_cannot_be_shorter_than_the_first(tmp_path: Path) -> None:
    (line,) = _errors(tmp_path, "[camera]\nreopen_after_s = 10\nreopen_max_s = 5")
    assert line == "camera.reopen_max_s: expected at least camera.reopen_after_s (10)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[intake\n", "is not valid TOML"),
        (b"[intake]\nsettle_time_s = 1\nsettle_time_s = 2\n", "is not valid TOML"),
        (b"\xff\xfehome", "is not UTF-8"),
    ],
)
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "edge-agent.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_config_error_exits_10() -> None:
    assert ConfigError.exit_code == 10


def test_rows_may_not_go_before_what_needs_them(tmp_path: Path) -> None:
    assert _errors(tmp_path, "[retention]\nrows_max_age_days = 100\ndone_max_age_days = 100\nrejected_max_age_days = 0") == [
        "retention.rejected_max_age_days: expected from 1 to retention.rows_max_age_days (100), got 0: "
        "an image that is still there needs its record",
        "retention.results_max_age_days: expected from 1 to retention.rows_max_age_days (100), got 365: "
        "an image that is still there needs its record",
    ]
    file = tmp_path / "good.toml"
    file.write_text("[retention]\nrows_max_age_days = 365")
    assert load_config(file).retention.rows_max_age_days == 365
