// Additions for browsers with scripts: sections that stay up to date, copying, keys. Every page works without them.
"use strict";

// Live sections: the page is fetched again, and the sections that changed are replaced.
const PERIOD_MS = 2000;
let refreshing = false;

// Sections that follow a stream, by their element.
const followers = new Map();

// Shortest time between the first event of a stream and the next page, and between two announcements.
const COLLECT_MS = 250;
const ANNOUNCE_MS = 5000;

// Returns the document at a URL; null if there is none, for instance because the session has ended.
async function fetchPage(url) {
  const response = await fetch(url, { redirect: "error", credentials: "same-origin" });
  if (!response.ok) return null;
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

function isBusy() {
  const active = document.activeElement;
  const isInLive = active && active.closest("[data-live]") && active.matches("input, textarea, select, button, a");
  return document.hidden || isInLive || String(window.getSelection()) !== "" || document.querySelector("[data-live] details[open]");
}

async function refresh() {
  const live = Array.from(document.querySelectorAll("[data-live]")).filter((section) => followers.get(section)?.isDue() ?? true);
  if (refreshing || live.length === 0 || isBusy()) return;
  refreshing = true;
  try {
    const pages = new Map();
    for (const section of live) {
      const url = section.dataset.from || location.href;
      followers.get(section)?.expect();
      if (!pages.has(url)) pages.set(url, await fetchPage(url));
      const page = pages.get(url);
      const fresh = page && page.getElementById(section.id);
      if (!fresh || isBusy()) {
        followers.get(section)?.miss();
        continue;
      }
      if (fresh.innerHTML === section.dataset.shown) continue;
      const known = new Set(Array.from(section.querySelectorAll("[data-row]"), (row) => row.dataset.row));
      const isFirst = section.dataset.shown === undefined;
      const old = section.innerHTML;
      section.dataset.shown = fresh.innerHTML;
      if (old === fresh.innerHTML) continue;
      section.replaceChildren(...fresh.childNodes);
      if (!isFirst) {
        for (const row of section.querySelectorAll("[data-row]")) row.classList.toggle("fresh", !known.has(row.dataset.row));
      }
      showEnd(section);
    }
  } catch {
    // The sidecar restarts, or the session has ended: the next navigation shows which.
  } finally {
    refreshing = false;
  }
}

// Follows the stream of a section: counts its events, announces them, and has the section fetched when there are any. Without a stream,
// for instance because the key has too many, the section is fetched periodically.
function follow(section) {
  const button = document.querySelector(`[data-pause="${section.id}"]`);
  const news = document.querySelector(`[data-news="${section.id}"]`);
  let source = null;
  let isPaused = false;
  let isMissing = false; // an event may not be on the page
  let count = 0; // events since the last announcement, or since the pause
  let announcing = null;
  let collecting = null;

  // At most one announcement in a period, so that a screen reader is not flooded.
  function announce() {
    if (announcing !== null || count === 0) return;
    announcing = setTimeout(() => {
      announcing = null;
      if (count === 0) return;
      const entries = count === 1 ? "1 new entry" : `${count} new entries`;
      news.textContent = isPaused ? `Paused. ${entries} since then.` : `${entries}.`;
      if (!isPaused) count = 0;
    }, news.textContent === "" ? 0 : ANNOUNCE_MS);
  }

  function open() {
    if (source !== null || document.hidden) return;
    source = new EventSource(section.dataset.stream);
    source.addEventListener("webhook", () => {
      isMissing = true;
      count += 1;
      announce();
      if (collecting === null && !isPaused) collecting = setTimeout(() => { collecting = null; refresh(); }, COLLECT_MS);
    });
    // The page is older than the connection.
    source.addEventListener("open", () => {
      isMissing = true;
      refresh();
    });
    // Any other end is followed by a new connection.
    source.addEventListener("end", (event) => {
      if (JSON.parse(event.data).reason === "unauthorized") close();
    });
    source.addEventListener("error", () => {
      if (source !== null && source.readyState === EventSource.CLOSED) source = null;
    });
  }

  function close() {
    source?.close();
    source = null;
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    count = 0;
    button.setAttribute("aria-pressed", String(isPaused));
    news.textContent = isPaused ? "Paused." : "The list is live.";
    if (!isPaused) refresh();
  });
  // Hidden pages need no connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else open();
  });
  window.addEventListener("pagehide", close);
  followers.set(section, {
    isDue: () => !isPaused && (source === null || isMissing),
    expect: () => { isMissing = false; },
    miss: () => { isMissing = true; },
  });
  open();
}

// Conversations show their end.
function showEnd(root) {
  for (const list of root.querySelectorAll(".conversation")) list.scrollTop = list.scrollHeight;
}

// Copy buttons.
function enableCopying() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.textContent);
  button.textContent = "Copied";
});

// Select all entries of a list.
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-all]")) return;
  for (const box of event.target.form.querySelectorAll("input[type=checkbox][name=id]")) box.checked = event.target.checked;
});

// Actions that cannot be undone ask first.
document.addEventListener("submit", (event) => {
  const question = event.submitter && event.submitter.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// Keys: / search, j and k move through a list, Enter opens, ? lists the keys.
function move(step) {
  const rows = Array.from(document.querySelectorAll("tr[data-row]"));
  if (rows.length === 0) return;
  const current = rows.findIndex((row) => row.classList.contains("selected"));
  const next = Math.min(Math.max(current + step, 0), rows.length - 1);
  for (const row of rows) row.classList.toggle("selected", row === rows[next]);
  rows[next].querySelector("a")?.focus();
}

function showKeys() {
  let dialog = document.getElementById("keys");
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.id = "keys";
    dialog.setAttribute("aria-label", "Keys");
    const lines = [["/", "search"], ["j", "next entry"], ["k", "previous entry"], ["Enter", "open the entry"], ["?", "this list"], ["Esc", "close"]];
    const list = document.createElement("dl");
    for (const [key, meaning] of lines) {
      const term = document.createElement("dt");
      const code = document.createElement("code");
      code.textContent = key;
      term.append(code);
      const description = document.createElement("dd");
      description.textContent = meaning;
      list.append(term, description);
    }
    dialog.append(list);
    document.body.append(dialog);
  }
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const search = document.querySelector("[data-search]");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "?") showKeys();
});

// On a narrow screen the navigation scrolls: the current page is in view.
document.querySelector(".pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
enableCopying();
for (const section of document.querySelectorAll("[data-stream]")) follow(section);
showEnd(document);
setInterval(refresh, PERIOD_MS);
