"""The shop's page of reports: a button, a progress bar, the result.

The page is part of the module, so that the single-file executable needs no other file.
"""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from app.tasks.reports import make_sales_report
from jobrunner import JobRunner

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>Sales report · Shop</title>
<style>
  :root { color-scheme: light dark }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem }
  button { font: inherit; padding: .4rem 1rem } progress { width: 100% } table { border-collapse: collapse }
  td { padding: .1rem 1rem .1rem 0 } [hidden] { display: none }
</style>
<h1>Sales report</h1>
<p><button id="make">Make the report</button></p>
<div id="bar" hidden><progress aria-label="Progress"></progress><p id="message" role="status"></p></div>
<table id="report" hidden><tbody></tbody></table>
<p id="failed" role="alert" hidden>The report could not be made. Please try again later.</p>
<script>
const at = id => document.getElementById(id)
const [button, bar, message, report, failed] = ["make", "bar", "message", "report", "failed"].map(at)
const meter = bar.querySelector("progress")

function show(result) {
  const rows = [["orders", result.orders], ...Object.entries(result.quantities).sort()]
  report.tBodies[0].replaceChildren(...rows.map(cells => {
    const row = document.createElement("tr")
    for (const cell of cells) row.insertCell().textContent = cell
    return row
  }))
  end(report)
}

function end(part) {
  bar.hidden = true
  part.hidden = button.disabled = false
}

function draw(progress) {
  bar.hidden = false
  if (!progress) return
  meter.max = progress.total
  meter.value = progress.done
  message.textContent = `${progress.message}: ${progress.done} of ${progress.total}`
}

function follow(address) {
  const events = new EventSource(`${address}/events`)
  events.onmessage = event => {
    const status = JSON.parse(event.data)
    if (!status.done) return draw(status.progress)
    events.close()
    status.state === "succeeded" ? show(status.result) : end(failed)
  }
  // A lost connection is made again by the browser; one that was refused is not.
  events.onerror = () => { if (events.readyState === EventSource.CLOSED) end(failed) }
}

button.onclick = async () => {
  button.disabled = true
  report.hidden = failed.hidden = true
  meter.removeAttribute("value")
  message.textContent = ""
  const answer = await fetch("reports", { method: "POST" })
  if (answer.status === 202) follow(answer.headers.get("Location"))
  else if (answer.ok) show(await answer.json())
  else end(failed)
}
</script>
</html>
"""


def everybody() -> None:
    """Let each client follow a job whose id it knows: a real shop would ask for the login."""


def report_routes(jobs: JobRunner) -> APIRouter:
    """Return the page of reports, and the route that makes one.

    The application has a status router for them.
    """
    router = APIRouter(tags=["shop"])

    @router.get("/reports", response_class=HTMLResponse)
    async def show_page() -> str:
        """Show the page of reports."""
        return PAGE

    @router.post(
        "/reports",
        responses={
            200: {"description": "The report, if it was ready in time."},
            202: {"description": "The report is being made; `Location` is its status."},
        },
    )
    async def make_report() -> Response:
        """Make a sales report: answer with it, or with the address at which to follow it."""
        # No rows of the shop belong to it, so the job is committed by itself, before it is waited for.
        return await jobs.respond(await jobs.enqueue(make_sales_report), within=0.5)

    return router
