// Whether the figures are those of now: asks each second whether ClickHouse answers, says what is away, and greys what is old. It also says
// that no row is stored, with which a dead ingester or producer begins.
"use strict";

const WATCH_MS = 600;
// The server itself waits for 0.9 s. So either of the two that is away is named within 2 s.
const LATE_MS = 1_400;
// A panel may be older than its refresh interval by the time of a usual query.
const QUERY_MS = 1_000;
// The time for which a page says that a service is back.
const NEWS_MS = 15_000;

const watch = { away: null, news: null, newest: null, quiet: null, stored: null, timer: null };

/// The age of the newest row above which nothing seems to be stored: well above the limit of the board's own age panel.
function quietLimit() {
  const steps = page.board?.panels.find(({ title }) => title.endsWith(", age"))?.fieldConfig.defaults.thresholds.steps ?? [];
  return 1.5 * 1_000 * (steps[steps.length - 1]?.value || Infinity);
}

/// Notes since when no row is stored, or that rows are stored again. Returns whether that has changed.
function noteQuiet(asked) {
  const quiet = watch.newest !== null && asked - watch.newest > quietLimit() ? watch.newest : null;
  if (watch.quiet !== null && quiet === null) {
    watch.stored = { text: `Rows are stored again, after ${age(watch.newest - watch.quiet)}.`, until: asked + NEWS_MS };
  }
  const changed = (watch.quiet === null) !== (quiet === null);
  watch.quiet = quiet;
  return changed;
}

async function look() {
  clearTimeout(watch.timer);
  if (document.hidden) return;
  const asked = Date.now(), before = watch.away;
  try {
    const status = await ask("/api/status", AbortSignal.timeout(LATE_MS));
    const local = (ms) => Date.now() - (status.now - ms); // this computer's clock may differ from the server's
    if (before?.who === "dashboard") watch.news = { text: `The dashboard is back, after ${age(asked - before.since)}.`, until: asked + NEWS_MS };
    watch.newest = status.newest === null ? null : local(status.newest);
    watch.away = status.clickhouse === "away" ? { who: "ClickHouse", since: local(status.since), ...status } : null;
    const { back, restarted } = status;
    const recent = (ms) => ms && status.now - ms < NEWS_MS;
    const news = [];
    if (recent(back?.at)) news.push(`ClickHouse is back since ${clock(local(back.at))}, after ${age(back.away_ms)}.`);
    if (recent(restarted)) news.push(`ClickHouse was restarted at ${clock(local(restarted))}.`);
    if (news.length) watch.news = { text: news.join(" "), until: asked + WATCH_MS * 2 };
    if (!watch.away && noteQuiet(asked) && !before) round();
  } catch (problem) {
    watch.away = { who: "dashboard", since: before?.who === "dashboard" ? before.since : asked };
    if (problem.kind !== "gone") console.error(problem);
  }
  showState();
  watch.timer = setTimeout(look, Math.max(WATCH_MS - (Date.now() - asked), 50));
  if (before && !watch.away) page.board ? round() : start();
}

const age = (ms) => lasting(Math.max(ms, 0) / 1000, 0);

/// The banner, and the time of the oldest figure on the page.
function showState() {
  const now = Date.now(), banner = $("banner"), { away } = watch;
  const news = [watch.news, watch.stored].filter((one) => one?.until > now).map(({ text }) => text).join(" ");
  const quiet = !away && page.board && live() ? watch.quiet : null;
  const times = page.panels.flatMap(({ at }) => at ?? []), oldest = times.length ? Math.min(...times) : null;
  banner.hidden = !away && quiet === null && !news;
  banner.className = away ? "away" : quiet !== null ? "quiet" : "back";
  const sentences = away ? said(away, oldest) : quiet !== null ? saidQuiet(quiet, news) : [news, ""];
  // A screen reader reads the sentences when they change, not each second.
  if (banner.dataset.said !== sentences.join()) {
    banner.dataset.said = sentences.join();
    banner.replaceChildren(sentences[0], el("span", { id: "count", "aria-hidden": "true" }), sentences[1]);
  }
  const since = away ? away.since : quiet;
  $("count").textContent = since === null ? "" : `, for ${age(now - since)}`;

  const limit = lasts(shown.refresh) + QUERY_MS, due = lasts(shown.refresh) > 0;
  const old = (at) => at !== undefined && (Boolean(away) || (due && now - at > limit));
  for (const { node, at } of page.panels) node.classList.toggle("old", old(at));
  const late = oldest !== null && old(oldest);
  $("age").className = late ? "late" : "";
  $("age").textContent = oldest === null ? "" : `as of ${clock(oldest)}` + (late ? `, ${age(now - oldest)} old` : "");
}

/// The sentences of the banner; the duration stands between the two.
function said(away, oldest) {
  const since = `has not answered since ${clock(away.since)}`;
  const picture = oldest ? `The picture is that of ${clock(oldest)}.` : "There is no picture yet.";
  if (away.who === "dashboard") {
    return [`The dashboard at ${location.origin} ${since}`, `. It only reads, so no event is lost. If it has ended, start it again: clickstream dashboard (or demo). ${picture}`];
  }
  const note = away.note && away.note !== "ClickHouse does not answer" ? ` ${away.note}.` : "";
  return [`ClickHouse at ${away.address} ${since}`, `.${note} Kafka keeps the events meanwhile, nothing is lost. ${picture}`];
}

/// A table does not tell which of the two it is.
function saidQuiet(since, news) {
  const cause = "The ingester is away, or no events come in. Kafka keeps the events that came in, nothing is lost.";
  return [`${news} No row has been stored since ${moment(since)}`.trim(), `. ${cause}`];
}

setInterval(showState, 500);
