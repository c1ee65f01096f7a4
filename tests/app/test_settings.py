"""Settings: where they come from, what they refuse."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_settings_without_environment_need_nothing() -> None:
    settings = Settings()

    assert settings.host == "127.0.0.1"
    assert settings.smtp_host is None
    assert settings.reminder_delay == 24 * 3600
    assert settings.database_path == Path.cwd() / "data" / "shop.db"


def test_settings_read_the_environment_by_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SHOP_DATABASE": "sqlite:////var/lib/shop/shop.db",
        "SHOP_DATA_DIR": "/var/lib/shop",
        "SHOP_SMTP_HOST": "mail.example.com",
        "SHOP_SMTP_PORT": "25",
        "SHOP_SMTP_USERNAME": "shop",
        "SHOP_SMTP_PASSWORD": "secret",
        "SHOP_SMTP_STARTTLS": "true",
        "SHOP_ADMIN_TOKEN": "token",
        "SHOP_MAIL_WAIT": "0.5",
    }.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert settings.database_path == Path("/var/lib/shop/shop.db")
    assert settings.outbox_dir == Path("/var/lib/shop/outbox")
    assert settings.smtp_port == 25
    assert settings.smtp_starttls
    assert settings.mail_wait == 0.5


def test_settings_never_show_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ADMIN_TOKEN", "token-of-mine")
    monkeypatch.setenv("SHOP_SMTP_USERNAME", "shop")
    monkeypatch.setenv("SHOP_SMTP_PASSWORD", "password-of-mine")

    assert "of-mine" not in repr(Settings())


def test_settings_take_an_empty_variable_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ADMIN_TOKEN", "")
    monkeypatch.setenv("SHOP_SMTP_HOST", "")

    settings = Settings()

    assert settings.admin_token is None
    assert settings.smtp_host is None


@pytest.mark.parametrize(
    ("database", "path"),
    [
        ("sqlite:///here.db", Path.cwd() / "here.db"),
        ("sqlite:////there/shop.db", Path("/there/shop.db")),
        ("here.db", Path.cwd() / "here.db"),
    ],
)
def test_settings_name_the_database_by_url_or_path(database: str, path: Path) -> None:
    assert Settings(database=database).database_path == path


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"database": "mysql:///shop"}, "mysql"),
        ({"database": "mariadb://somewhere/shop"}, "mariadb"),
        ({"database": "sqlite:///"}, "name a file"),
        ({"database": ":memory:"}, "name a file"),
        ({"smtp_username": "shop"}, "SHOP_SMTP_PASSWORD"),
        ({"smtp_password": "secret"}, "SHOP_SMTP_USERNAME"),
        (
            {
                "smtp_host": "mail.example.com",
                "smtp_username": "shop",
                "smtp_password": "secret",
                "smtp_starttls": False,
            },
            "in the clear",
        ),
        ({"mail_wait": 0}, "mail_wait"),
        ({"mail_wait": "inf"}, "mail_wait"),
        ({"mail_from": "not an address"}, "mail_from"),
        ({"smtp_ca_file": "/nowhere/ca.pem"}, "smtp_ca_file"),
        ({"port": 70_000}, "port"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Settings.model_validate(fields)


def test_settings_are_read_by_the_factory_not_at_import(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from app.main import create_app  # noqa: PLC0415 - imported before the variable is set

    monkeypatch.setenv("SHOP_DATA_DIR", os.fspath(tmp_path / "later"))

    app = create_app()

    assert app.state.services.settings.data_dir == tmp_path / "later"
    assert not (tmp_path / "later").exists(), "the factory opens nothing"
