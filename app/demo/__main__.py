"""The story: a broken mail server, a ``kill -9``, a batch that goes on, a dead letter, and nothing lost.

Every number that it prints is asked over HTTP from the shop, or counted by the demo itself in a ledger outside of it.
Exit status: 0 if every promise held, 1 if one was broken, 130 after Ctrl-C.
"""

import signal
import sys
import tempfile
import textwrap
import threading
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from app.demo.mailserver import MailServer
from app.demo.shop import TOKEN, Broken, Shop, wait_for
from app.demo.terminal import Terminal

PEOPLE = ("ada", "alan", "barbara", "donald", "edsger", "grace", "ken", "margaret")
UNLUCKY = "grace"
WAREHOUSE = "warehouse@example.com"
TASK = "send_welcome_email"
ATTEMPTS = 5
CROWD = 40
"""The number of registrations that the process must accept before it is killed."""
SETTINGS = {
    "SMTP_HOST": "127.0.0.1",
    "SMTP_STARTTLS": "false",
    "WAREHOUSE_EMAIL": WAREHOUSE,
    "MAIL_ATTEMPTS": ATTEMPTS,
    "MAIL_WAIT": 0.5,
    "MAIL_WAIT_MAX": 4,
}


class Story:
    """The chapters, in the order in which they happen."""

    def __init__(self, terminal: Terminal, mail: MailServer, shop: Shop) -> None:
        self._terminal = terminal
        self._mail = mail
        self._shop = shop
        self._ledger: dict[str, str] = {}
        """The registered addresses, by the id of the welcome mail's job; the shop answered 201 to each."""
        self._batch = ""
        """The id of the batch of an order: two jobs, and one that starts when both have ended."""

    def tell(self) -> None:
        """Run all chapters.

        Raises:
            Broken: a promise was not kept.
        """
        self.a_mail_server_that_fails()
        self.retries_with_back_off()
        self.kill_in_mid_job()
        self.nothing_was_lost()
        self.a_dead_letter()
        self.replay_over_http()
        self.the_end()

    def a_mail_server_that_fails(self) -> None:
        """Start everything and register people whose welcome mail cannot be sent."""
        say = self._terminal
        say.chapter(
            "Register people while the mail server fails",
            "Two processes: a mail server that answers 451, and the shop with its job queue inside. "
            "POST /register stores a user and a job in one transaction, and answers; the mail is sent after that.",
        )
        took = self._shop.start()
        say.say(f"mail server at 127.0.0.1:{self._mail.port}, shop at {self._shop.url}")
        say.say(f"dashboard at {self._shop.url}/jobs/ui/, token {TOKEN}")
        say.say(f"(pid {self._shop.pid}, up after {took:.1f} s), all its data in one SQLite file")
        for name in PEOPLE:
            job_id = self._register(name)
            say.event(name, "201 Created", after=f"  job {job_id}", good=True)
        self._place_order()
        say.event("order", "201 Created", after=f"  batch {self._batch}", good=True)
        say.say("the order is confirmed and audited side by side; then the warehouse gets a mail")

    def retries_with_back_off(self) -> None:
        """Watch the first two attempts of each mail fail."""
        say = self._terminal
        say.chapter(
            "Retries, with back-off",
            "Asked over HTTP: GET /jobs, GET /jobs/{id}. Each wait is four times the one before, "
            "plus a random part.",
            pause=False,  # the jobs do not wait for readers
        )
        seen: set[tuple[str, int]] = set()

        def look() -> bool | None:
            for job in self._shop.jobs(TASK):
                step = (job["id"], job["attempt"])
                if job["state"] == "scheduled" and step not in seen:
                    seen.add(step)
                    self._tell_failure(job["id"])
            return True if len(seen) >= 2 * len(PEOPLE) else None

        wait_for("two failed attempts of each mail", 20, look)
        dead = self._shop.get("/jobs/dead-letters")["items"]
        self._check(not dead, "a mail server that fails for a while costs no mail")

    def kill_in_mid_job(self) -> None:
        """Block the mails half-way, and kill the process."""
        say = self._terminal
        self._mail.mood = "stuck"
        say.chapter(
            "kill -9, in mid-job",
            "The mail server now takes mails and never says whether it has them. Once all jobs hang "
            "there, and while more people register as fast as the shop can answer, it is killed.",
        )

        def look() -> bool | None:
            running = [state for state in self._states().values() if state == "running"]
            return True if len(running) >= len(PEOPLE) else None

        wait_for("all mails are under way", 20, look)
        batch = self._shop.get(f"/jobs/batches/{self._batch}")
        self._check(
            (batch["state"], batch["at_end"]["state"]) == ("running", "blocked"),
            f"the order's batch runs: {batch['succeeded']} of {batch['total']} jobs have succeeded,"
            " its callback waits",
        )
        say.event("shop", f"{len(PEOPLE)} jobs run", after="  each in the middle of its mail")
        crowd = threading.Thread(target=self._register_until_it_dies, daemon=True)
        crowd.start()
        enough = len(PEOPLE) + CROWD
        wait_for("a crowd", 10, lambda: True if len(self._ledger) >= enough else None)
        self._shop.kill()
        crowd.join(15)
        say.event(
            "shop", f"kill -9 {self._shop.pid}", after="  no warning, no clean-up", good=False
        )
        delivered = len(self._mail.received)
        say.say(f"ledger: {len(self._ledger)} people have their 201, {delivered} their mail")

    def nothing_was_lost(self) -> None:
        """Start the shop again and compare it with the ledger."""
        say = self._terminal
        say.chapter(
            "Start again: nothing was lost",
            "The same command on the same file. The mail server works again; only the mailbox of "
            f"{UNLUCKY} is full.",
        )
        self._mail.full_mailboxes = frozenset({_address(UNLUCKY)})
        self._mail.mood = "up"
        took = self._shop.start()
        pid = self._shop.pid
        say.event("shop", f"up again as pid {pid}", after=f"  after {took:.1f} s", good=True)
        lost = self._ledger.keys() - self._states().keys()
        self._check(
            not lost, f"all {len(self._ledger)} acknowledged jobs are there: {len(lost)} lost"
        )
        unlucky = self._id_of(UNLUCKY)
        rest = self._ledger.keys() - {unlucky}

        def look() -> bool | None:
            states = self._states()
            return True if all(states[id] == "succeeded" for id in rest) else None

        wait_for("all mails but one are sent", 30, look)
        say.event("mail", f"{len(rest)} jobs succeeded", after="  all but one", good=True)
        self._the_order_went_on()
        survivor = self._id_of(PEOPLE[0])
        say.say(f"What happened to {PEOPLE[0]}'s, from GET /jobs/{survivor}:")
        self._tell_history(self._shop.get(f"/jobs/{survivor}"))
        reached = {mail.to for mail in self._mail.received}
        expected = {_address(self._ledger[id]) for id in rest}
        self._check(expected <= reached, f"all {len(expected)} mails are in their mailboxes")

    def _the_order_went_on(self) -> None:
        """Check that the batch outlived the kill and its callback ran once."""

        def look() -> dict[str, Any] | None:
            batch: dict[str, Any] = self._shop.get(f"/jobs/batches/{self._batch}")
            return batch if batch["at_end"]["state"] == "succeeded" else None

        batch = wait_for("the callback of the order's batch", 30, look)
        self._check(
            (batch["state"], batch["succeeded"]) == ("succeeded", batch["total"]),
            f"the order's batch went on: {batch['succeeded']} of {batch['total']} jobs succeeded",
        )
        recipients = [mail.to for mail in self._mail.received]
        self._check(
            recipients.count(WAREHOUSE) == 1,
            "its callback ran after them: the warehouse has 1 mail",
        )

    def a_dead_letter(self) -> None:
        """Wait until the mail to the full mailbox is out of attempts."""
        say = self._terminal
        say.chapter(
            "Out of attempts: a dead letter",
            f"After {ATTEMPTS} attempts the job stops trying. It is kept whole: why, with which "
            "arguments, every attempt.",
            pause=False,
        )
        job_id = self._id_of(UNLUCKY)
        if self._shop.get(f"/jobs/{job_id}")["state"] == "scheduled":
            self._tell_failure(job_id)

        def look() -> dict[str, Any] | None:
            letters: list[dict[str, Any]] = self._shop.get("/jobs/dead-letters")["items"]
            return letters[0] if letters else None

        letter = wait_for("the dead letter", 30, look)
        where = f"/jobs/dead-letters/{letter['id']}"
        say.event(UNLUCKY, "dead letter", after=f"  GET {where}", good=False)
        for name in ("task", "args", "reason", "error"):
            say.say(f"  {name:<8}{letter[name]}")
        self._tell_history(self._shop.get(where))
        self._check(
            letter["id"] == job_id and letter["reason"] == "exhausted",
            f"the only dead letter is {UNLUCKY}'s, after {letter['attempt']} attempts",
        )

    def replay_over_http(self) -> None:
        """Make room in the mailbox and replay the dead letter."""
        say = self._terminal
        say.chapter("Repair, and replay over HTTP", "The mailbox has room again. One request:")
        self._mail.full_mailboxes = frozenset()
        job_id = self._id_of(UNLUCKY)
        say.say(f"$ curl -X POST -H 'Authorization: Bearer {TOKEN}' \\")
        say.say(f"    {self._shop.url}/jobs/dead-letters/{job_id}/replay")
        self._shop.post(f"/jobs/dead-letters/{job_id}/replay")

        def look() -> bool | None:
            return True if self._states().get(job_id) == "succeeded" else None

        wait_for("the replayed mail is sent", 15, look)
        mails = [mail for mail in self._mail.received if mail.to == _address(UNLUCKY)]
        self._check(len(mails) == 1, f"{UNLUCKY} has her mail:")
        say.quoted(mails[0].text)
        self._check(
            job_id in mails[0].message_id, "its Message-ID holds the id of the job from chapter 1"
        )

    def the_end(self) -> None:
        """Stop the shop and check that every mail arrived."""
        say = self._terminal
        say.chapter("The balance", "SIGTERM, and a last look at the ledger.")
        states = wait_for("all jobs are done", 15, self._all_succeeded)
        dead = self._shop.get("/jobs/dead-letters")["items"]
        status = self._shop.stop()
        unanswered = len(states.keys() - self._ledger.keys())
        note = f" ({unanswered} stored, its answer cut off by the kill)" if unanswered else ""
        self._check(not dead, f"{len(states)} jobs succeeded{note}, no dead letters")
        reached = {mail.to for mail in self._mail.received}
        people = {_address(name) for name in self._ledger.values()}
        self._check(
            people <= reached,
            f"{len(people)} people registered, {len(people & reached)} have their mail",
        )
        self._check(status == 128 + signal.SIGTERM, "the shop ended when it was asked to")

    # -- asking ------------------------------------------------------------------------------------------

    def _register(self, name: str) -> str:
        answer = self._shop.post("/register", {"username": name, "email": _address(name)})
        self._ledger[answer["job_id"]] = name
        return str(answer["job_id"])

    def _place_order(self) -> None:
        wanted = {"email": _address(PEOPLE[0]), "item": "analytical engine"}
        order = self._shop.post("/orders", wanted)["order_id"]
        (batch,) = self._shop.get("/jobs/batches", name=f"order:{order}")["items"]
        self._batch = str(batch["id"])

    def _register_until_it_dies(self) -> None:
        try:
            for number in range(100_000):
                self._register(f"guest{number}")
        except Broken:
            # What was not answered was not promised: it is not in the ledger.
            return

    def _id_of(self, name: str) -> str:
        return next(id for id, who in self._ledger.items() if who == name)

    def _states(self) -> dict[str, str]:
        return {job["id"]: job["state"] for job in self._shop.jobs(TASK)}

    def _all_succeeded(self) -> dict[str, str] | None:
        states = self._states()
        return states if set(states.values()) == {"succeeded"} else None

    def _check(self, holds: bool, promise: str) -> None:
        if not holds:
            raise Broken(f"not true: {promise}")
        self._terminal.kept(promise)

    def _tell_failure(self, job_id: str) -> None:
        job = self._shop.get(f"/jobs/{job_id}")
        last = job["history"][-1]
        if last["finished_at"] is None:
            return
        wait = (_moment(job["run_at"]) - _moment(last["finished_at"])).total_seconds()
        self._terminal.event(
            self._ledger[job_id],
            f"attempt {last['attempt']} failed",
            after=f"  {_short(last)}, again after {wait:.1f} s",
        )

    def _tell_history(self, job: dict[str, Any]) -> None:
        for run in job["history"]:
            lasted = _moment(run["finished_at"]) - _moment(run["started_at"])
            self._terminal.say(
                f"  attempt {run['attempt']}  {run['outcome']:<10}{lasted.total_seconds():6.2f} s  {_short(run)}"
            )


