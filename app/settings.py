"""The shop's settings, read from environment variables that begin with ``SHOP_``.

Nothing is read at import: ``create_app`` makes a ``Settings``, which reads the environment.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.schemas import Email

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

LogFormat = Literal["text", "json"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Settings(BaseSettings):
    """The shop's settings; an empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix="SHOP_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    data_dir: Path = Field(
        default=Path("data"), description="Holds what the shop writes: database, audit log, outbox."
    )
    database: str | None = Field(
        default=None,
        description="The database of the shop and its jobs: an SQLite file, as a path or as `sqlite:///shop.db`, or "
        "`postgresql://user:password@host/database`. By default `shop.db` in the data directory.",
    )

    host: str = Field(default="127.0.0.1", description="Where `just run` listens.")
    port: int = Field(default=8000, ge=0, le=65535)
    log_format: LogFormat = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"
    admin_token: SecretStr | None = Field(
        default=None,
        description="What `Authorization: Bearer` must hold under /jobs. Without it the application "
        "makes one at start and prints it; several processes need the same one, so set it there.",
    )

    smtp_host: str | None = Field(
        default=None,
        description="Without it mail is kept as files in `outbox` in the data directory.",
    )
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = True
    smtp_ca_file: FilePath | None = Field(
        default=None, description="A private CA's certificate (PEM), in place of the system's."
    )
    smtp_timeout: Seconds = Field(default=20, description="Of one answer of the mail server.")

    stock: int = Field(
        default=1_000_000,
        ge=0,
        le=2**53,
        description="The initial stock of each item.",
    )
    mail_from: Email = "shop@localhost"
    warehouse_email: Email = "warehouse@localhost"
    owner_email: Email = Field(default="owner@localhost", description="Gets the daily report.")
    timezone: str = Field(
        default="Europe/Berlin",
        description="The time zone of the shop: the daily report is sent at 8:00 there.",
    )
    mail_slots: int = Field(default=20, ge=1, description="Mails under way at the same time.")
    mail_attempts: int = Field(default=8, ge=1, le=32_767)
    mail_wait: Seconds = Field(
        default=2, description="After the first failed attempt; four times as much after each next."
    )
    mail_wait_max: Seconds = 3600
    reminder_delay: Seconds = Field(
        default=24 * 3600, description="From POST /subscribe to the mail."
    )
    token_lifetime: Seconds = Field(
        default=3600, description="For how long the token in a confirmation mail is good."
    )

    report_pause: float = Field(
        default=0,
        ge=0,
        le=60,
        description="Seconds that a sales report pauses after each part, to leave the disk to others.",
    )

    @model_validator(mode="after")
    def _database_is_known(self) -> Self:
        if self.database is not None and not self.is_postgres:
            scheme, separator, _ = self.database.partition("://")
            path = self.database.removeprefix("sqlite:///")
            if separator and path == self.database:
                raise ValueError(
                    f"SHOP_DATABASE begins with {scheme}://, not with sqlite:/// or postgresql://"
                )
            if path in ("", ":memory:"):
                raise ValueError(
                    "SHOP_DATABASE must name a file: jobs that live in memory die with it"
                )
        return self

    @model_validator(mode="after")
    def _login_is_whole_and_private(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("SHOP_SMTP_USERNAME and SHOP_SMTP_PASSWORD belong together: set both")
        if self.smtp_username and not self.smtp_starttls and self.smtp_host not in _LOOPBACK:
            raise ValueError("SHOP_SMTP_STARTTLS=false would send the password in the clear")
        return self

    @property
    def is_postgres(self) -> bool:
        """True if the database is on a PostgreSQL server."""
        return self.database is not None and self.database.startswith("postgresql://")

    @property
    def store(self) -> str | Path:
        """The database as the runner of the jobs takes it."""
        if self.is_postgres and self.database is not None:
            return self.database
        return self.database_path

    @property
    def database_path(self) -> Path:
        """The SQLite file, as an absolute path."""
        default = self.data_dir / "shop.db"
        return Path((self.database or str(default)).removeprefix("sqlite:///")).absolute()

    @property
    def outbox_dir(self) -> Path:
        """The directory for mail when there is no mail server."""
        return self.data_dir.absolute() / "outbox"

    @property
    def audit_file(self) -> Path:
        """The JSON-lines file that audit entries are appended to."""
        return self.data_dir.absolute() / "audit.jsonl"
