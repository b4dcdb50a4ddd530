"use strict";
// The common parts of all charts: units, colours by the system's setting, and a cursor that keys move, too.

const dark = matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (stage) => (dark.matches ? stage.dark : stage.light);

// Nanoseconds with three digits, as in the table; `short` without trailing zeros.
function time(ns) {
  if (ns == null) return "–";
  const [value, unit] = ns < 999500 ? [ns / 1e3, "µs"] : ns < 999.5e6 ? [ns / 1e6, "ms"] : [ns / 1e9, "s"];
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + " " + unit;
}
const short = (ns) => {
  const [value, unit] = time(ns).split(" ");
  return Number(value) + " " + unit;
};
const grouped = (number) => (number == null ? "–" : Math.round(number).toLocaleString("en"));
const clock = (seconds) => {
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const rest = two(Math.floor(whole / 60) % 60) + ":" + two(whole % 60);
  return whole >= 3600 ? Math.floor(whole / 3600) + ":" + rest : rest;
};

// 3 → 99.9 %
const percent = (nines) => {
  const share = 100 * (1 - 10 ** -nines);
  return Number(share.toFixed(Math.max(0, Math.ceil(nines) - 1))) + " %";
};

const axis = (values, more) => ({
  stroke: css("--soft"),
  font: "12px system-ui, sans-serif",
  grid: { stroke: css("--grid"), width: 1 },
  ticks: { show: false },
  values,
  ...more,
});

// Of time since the beginning, which `clock` shows to the second: marks closer than that would look alike.
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800];
// At least two marks, also where there is little room.
const timeMarks = (plot, _, low, high) => {
  const room = Math.max(2, Math.floor(plot.width / 80));
  const steps = SECONDS.filter((step) => step <= high - low);
  const step = steps.find((step) => (high - low) / step <= room) ?? steps[steps.length - 1] ?? high - low + 1;
  const marks = [];
  for (let mark = Math.ceil(low / step) * step; mark <= high; mark += step) marks.push(mark);
  return marks;
};
const timeAxis = () => axis((_, marks) => marks.map(clock), { size: 34, splits: timeMarks });

// Powers of ten, on a logarithmic axis of latency.
function decades(low, high) {
  const marks = [];
  for (let decade = Math.floor(Math.log10(low)); decade <= Math.ceil(Math.log10(high)); decade++) marks.push(10 ** decade);
  return marks;
}

// Marks between two latencies: powers of ten, and between them 2 and 5 where there are few.
function ticks(low, high) {
  const all = decades(low, high);
  const marks = Math.log10(high / low) > 3 ? all : all.flatMap((mark) => [mark, 2 * mark, 5 * mark]);
  return marks.filter((mark) => mark >= low && mark <= high);
}

const logScale = (low, high) => {
  const marks = decades(low, high);
  return { distr: 3, log: 10, range: [marks[0], marks[marks.length - 1]] };
};

// `describe` puts the values under the cursor into words, for readers who cannot see them.
function chart(id, options, data, describe) {
  const place = document.getElementById(id);
  place.tabIndex = 0;
  const height = options.height || 280;
  const plot = new uPlot(
    { width: place.clientWidth, height, cursor: { y: false, drag: { x: false, y: false } }, legend: { markers: { fill: (plot, nth) => plot.series[nth].stroke(plot, nth) } }, ...options },
    data,
    place,
  );
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height })).observe(place);
  let at = -1;
  place.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = data[0].length - 1;
    at = Math.max(0, Math.min(last, (plot.cursor.idx ?? at) + step));
    plot.setCursor({ left: plot.valToPos(data[0][at], "x"), top: plot.over.clientHeight / 2 });
    if (describe) place.setAttribute("aria-label", describe(at));
  });
  return plot;
}
