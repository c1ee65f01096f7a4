"""The shop's own tables, in the same database as its jobs: an SQLite file, or a PostgreSQL database.

One transaction can therefore hold rows and jobs.

Write transactions are short. On SQLite they begin with ``BEGIN IMMEDIATE``: a transaction that reads first and writes
later can fail at its first write.  On PostgreSQL many write at once, so each row is changed by one statement.
"""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from sqlalchemy import (
    URL,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Integer,
    TypeDecorator,
    delete,
    event,
    func,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

from app.clock import utcnow
from app.schemas import OrderStatus
from jobrunner.sqlalchemy import attach


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime; SQLite keeps no zone, so it is stored in UTC and read as UTC, on PostgreSQL too."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC, without its zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment with its zone."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """The shop's tables."""

    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        # The key of an SQLite table is numbered only if its type is INTEGER.
        int: BigInteger().with_variant(Integer, "sqlite"),
    }


class User(Base):
    """A registered user."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class Order(Base):
    """An order of one item."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    email: Mapped[str]
    item: Mapped[str]
    quantity: Mapped[int]
    status: Mapped[OrderStatus] = mapped_column(default="placed")
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class Stock(Base):
    """The stock of an item."""

    __tablename__ = "stock"
    __table_args__ = (CheckConstraint("available >= 0"),)

    item: Mapped[str] = mapped_column(primary_key=True)
    available: Mapped[int]
    """The number that can still be ordered; placing an order lowers it in the same transaction."""
    sent: Mapped[int] = mapped_column(default=0)
    """The number sent to customers; raised in the transaction that settles the job which notifies the warehouse."""


class Token(Base):
    """The hash of a token that confirms an address; a copy of the table is of no use to a thief."""

    __tablename__ = "tokens"

    hash: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class AuditRow(Base):
    """One audit entry, written in the transaction that settles its job; so ``job_id`` can be unique."""

    __tablename__ = "audit_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[int]
    action: Mapped[str]
    resource: Mapped[str]
    at: Mapped[datetime]


class Database:
    """Opens sessions on the shop's tables."""

    def __init__(self, store: str | Path) -> None:
        """Open nothing yet; a text is the URL of a PostgreSQL database."""
        if isinstance(store, str):
            self._writer = create_async_engine(_without_options(store))
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ")
        else:
            self._reader = _engine(store, "BEGIN")
            # One connection: writers queue for it in order of arrival. SQLite's own lock is polled, and some waiters
            # would starve for seconds.
            self._writer = _engine(store, "BEGIN IMMEDIATE", pool_size=1, max_overflow=0)
        self._reading = async_sessionmaker(self._reader, expire_on_commit=False)
        self._writing = async_sessionmaker(self._writer, expire_on_commit=False)

    async def create_tables(self) -> None:
        """Create the missing tables."""
        async with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Several processes start at once, and only one may create a table.
                await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('shop'))"))
            await connection.run_sync(Base.metadata.create_all)

    async def close(self) -> None:
        """Close every connection; the next session opens new ones."""
        await self._reader.dispose()
        await self._writer.dispose()

    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a session for reading, in one snapshot of the database."""
        return self._reading()

    def writing(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a session in a write transaction: committed at the end, rolled back on an error.

        On SQLite all other writers wait from its first statement on.
        """
        return self._writing.begin()


async def take_from_stock(session: AsyncSession, item: str, quantity: int, *, initial: int) -> bool:
    """Lower the stock of an item; return False and change nothing if there is too little.

    Args:
        initial: the stock of an item that has no row yet.
    """
    await _make_known(session, item, initial)
    where = (Stock.item == item, Stock.available >= quantity)
    lower = update(Stock).where(*where).values(available=Stock.available - quantity)
    return await session.scalar(lower.returning(Stock.item)) is not None


async def add_to_stock(session: AsyncSession, item: str, quantity: int, *, initial: int) -> Stock:
    """Raise the stock of an item; return the new stock."""
    await _make_known(session, item, initial)
    more = update(Stock).where(Stock.item == item).values(available=Stock.available + quantity)
    return (await session.scalars(more.returning(Stock))).one()


async def _make_known(session: AsyncSession, item: str, initial: int) -> None:
    row = {"item": item, "available": initial, "sent": 0}
    # Each database has an INSERT of its own for this.
    if session.get_bind().dialect.name == "postgresql":
        # Imported here: it takes a twentieth of a second of a start that mostly needs SQLite.
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        await session.execute(postgresql.insert(Stock).values(row).on_conflict_do_nothing())
    else:
        await session.execute(sqlite.insert(Stock).values(row).on_conflict_do_nothing())


async def delete_old_tokens(session: AsyncSession, *, now: datetime) -> int:
    """Delete the expired tokens; return their number."""
    gone = await session.scalars(delete(Token).where(Token.expires_at <= now).returning(Token.hash))
    return len(gone.all())


async def count_since(
    session: AsyncSession, table: type[User] | type[Order], since: datetime, until: datetime
) -> int:
    """Count the rows created at ``since`` or later, and before ``until``."""
    rows = select(func.count()).where(table.created_at >= since, table.created_at < until)
    return await session.scalar(rows) or 0


def _without_options(store: str) -> URL:
    """Return the URL of a PostgreSQL database for SQLAlchemy, without the options of jobrunner."""
    url = make_url(store).set(drivername="postgresql+asyncpg")
    return url.difference_update_query(["schema"])


def _engine(path: Path, begin: str, **pool: int) -> AsyncEngine:
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)), **pool)
    attach(engine)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        # SQLAlchemy sends BEGIN, not the driver: the recipe of its documentation.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 10000")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def say_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
