"""Mail, against a real mail server: what is sent, what is tried again, what is not."""

import socket
import ssl
from collections.abc import Iterator
from email.utils import parseaddr
from pathlib import Path

import pytest
import trustme

from app.mail import Mail, MailDelayed, Outbox, mailer
from app.settings import Settings
from jobrunner import Bury
from tests.app.shop import ShopClient, make_settings
from tests.app.smtp import PASSWORD, USER, SmtpServer, smtp_server

MAIL = Mail("ada@example.com", "Hello", "Dear Ada,\n\nwith an é.\n")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A certificate authority that nobody else trusts."""
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate, as an operator would have it."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def strict_smtp(ca: trustme.CA) -> Iterator[SmtpServer]:
    """A mail server that wants STARTTLS and a login."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with smtp_server(tls=context) as server:
        yield server


def plain(smtp: SmtpServer, tmp_path: Path) -> Settings:
    """Settings for a server that wants no login."""
    return make_settings(
        tmp_path, smtp_host=smtp.hostname, smtp_port=smtp.port, smtp_starttls=False, smtp_timeout=2
    )


def strict(smtp: SmtpServer, tmp_path: Path, **fields: object) -> Settings:
    """Settings for a server that wants STARTTLS and a login."""
    return make_settings(
        tmp_path,
        **{
            "smtp_host": smtp.hostname,
            "smtp_port": smtp.port,
            "smtp_username": USER,
            "smtp_password": PASSWORD,
            "smtp_timeout": 5,
            **fields,
        },
    )


# -- the mailer -----------------------------------------------------------------------------------


async def test_send_delivers_the_mail_whole(smtp: SmtpServer, tmp_path: Path) -> None:
    await mailer(plain(smtp, tmp_path)).send(MAIL, id="job-1")

    (message,) = smtp.accepted
    assert message["Message-ID"] == "<job-1@localhost>"
    assert message["Subject"] == "Hello"
    assert parseaddr(message["To"])[1] == "ada@example.com"
    assert parseaddr(message["From"])[1] == "shop@localhost"
    assert message["Date"].datetime.tzinfo is not None
    assert message.get_content().replace("\r\n", "\n") == MAIL.text


async def test_send_logs_in_over_starttls(
    strict_smtp: SmtpServer, ca_file: Path, tmp_path: Path
) -> None:
    await mailer(strict(strict_smtp, tmp_path, smtp_ca_file=ca_file)).send(MAIL, id="job-1")

    assert strict_smtp.logins == [USER]
    assert len(strict_smtp.accepted) == 1


@pytest.mark.parametrize("answer", ["421 closing", "450 busy", "451 local error", "452 full"])
@pytest.mark.parametrize("step", ["rcpt_answers", "data_answers"])
async def test_send_refused_for_now_may_be_tried_again(
    smtp: SmtpServer, tmp_path: Path, step: str, answer: str
) -> None:
    getattr(smtp, step).append(answer)

    with pytest.raises(MailDelayed, match=answer):
        await mailer(plain(smtp, tmp_path)).send(MAIL, id="job-1")

    await mailer(plain(smtp, tmp_path)).send(MAIL, id="job-1")
    assert len(smtp.accepted) == 1


@pytest.mark.parametrize("answer", ["550 no such user", "552 too large", "554 looks like spam"])
@pytest.mark.parametrize("step", ["rcpt_answers", "data_answers"])
async def test_send_refused_for_good_is_buried(
    smtp: SmtpServer, tmp_path: Path, step: str, answer: str
) -> None:
    getattr(smtp, step).append(answer)

    with pytest.raises(Bury, match=answer):
        await mailer(plain(smtp, tmp_path)).send(MAIL, id="job-1")


async def test_send_with_a_wrong_password_is_buried(
    strict_smtp: SmtpServer, ca_file: Path, tmp_path: Path
) -> None:
    settings = strict(strict_smtp, tmp_path, smtp_ca_file=ca_file, smtp_password="wrong")  # noqa: S106

    with pytest.raises(Bury, match="refuses the login: 535"):
        await mailer(settings).send(MAIL, id="job-1")


async def test_send_whose_login_fails_for_now_may_be_tried_again(
    strict_smtp: SmtpServer, ca_file: Path, tmp_path: Path
) -> None:
    strict_smtp.login_answer = "454 4.7.0 temporary authentication failure"

    with pytest.raises(MailDelayed, match=r"454 4\.7\.0 temporary"):
        await mailer(strict(strict_smtp, tmp_path, smtp_ca_file=ca_file)).send(MAIL, id="job-1")


async def test_send_to_a_server_that_nobody_vouches_for_is_buried(
    strict_smtp: SmtpServer, tmp_path: Path
) -> None:
    with pytest.raises(Bury, match="certificate is not trusted"):
        await mailer(strict(strict_smtp, tmp_path)).send(MAIL, id="job-1")

    assert strict_smtp.logins == []


async def test_send_by_starttls_to_a_server_without_it_is_buried(
    smtp: SmtpServer, tmp_path: Path
) -> None:
    with pytest.raises(Bury, match="STARTTLS"):
        await mailer(strict(smtp, tmp_path)).send(MAIL, id="job-1")


