// The page: asks for all panels of a dashboard in rounds, and draws each one when its answer arrives.
"use strict";

// The panel types that this page draws. A test compares the dashboards with this list.
const DRAWN = {
  types: ["timeseries", "stat", "bargauge", "table"],
  units: ["short", "none", "reqps", "ops", "cps", "currencyUSD", "percentunit", "percent", "ms", "s", "decbytes"],
};

// Requests at a time: browsers allow six to a host, and one asks for the state.
const AT_ONCE = 4;
// The time until the next request while a panel has no data yet.
const SOON_MS = 1_000;
// The least pause between two rounds, for a server that is slow.
const PAUSE_MS = 500;
// New topics are rare.
const TOPICS_MS = 60_000;

const page = { board: null, panels: [], topics: [], topicsAt: 0, timer: null, asking: null };

async function ask(path, signal) {
  let response, answer;
  try {
    response = await fetch(path, { signal, cache: "no-store" });
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { kind: "gone", error: "The dashboard does not answer" };
  }
  if (!response.ok) throw answer;
  return answer;
}

const asked = (what, { from, to }, more) =>
  `/api/dashboards/${page.board.uid}/${what}?${new URLSearchParams({ from, to, ...more })}`;

/// Requests all panels, a few at a time. A new round ends the previous one. While a service is away there is none.
async function round() {
  clearTimeout(page.timer);
  page.asking?.abort();
  if (document.hidden || watch.away) return;
  const asking = (page.asking = new AbortController());
  const now = Date.now(), ends = range(now), waiting = [...page.panels];
  let soon = false;
  const worker = async () => {
    for (let one = waiting.shift(); one && !watch.away; one = waiting.shift()) {
      const { panel, body } = one;
      const width = Math.max(Math.round(body.clientWidth), 100);
      try {
        const topic = shown.topic ? { topic: shown.topic } : {};
        const answer = await ask(asked(`panels/${panel.id}`, ends, { width, ...topic }), asking.signal);
        one.at = now;
        soon = !draw(one, answer, ends) || soon;
      } catch (problem) {
        if (problem.name === "AbortError") return;
        soon = true;
        if (problem.kind === "away" || problem.kind === "gone") look();
        // Too many requests at once: the last picture stays until the next round.
        else if (problem.kind !== "busy" || body.classList.contains("says")) say(body, problem.error ?? String(problem), "error");
        // An error without a kind is a fault of this page: the other panels and the next round go on.
        if (!problem.kind) console.error(problem);
      }
    }
  };
  await Promise.all([...Array.from({ length: AT_ONCE }, worker), topics(ends, now, asking.signal)]);
  if (asking.signal.aborted) return;
  const refresh = lasts(shown.refresh);
  // The interval is that of the beginnings: a slow round makes no figure older.
  const next = soon ? Math.min(SOON_MS, refresh) : refresh;
  if (refresh) page.timer = setTimeout(round, Math.max(next - (Date.now() - now), PAUSE_MS));
}

async function topics(ends, now, signal) {
  const asks = `${shown.from} ${shown.to}`;
  if (!page.board.templating.list.length || (page.topicsOf === asks && now - page.topicsAt < TOPICS_MS)) return;
  try {
    showTopics(await ask(asked("topics", ends, {}), signal));
    Object.assign(page, { topicsOf: asks, topicsAt: now });
  } catch (problem) {
    if (!problem.kind && problem.name !== "AbortError") console.error(problem);
  }
}

/// Draws a panel; false if it has no data yet.
function draw(one, answer, ends) {
  const { panel, body } = one, [result] = answer.results;
  one.again = () => draw(one, answer, ends);
  if (!result.rows) {
    say(body, panel.fieldConfig.defaults.noValue ?? (live() ? "no data yet" : "no data in this range"));
    return panel.fieldConfig.defaults.noValue !== undefined;
  }
  if (body.dragging) return true;
  body.classList.remove("says");
  DRAW[panel.type](panel, body, result, { ...ends, interval: answer.interval_ms });
  return true;
}

function say(body, text, kind = "") {
  body.plot?.destroy();
  body.plot = body.resized = undefined;
  body.classList.add("says");
  body.replaceChildren(el("p", { class: kind }, text));
}

function build(board) {
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
    say(body, "…");
    return { panel, body, node };
  });
  $("panels").replaceChildren(...page.panels.map(({ node }) => node));
}

async function start() {
  const boards = await ask("/api/dashboards");
  const uid = location.pathname.match(/^\/d\/([^/]+)/)?.[1] ?? boards[0].uid;
  const links = boards.map(({ uid: other, title }) => el("a", { href: `/d/${other}`, "aria-current": other === uid ? "page" : undefined }, title));
  $("boards").replaceChildren(...links);
  page.board = await ask(`/api/dashboards/${encodeURIComponent(uid)}`);
  bindControls();
  readAddress(page.board);
  build(page.board);
  await round();
}

let resizing;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => page.panels.forEach(({ body }) => body.resized?.()), 100);
});
// A hidden page sends no requests, and resumes when it is visible again.
document.addEventListener("visibilitychange", () => document.hidden || (look(), page.board && round()));
// A canvas keeps its colours, so it is drawn again.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.panels.forEach(({ again }) => again?.()));

start().catch((problem) => {
  if (problem.kind !== "gone") document.body.append(el("p", { class: "error" }, problem.error ?? String(problem)));
});
look();
