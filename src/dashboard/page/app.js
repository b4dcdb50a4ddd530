// The page: the dashboard, the range, the times of requests, and the message if there is no answer.
"use strict";

// The panel types that this page draws. A test compares the dashboards with this list.
const DRAWN = {
  types: ["timeseries", "stat", "bargauge", "table"],
  units: ["short", "none", "reqps", "ops", "cps", "currencyUSD", "percentunit", "percent", "ms", "s"],
};

const RANGES = [["5 min", 300], ["15 min", 900], ["1 hour", 3600], ["6 hours", 21600], ["24 hours", 86400]];
// Requests at a time: browsers allow six to a host.
const AT_ONCE = 5;
// Seconds until the next request while a panel has no data yet.
const SOON = 1;

const page = { board: null, panels: [], range: 900, refresh: 5, timer: null, asking: null, away: null };
const $ = (id) => document.getElementById(id);
const seconds = (text) => Number.parseInt(text, 10) * (text.endsWith("m") ? 60 : text.endsWith("h") ? 3600 : 1);
const clock = (ms) => new Date(ms).toLocaleTimeString();

// --- asking ------------------------------------------------------------------------------------------------------------------

async function ask(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { kind: "gone", error: "clickstream does not answer" };
  }
  const answer = await response.json();
  if (!response.ok) throw answer;
  return answer;
}

/// Requests all panels, a few at a time, and draws each one when it arrives. A new round ends the previous one.
async function round() {
  clearTimeout(page.timer);
  page.asking?.abort();
  const asking = (page.asking = new AbortController());
  const to = Date.now(), range = { from: to - page.range * 1000, to };
  const waiting = [...page.panels];
  let away = null, empty = false;
  const worker = async () => {
    for (let one = waiting.shift(); one; one = waiting.shift()) {
      const { panel, body } = one;
      const width = Math.max(Math.round(body.clientWidth), 100);
      try {
        const path = `/api/dashboards/${page.board.uid}/panels/${panel.id}?from=${range.from}&to=${range.to}&width=${width}`;
        empty = !draw(one, await ask(path, asking.signal), range) || empty;
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (problem.kind === "away" || problem.kind === "gone") away = problem;
        // Too many requests at once: the last picture stays until the next round.
        else if (problem.kind !== "busy" || body.classList.contains("says")) say(body, problem.error ?? String(problem), "error");
        // An error without a kind is a fault of this page: the other panels and the next round go on.
        if (!problem.kind) console.error(problem);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (asking.signal.aborted) return;
  await tell(away);
  // A hidden page sends no requests, and resumes when it is visible again.
  if (!document.hidden && page.refresh) {
    page.timer = setTimeout(round, 1000 * (empty || away ? Math.min(SOON, page.refresh) : page.refresh));
  }
}

/// Draws a panel; false if it has no data yet.
function draw(one, { results }, range) {
  const { panel, body } = one, [result] = results;
  one.again = () => draw(one, { results }, range);
  if (!result.rows) {
    const { noValue } = panel.fieldConfig.defaults;
    say(body, noValue ?? "no data yet");
    return noValue !== undefined;
  }
  body.classList.remove("says");
  DRAW[panel.type](panel, body, result, range);
  return true;
}

function say(body, text, kind = "") {
  body.plot?.destroy();
  body.plot = body.resized = undefined;
  body.classList.add("says");
  body.replaceChildren(el("p", { class: kind }, text));
}

/// The banner: which service is away, and since when; and for a moment, that it is back.
async function tell(problem) {
  const banner = $("banner");
  if (!problem) {
    if (page.away) {
      banner.className = "back";
      banner.textContent = `${page.away.who} is back`;
      setTimeout(() => (banner.hidden ||= !page.away), 5000);
      page.away = null;
    }
    return;
  }
  const who = problem.kind === "gone" ? "clickstream" : "ClickHouse";
  if (page.away?.who !== who) page.away = { who, since: Date.now() };
  let note = "";
  if (who === "ClickHouse") {
    const status = await ask("/api/status").catch(() => ({}));
    page.away.since = status.since ?? page.away.since;
    note = status.note ? ` ${status.note}.` : "";
  }
  banner.className = "away";
  banner.hidden = false;
  const drawn = page.panels.some(({ body }) => !body.classList.contains("says"));
  const picture = drawn ? "this is the last picture" : "there is no picture yet";
  banner.textContent = `${who} does not answer since ${clock(page.away.since)}: ${picture}.${note}`;
}

// --- the page ----------------------------------------------------------------------------------------------------------------

function build(board) {
  page.board = board;
  document.title = `${board.title} – clickstream`;
  page.panels = board.panels.map((panel) => {
    const heading = el("h2", { id: `panel-${panel.id}` }, panel.title);
    const about = el("button", { type: "button", class: "about", title: panel.description, "aria-label": `About: ${panel.description}` }, "?");
    const words = el("p", { class: "words", hidden: "" }, panel.description ?? "");
    about.addEventListener("click", () => (words.hidden = !words.hidden));
    const body = el("div", { class: "body" });
    const node = el(
      "section", { class: `panel ${panel.type}`, "data-panel-id": panel.id, "aria-labelledby": `panel-${panel.id}` },
      el("div", { class: "head" }, heading, about), words, body,
    );
    const { x, y, w, h } = panel.gridPos;
    node.style.setProperty("--column", `${x + 1} / span ${w}`);
    node.style.setProperty("--row", `${y + 1} / span ${h}`);
    node.style.setProperty("--height", `${Math.max(h * 34, 110)}px`);
    say(body, "asking …");
    return { panel, body, node };
  });
  $("panels").replaceChildren(...page.panels.map(({ node }) => node));
}

function choices(select, options, chosen, change) {
  select.replaceChildren(...options.map(([text, value]) => el("option", { value }, text)));
  select.value = String(chosen);
  select.onchange = () => (change(Number(select.value)), round());
}

async function start() {
  const boards = await ask("/api/dashboards");
  const uid = location.pathname.match(/^\/d\/([^/]+)/)?.[1] ?? boards[0].uid;
  const links = boards.map(({ uid: other, title }) => el("a", { href: `/d/${other}`, "aria-current": other === uid ? "page" : undefined }, title));
  $("boards").replaceChildren(...links);
  const board = await ask(`/api/dashboards/${encodeURIComponent(uid)}`);
  page.range = seconds(board.time.from.replace("now-", "")) || page.range;
  page.refresh = seconds(board.refresh || "0");
  const kept = Number(sessionStorage.getItem("range"));
  if (RANGES.some(([, value]) => value === kept)) page.range = kept;
  choices($("range"), RANGES, page.range, (value) => sessionStorage.setItem("range", (page.range = value)));
  const intervals = [...new Set([board.refresh, ...board.timepicker.refresh_intervals])].filter(Boolean);
  choices($("refresh"), [...intervals.map((text) => [text, seconds(text)]), ["never", 0]], page.refresh, (value) => (page.refresh = value));
  build(board);
  await round();
}

let resizing;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => page.panels.forEach(({ body }) => body.resized?.()), 100);
});
document.addEventListener("visibilitychange", () => document.hidden || (page.board && round()));
// A canvas keeps its colours, so it is drawn again.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.panels.forEach(({ again }) => again?.()));

start().catch((problem) => {
  $("banner").hidden = false;
  $("banner").className = "away";
  $("banner").textContent = problem.error ?? String(problem);
  setTimeout(() => location.reload(), 3000);
});