async def test_send_without_login_to_a_server_that_wants_one_is_buried(
    strict_smtp: SmtpServer, ca_file: Path, tmp_path: Path
) -> None:
    settings = strict(
        strict_smtp, tmp_path, smtp_ca_file=ca_file, smtp_username=None, smtp_password=None
    )

    with pytest.raises(Bury, match="530"):
        await mailer(settings).send(MAIL, id="job-1")


async def test_send_to_nobody_listening_may_be_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = make_settings(tmp_path, smtp_host="127.0.0.1", smtp_port=port)

    with pytest.raises(MailDelayed, match=rf"127\.0\.0\.1:{port}"):
        await mailer(settings).send(MAIL, id="job-1")


async def test_send_to_an_unknown_host_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(MailDelayed, match=r"mail\.invalid"):
        await mailer(make_settings(tmp_path, smtp_host="mail.invalid")).send(MAIL, id="job-1")


async def test_send_to_a_silent_server_times_out_and_may_be_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = make_settings(
            tmp_path,
            smtp_host="127.0.0.1",
            smtp_port=silent.getsockname()[1],
            smtp_starttls=False,
            smtp_timeout=0.2,
        )

        with pytest.raises(MailDelayed, match=r"(?i)timed out"):
            await mailer(settings).send(MAIL, id="job-1")


# -- the outbox -----------------------------------------------------------------------------------


async def test_outbox_keeps_the_mail_as_one_file_however_often_it_is_sent(
    settings: Settings,
) -> None:
    outbox = mailer(settings)
    assert isinstance(outbox, Outbox)

    await outbox.send(MAIL, id="job-1")
    await outbox.send(MAIL, id="job-1")

    assert [path.name for path in settings.outbox_dir.iterdir()] == ["job-1.eml"]
    (mail,) = await outbox.list()
    assert (mail.to, mail.subject, mail.message_id) == (MAIL.to, MAIL.subject, "<job-1@localhost>")


async def test_outbox_that_was_never_used_is_empty(settings: Settings) -> None:
    outbox = mailer(settings)
    assert isinstance(outbox, Outbox)

    assert list(await outbox.list()) == []


# -- as jobs --------------------------------------------------------------------------------------


def test_mail_refused_twice_for_now_arrives_at_the_third_attempt_under_one_message_id(
    mailing_shop: ShopClient, smtp: SmtpServer
) -> None:
    smtp.data_answers.extend(["451 later", "451 later"])

    run = mailing_shop.finish(mailing_shop.register("ada"))

    assert run.outcomes == ["failed", "failed", "succeeded"]
    assert "451" in str(run.job.history[0].error)
    assert {message["Message-ID"] for message in smtp.offered} == {f"<{run.id}@localhost>"}
    assert (len(smtp.offered), len(smtp.accepted)) == (3, 1)


def test_mail_refused_for_good_is_a_dead_letter_at_once(
    mailing_shop: ShopClient, smtp: SmtpServer
) -> None:
    smtp.rcpt_answers.append("550 no such user")

    dead = mailing_shop.t.finish(mailing_shop.register("nobody"))

    assert (dead.reason, dead.outcomes) == ("buried", ["failed"])
    assert "550" in str(dead.error)
    assert "no such user" in str(dead.error)


def test_mail_refused_for_good_can_be_replayed_to_another_address(
    mailing_shop: ShopClient, smtp: SmtpServer
) -> None:
    smtp.rcpt_answers.append("550 no such user")
    dead = mailing_shop.t.finish(mailing_shop.register("nobody"), until="dead")

    mailing_shop.post(
        f"/jobs/dead-letters/{dead.id}/replay", json={"args": {"email": "ada@example.com"}}
    )
    mailing_shop.t.run_until_idle()

    (message,) = smtp.accepted
    assert message["To"] == "ada@example.com"


def test_mail_with_a_wrong_password_is_a_dead_letter_at_once(
    strict_smtp: SmtpServer, ca_file: Path, tmp_path: Path
) -> None:
    settings = strict(strict_smtp, tmp_path, smtp_ca_file=ca_file, smtp_password="wrong")  # noqa: S106
    with ShopClient(settings) as shop:
        dead = shop.t.finish(shop.register("ada"))
        letter = shop.dead_letter(dead.id)

    assert dead.reason == "buried"
    assert "535" in letter["error"]
    assert "wrong" not in str(letter), "a dead letter is shown to people: no password in it"


def test_mail_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = make_settings(tmp_path, smtp_host="127.0.0.1", smtp_port=port, smtp_starttls=False)
    with ShopClient(settings) as shop:
        job_id = shop.register("ada")
        shop.t.run_until_idle()
        shop.t.travel(seconds=2 * settings.mail_wait)
        with smtp_server(port=port) as smtp:
            run = shop.finish(job_id)
            assert len(smtp.accepted) == 1

    assert run.outcomes == ["failed", "failed", "succeeded"]
    assert run.job.history[0].error_type == "app.mail.MailDelayed"


def test_mail_out_of_attempts_is_a_dead_letter_and_arrives_when_replayed(
    mailing_shop: ShopClient, smtp: SmtpServer
) -> None:
    smtp.rcpt_answers.extend(["451 later"] * 10)
    dead = mailing_shop.t.finish(mailing_shop.register("ada"), until="dead")
    assert dead.reason == "exhausted"

    smtp.rcpt_answers.clear()
    assert mailing_shop.t.replay(dead).state == "succeeded"

    assert [message["Message-ID"] for message in smtp.accepted] == [f"<{dead.id}@localhost>"]