def _address(name: str) -> str:
    return f"{name}@example.com"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _short(run: dict[str, Any]) -> str:
    text = str(run["error"] or "")
    return textwrap.shorten(text, 60, placeholder=" …")


def main() -> int:
    """Run the demo; leave no process and no file behind."""
    ArgumentParser(prog="python -m app.demo", description=__doc__).parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    terminal = Terminal()
    terminal.headline("\njobrunner: a durable job queue inside FastAPI, on one SQLite file")
    try:
        show(terminal)
    except Broken as broken:
        terminal.broken(str(broken))
        return 1
    except KeyboardInterrupt:
        terminal.broken("stopped")
        return 130
    took = time.perf_counter() - terminal.started
    terminal.say(f"Nothing lost, in {took:.0f} s. Now: just run, and http://127.0.0.1:8000/docs")
    return 0


def show(terminal: Terminal) -> None:
    """Run the demo, and clean up however it ends."""
    with ExitStack() as stage:
        directory = Path(stage.enter_context(tempfile.TemporaryDirectory(prefix="jobrunner-demo-")))
        mail = MailServer()
        stage.callback(mail.stop)
        mail.start()
        shop = Shop(directory, {**SETTINGS, "SMTP_PORT": mail.port})
        stage.callback(shop.close)
        try:
            Story(terminal, mail, shop).tell()
        except Broken:
            terminal.quoted(shop.log_tail())
            raise


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
