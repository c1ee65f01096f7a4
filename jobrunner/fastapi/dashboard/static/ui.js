// The dashboard's own script. Every page works without it: it updates the live parts, copies, and knows a few keys.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // -- live parts: ask for this page again while the tab is visible, and change only what has changed ----------

  const PERIOD = 2000, SLOWEST = 30000;
  const button = $("#live"), stale = $("#stale");
  let etag = null, wait = PERIOD, timer = 0, asking = null, on = true;

  const key = (node) => node.nodeType === 1 ? node.id || node.dataset.key : undefined;
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
  // What the viewer has opened, typed or switched is theirs, and never taken from the server again.
  const THEIRS = new Set(["open", "hidden", "checked", "value"]);
  const theirs = (node, name) => THEIRS.has(name) && node.type !== "hidden";

  function morph(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !theirs(old, name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (!theirs(old, name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    const kept = new Map();
    for (const child of old.childNodes) if (key(child)) kept.set(key(child), child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const match = key(next) ? kept.get(key(next)) : at && !key(at) && alike(at, next) ? at : null;
      if (!match || !alike(match, next)) old.insertBefore(document.importNode(next, true), at);
      else {
        if (match === at) at = at.nextSibling;
        else old.insertBefore(match, at);
        kept.delete(key(match));
        morph(match, next);
      }
    }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  function swap(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    document.title = fresh.title;
    $("link[rel=icon]").href = $("link[rel=icon]", fresh).href;
    for (const part of all("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (next) morph(part, next);
    }
    prepare();
  }

  function say(text) {
    if (!text === stale.hidden && $("span", stale).textContent === text) return;
    $("span", stale).textContent = text;
    stale.hidden = !text;
  }

  async function ask() {
    asking = new AbortController();
    const limit = setTimeout(() => asking.abort(), 10000);
    const address = location.pathname + location.search;
    try {
      const answer = await fetch(address, {
        headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store", redirect: "error", signal: asking.signal,
      });
      if (answer.status === 200) swap(await answer.text());
      else if (answer.status === 401 || answer.status === 403) {
        set(false);
        return say("Not updated any more: you are signed out. Load the page again.");
      } else if (answer.status === 404) {
        set(false);
        return say("Not updated any more: it has been deleted.");
      } else if (answer.status !== 304) throw new Error(answer.status);
      etag = answer.headers.get("ETag") || etag;
      $("#as-of").textContent = answer.headers.get("X-As-Of");
      $("#took").textContent = answer.headers.get("X-Took");
      wait = PERIOD;
      say("");
    } catch {
      if (!on || document.hidden) return;
      wait = Math.min(wait * 2, SLOWEST);
      say(`Not updated since ${$("#as-of").textContent}: the application does not answer. Trying again.`);
    } finally {
      clearTimeout(limit);
      asking = null;
      plan();
    }
  }

  function plan() {
    clearTimeout(timer);
    if (button && on && !document.hidden && !asking) timer = setTimeout(ask, wait);
  }

  function set(state) {
    on = state;
    button.setAttribute("aria-pressed", on);
    $("span", button).textContent = on ? "Live" : "Stopped";
    if (!on) asking?.abort();
    plan();
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) asking?.abort();
    else if (button && on && !asking) ask();
  });

  // -- copying, choosing rows, the zone ------------------------------------------------------------------------

  function prepare() {
    for (const one of all("[data-copies], [data-whole], [data-opens]")) one.hidden = false;
    count();
  }

  function count() {
    const rows = all("input[name=id]"), chosen = rows.filter((one) => one.checked);
    const label = $("[data-count]"), whole = $("[data-all]");
    if (label) label.textContent = `${chosen.length} selected`;
    if (whole) {
      whole.checked = rows.length > 0 && chosen.length === rows.length;
      whole.indeterminate = chosen.length > 0 && !whole.checked;
    }
  }

  async function copy(from, text) {
    try { await navigator.clipboard.writeText(text); } catch { return; }
    from.classList.add("done");
    setTimeout(() => from.classList.remove("done"), 1200);
  }

  document.addEventListener("click", (event) => {
    const from = event.target.closest("[data-copy], [data-copies], [data-opens], #live");
    if (!from) return;
    if (from.dataset.opens) $("#" + from.dataset.opens).showModal();
    else if (from === button) set(!on);
    else if (from.dataset.copy !== undefined) copy(from, from.dataset.copy);
    else {
      const lines = document.getElementById(from.dataset.copies).cloneNode(true);
      for (const one of all("summary", lines)) one.remove();
      copy(from, lines.textContent);
    }
  });

  document.addEventListener("change", ({ target }) => {
    if (target.matches("[data-all]")) for (const one of all("input[name=id]")) one.checked = target.checked;
    count();
  });

  let sent = null;
  addEventListener("pageshow", () => { sent = null; });
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target === sent) event.preventDefault(); // a double click
    sent = event.target;
  });

  // -- keys ----------------------------------------------------------------------------------------------------

  function step(by) {
    const rows = all("[data-row]").map((one) => $("a.strong", one) || $("a", one)).filter(Boolean);
    const now = rows.findIndex((one) => one.closest("[data-row]") === document.activeElement?.closest("[data-row]"));
    const next = rows[now < 0 ? (by > 0 ? 0 : rows.length - 1) : now + by];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const does = {
      "/": () => ($("#find")?.checkVisibility() ? $("#find") : $("#f"))?.focus(),
      "?": () => $("#help")?.showModal(),
      r: () => button && set(!on),
      j: () => step(1),
      k: () => step(-1),
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  });

  // -- at the start -------------------------------------------------------------------

  const zone = $("[data-zone]"), own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && own && own !== "UTC") {
    zone.value = own;
    zone.textContent = own.split("/").pop().replaceAll("_", " ");
    zone.hidden = false;
  }
  if ($("main > .notice:not([hidden])")) {
    const address = new URL(location);
    for (const name of ["said", "n"]) address.searchParams.delete(name);
    history.replaceState(null, "", address);
  }
  $(".tabs [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  prepare();
  if (button) { button.hidden = false; plan(); }
})();
