// The shown range, the refresh interval and the topic. They stand in the address in Grafana's way, so a link shows the same picture, and
// the browser's back button works.
"use strict";

const RANGES = [["Last 5 min", "now-5m"], ["Last 15 min", "now-15m"], ["Last hour", "now-1h"], ["Last 6 hours", "now-6h"], ["Last 24 hours", "now-24h"]];
const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
// The server refuses longer ranges.
const LONGEST_MS = 32 * UNITS.d;
const NAMES = { from: "from", to: "to", refresh: "refresh", topic: "var-topic" };

const shown = { from: "now-5m", to: "now", refresh: "5s", topic: "" };
const $ = (id) => document.getElementById(id);
/// Milliseconds of a text such as "5s"; 0 for "never".
const lasts = (text) => ((parts) => (parts ? parts[1] * UNITS[parts[2]] : 0))(/^(\d+)([smhd])$/.exec(text));
const live = () => shown.to.trim() === "now";

/// The milliseconds of "now-5m", of milliseconds as text, or of a local time; NaN for any other text.
function instant(text, now) {
  const relative = /^now(?:-(\d+[smhd]))?$/.exec(text.trim());
  if (relative) return now - lasts(relative[1] ?? "");
  if (/^\d{11,}$/.test(text.trim())) return Number(text);
  const [, date, time] = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d?:\d\d(?::\d\d)?))?$/.exec(text.trim()) ?? [];
  return Date.parse(`${date}T${(time ?? "00:00").padStart(5, "0").replace(/^(\d:)/, "0$1")}`);
}

/// The range in milliseconds, or what is wrong with it.
function range(now = Date.now(), { from, to } = shown) {
  const ends = { from: Math.round(instant(from, now)), to: Math.round(instant(to, now)) };
  if (Number.isNaN(ends.from) || Number.isNaN(ends.to)) return { wrong: "Write a time as 2026-01-31 14:30:00, or as now-1h" };
  if (ends.from >= ends.to) return { wrong: "The range ends before it begins" };
  return ends.to - ends.from > LONGEST_MS ? { wrong: "A range has 32 days at most" } : ends;
}

/// Takes the range out of the address; where it has none, the board's own.
function readAddress(board) {
  const given = new URLSearchParams(location.search);
  const own = { from: board.time.from, to: board.time.to, refresh: board.refresh || "never", topic: "" };
  for (const [key, name] of Object.entries(NAMES)) shown[key] = given.get(name) || own[key];
  if (shown.topic === "$__all") shown.topic = "";
  if (range().wrong) Object.assign(shown, own);
  showControls();
}

/// Changes what is shown, as one step of the browser's history.
function show(change) {
  Object.assign(shown, change);
  const query = new URLSearchParams();
  for (const [key, name] of Object.entries(NAMES)) if (shown[key]) query.set(name, shown[key]);
  history.pushState(null, "", `${location.pathname}?${query}`);
  showControls();
  round();
}

/// Shows exactly these milliseconds: a part of a chart that was dragged over, or more than before.
const zoom = (from, to) => show({ from: String(Math.round(from)), to: String(Math.round(to)) });

function zoomOut() {
  const { from, to } = range(), half = Math.min((to - from) / 2, (LONGEST_MS - to + from) / 2);
  const end = Math.min(to + half, Date.now());
  zoom(Math.max(end - (to - from) - 2 * half, 0), end);
}

function choices(select, options, chosen) {
  select.replaceChildren(...options.map(([text, value]) => el("option", { value }, text)));
  select.value = chosen;
}

function showControls() {
  const known = RANGES.some(([, from]) => live() && from === shown.from);
  choices($("range"), [...RANGES, ["From … to …", "custom"]], known ? shown.from : "custom");
  $("custom").hidden = known;
  for (const end of ["from", "to"]) $(end).value = shown[end].startsWith("now") ? shown[end] : ((at) => `${day(at)} ${clock(at)}`)(instant(shown[end], 0));
  const intervals = [...new Set([shown.refresh, ...page.board.timepicker.refresh_intervals])].filter((text) => lasts(text));
  choices($("refresh"), [...intervals.map((text) => [text, text]), ["never", "never"]], lasts(shown.refresh) ? shown.refresh : "never");
  for (const link of document.querySelectorAll("nav a")) link.search = location.search;
  showTopics(page.topics);
}

/// A choice of topic, where the table holds several.
function showTopics(topics) {
  page.topics = topics;
  const all = [...new Set([...topics, shown.topic])].filter(Boolean);
  $("topics").hidden = all.length < 2 && !shown.topic;
  choices($("topic"), [["all", ""], ...all.map((topic) => [topic, topic])], shown.topic);
}

function bindControls() {
  $("range").onchange = ({ target }) => {
    if (target.value !== "custom") return show({ from: target.value, to: "now" });
    const { from, to } = range();
    [$("from").value, $("to").value] = [from, to].map((at) => `${day(at)} ${clock(at)}`);
    $("custom").hidden = false;
    $("from").focus();
  };
  $("refresh").onchange = ({ target }) => show({ refresh: target.value });
  $("topic").onchange = ({ target }) => show({ topic: target.value });
  $("out").onclick = zoomOut;
  $("custom").onsubmit = (event) => {
    event.preventDefault();
    const asked = { from: $("from").value, to: $("to").value }, { wrong } = range(Date.now(), asked);
    $("from").setCustomValidity(wrong ?? "");
    if (wrong) return $("from").reportValidity();
    show(asked);
  };
  $("from").oninput = $("to").oninput = () => $("from").setCustomValidity("");
  addEventListener("popstate", () => (readAddress(page.board), round()));
}
