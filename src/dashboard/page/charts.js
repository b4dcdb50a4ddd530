// Draws each type of panel. uPlot draws the time series.
"use strict";

const PALETTE = ["#3b82f6", "#d97706", "#16a34a", "#a855f7", "#0891b2", "#dc2626", "#6366f1", "#ca8a04"];
// Rows of the last seconds may still be on their way when a bucket ends.
const UNDERWAY_MS = 5_000;

// --- stat, bar gauge, table --------------------------------------------------------------------------------------------------

function drawStat(panel, body, { meta, data }) {
  const value = data[0][data[0].length - 1];
  const { unit, decimals, thresholds, mappings, color } = field(panel, meta[0].name);
  const words = mapped(mappings, value) ?? written(value, unit, decimals);
  const text = el("div", { class: "big", "data-value": value }, words);
  text.style.setProperty("--letters", words.length);
  text.style.color = judged(thresholds, value) ?? color ?? "";
  body.replaceChildren(text);
}

function drawBars(panel, body, { meta, data }) {
  const numbers = data[data.length - 1];
  const names = data.length > 1 ? data[0] : numbers.map(() => meta[0].name);
  const most = Math.max(...numbers, Number.MIN_VALUE);
  const rows = names.map((name, at) => {
    const { unit, decimals, color } = field(panel, name);
    const bar = el("div", { class: "bar" });
    bar.style.width = `${Math.max((numbers[at] / most) * 100, 0.5)}%`;
    bar.style.background = color ?? PALETTE[at % PALETTE.length];
    return el(
      "li", { "data-name": name, "data-value": numbers[at] },
      el("span", { class: "name" }, label(name)),
      el("span", { class: "value" }, written(numbers[at], unit, decimals)),
      el("div", { class: "track" }, bar),
    );
  });
  body.replaceChildren(el("ul", { class: rows.length > 5 ? "bars many" : "bars" }, ...rows));
}

function drawTable(panel, body, { meta, data, rows }) {
  const fields = meta.map(({ name }) => field(panel, name));
  const numeric = data.map((column) => typeof column[0] === "number");
  const cell = (tag, at, ...content) => el(tag, numeric[at] ? { class: "number" } : {}, ...content);
  const head = el("tr", {}, ...meta.map(({ name }, at) => {
    const node = cell("th", at, label(name));
    node.scope = "col";
    return node;
  }));
  const lines = Array.from({ length: rows }, (_, row) => {
    const line = el("tr", { "data-name": data[0][row] });
    data.forEach((column, at) => {
      const node = cell("td", at, written(column[row], fields[at].unit, fields[at].decimals));
      node.dataset.value = column[row];
      line.append(node);
    });
    return line;
  });
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...lines));
  const view = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": panel.title }, table);
  const before = body.querySelector(".scroll"), focused = before?.matches(":focus"), scrolled = before?.scrollTop ?? 0;
  body.replaceChildren(view);
  view.scrollTop = scrolled;
  if (focused) view.focus();
}

// --- time series -------------------------------------------------------------------------------------------------------------

/// Turns the columns `time`, an optional name, and values into one list of times and a list of values for each series.
function pivot({ meta, data }) {
  const at = meta.findIndex(({ name }) => name === "time");
  const named = meta.findIndex(({ type }, column) => column !== at && /String|UUID|Enum/.test(type));
  const values = meta.map((_, column) => column).filter((column) => column !== at && column !== named);
  const known = [...new Set(data[at])].sort((a, b) => a - b);
  let step = Infinity;
  for (let i = 1; i < known.length; i++) step = Math.min(step, known[i] - known[i - 1]);
  // Buckets in which nothing happened are gaps, not straight lines across.
  const times = [];
  for (const time of known) {
    while (times.length && time - times[times.length - 1] > step * 1.5) times.push(times[times.length - 1] + step);
    times.push(time);
  }
  const place = new Map(times.map((time, index) => [time, index]));
  const series = new Map();
  data[at].forEach((time, row) => {
    for (const column of values) {
      const name = named < 0 ? meta[column].name : String(data[named][row]);
      if (!series.has(name)) series.set(name, new Array(times.length).fill(null));
      series.get(name)[place.get(time)] = data[column][row];
    }
  });
  return { times, step, series: [...series].map(([name, points]) => ({ name, points })) };
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/// Steps between the ticks of a time axis. uPlot's own leap from one minute to five, which leaves a narrow chart with one tick.
const TIME_STEPS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200]
  .map((seconds) => seconds * 1000).concat([1, 2, 3, 7, 14].map((days) => days * UNITS.d));

function timeLabels(_, ticks) {
  const step = ticks[1] - ticks[0];
  return ticks.map((at) => (step >= UNITS.d ? day(at).slice(5) : step < 60_000 ? clock(at) : minutes(at)));
}

/// The space of a label in pixels: one with seconds is wider.
const labelWidth = (_, axis, from, to, width) => ((to - from) / (width / 64) < 60_000 ? 64 : 46);

/// The bounds of the y axis. A limit is always in sight on a logarithmic axis, otherwise where the values come near it.
function bounds(custom, min, limit) {
  if (custom.scaleDistribution?.type === "log") {
    return (_, low, high) => [
      10 ** Math.floor(Math.log10(Math.max(Math.min(low ?? Infinity, custom.axisSoftMin ?? Infinity), 1))),
      Math.max((high ?? 1) * 1.2, custom.axisSoftMax ?? 10),
    ];
  }
  return (_, low, high) => {
    const top = Math.max(high ?? 1, limit !== undefined && high > limit * 0.4 ? limit * 1.05 : 0) || 1;
    const bottom = min ?? (low === high ? low - 1 : low);
    return [bottom, top + (top - bottom) * 0.06];
  };
}

/// Draws the limit as a dashed line with its value.
function limitLine(limit, unit) {
  return (plot) => {
    const y = plot.valToPos(limit, "y", true), { left, width, top } = plot.bbox, { ctx } = plot, size = devicePixelRatio;
    if (y < top) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = css("--bad");
    ctx.lineWidth = size;
    ctx.setLineDash([6 * size, 4 * size]);
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(left + width, y);
    ctx.stroke();
    ctx.font = `${11 * size}px system-ui`;
    ctx.textAlign = "right";
    ctx.fillText(`promise: ${tick(limit, unit)}`, left + width - 4 * size, y + 13 * size);
    ctx.restore();
  };
}

/// The values under the cursor. Other charts show the cursor's line only.
function tooltip(box, tip, times, shown, write) {
  return (plot) => {
    const { idx, left, top } = plot.cursor;
    if (idx === null || idx === undefined || left < 0 || !plot.over.matches(":hover")) return void (tip.hidden = true);
    tip.replaceChildren(
      el("time", {}, moment(times[idx])),
      ...shown.map(({ name, points, color }) => {
        const dot = el("i", { class: "dot" });
        dot.style.background = color;
        return el("div", {}, dot, `${label(name)} `, el("b", {}, write(points[idx]) || "none"));
      }),
    );
    tip.hidden = false;
    const over = plot.over.getBoundingClientRect(), outer = box.getBoundingClientRect();
    const x = over.left - outer.left + left, flip = x > outer.width / 2;
    tip.style.left = flip ? "" : `${x + 12}px`;
    tip.style.right = flip ? `${outer.width - x + 12}px` : "";
    tip.style.top = `${Math.max(top - 20, 0)}px`;
  };
}

/// The newest value of each series, and since when there is none. A chart of the last minutes whose newest buckets are empty has no
/// present value.
function newest({ times, step, series }, stacked, ends) {
  const at = times.findLastIndex((_, index) => series.some(({ points }) => points[index] !== null));
  const bucket = Math.max(ends.interval, Number.isFinite(step) ? step : 0), end = times[at] + bucket;
  // A bucket of 0 after the newest row is a present value.
  const silent = live() && ((watch.quiet !== null && times[at] <= watch.quiet) || ends.to - end > bucket + UNDERWAY_MS + 1_000);
  // In a stack of counts, no row of a kind is a count of 0.
  const value = ({ points }) => (silent ? null : points[at] ?? (stacked ? 0 : null));
  return { values: new Map(series.map((one) => [one.name, value(one)])), silentSince: silent ? Math.min(end, watch.quiet ?? end) : null };
}

function drawSeries(panel, body, result, ends) {
  const pivoted = pivot(result), { times, series } = pivoted;
  const custom = panel.fieldConfig.defaults.custom ?? {};
  const { unit, decimals, min, thresholds } = field(panel, "");
  const stacked = custom.stacking?.mode === "normal", bars = custom.drawStyle === "bars";
  const hidden = (body.hiddenSeries ??= new Set());
  series.forEach((one, at) => (one.color = field(panel, one.name).color ?? PALETTE[at % PALETTE.length]));
  const visible = series.filter(({ name }) => !hidden.has(name));
  const { values, silentSince } = newest(pivoted, stacked, ends);

  // A stack is drawn from its top: each line lies on the sum of those below it.
  let lines = visible.map(({ points }) => points);
  if (stacked) {
    const sums = new Array(times.length).fill(0);
    const seen = times.map((_, i) => series.some(({ points }) => points[i] !== null));
    lines = visible.map(({ points }) => points.map((value, i) => (seen[i] ? (sums[i] += value ?? 0) : null))).reverse();
  }
  const inOrder = stacked ? [...visible].reverse() : visible;
  const alpha = (colour, percent) => `color-mix(in srgb, ${colour} ${percent}%, transparent)`;
  const limit = custom.thresholdsStyle ? thresholds.steps.find((step) => step.value !== null)?.value : undefined;
  const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const logarithmic = custom.scaleDistribution?.type === "log";

  const box = el("div", { class: "chart" });
  const tip = el("div", { class: "tip", hidden: "" });
  const size = () => ({ width: Math.max(box.clientWidth, 100), height: Math.max(box.clientHeight, 90) });
  const select = (plot) => {
    const { left, width } = plot.select;
    if (width > 4) zoom(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
  };
  const options = {
    ms: 1,
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      sync: { key: "board", scales: ["x", null], filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
      bind: { dblclick: () => zoomOut },
    },
    scales: {
      x: { time: true, range: () => [ends.from, ends.to] },
      y: { distr: logarithmic ? 3 : 1, range: bounds(custom, min, limit) },
    },
    axes: [
      { ...axis, space: labelWidth, size: 30, incrs: TIME_STEPS, values: timeLabels },
      { ...axis, size: 62, space: 26, values: (_, ticks) => ticks.map((value) => (value === null ? "" : tick(value, unit))) },
    ],
    series: [
      {},
      ...inOrder.map(({ name, color }) => ({
        label: name,
        stroke: color,
        width: custom.lineWidth ?? 1,
        fill: custom.fillOpacity ? alpha(color, custom.fillOpacity) : undefined,
        points: { show: times.length === 1 && !bars, size: 5 },
        // A bar stands in its bucket, which begins at its time.
        paths: bars ? uPlot.paths.bars({ size: [0.8, 100], align: 1 }) : undefined,
      })),
    ],
    bands: stacked ? inOrder.slice(1).map((_, at) => ({ series: [at + 1, at + 2] })) : undefined,
    hooks: {
      setCursor: [tooltip(box, tip, times, visible, (value) => written(value, unit, decimals))],
      setSelect: [select],
      draw: limit === undefined ? [] : [limitLine(limit, unit)],
    },
  };
  const toggle = (name) => () => {
    if (!hidden.delete(name)) hidden.add(name);
    drawSeries(panel, body, result, ends);
  };
  const legend = el("div", { class: "legend" }, ...series.map(({ name, color }) => {
    const dot = el("i", { class: "dot" });
    dot.style.background = color;
    return el(
      "button", { type: "button", "aria-pressed": String(!hidden.has(name)), "data-series": name, onclick: toggle(name) },
      dot, `${label(name)} `, el("b", {}, written(values.get(name), unit, decimals)),
    );
  }));
  if (silentSince) legend.append(el("span", { class: "silent" }, `nothing since ${moment(silentSince)}`));

  // A reader keeps the shown value and the focus while the picture is renewed.
  const pointed = body.plot?.cursor, focused = body.querySelector(":focus")?.dataset.series;
  body.plot?.destroy();
  body.replaceChildren(box, legend);
  body.plot = new uPlot({ ...options, ...size() }, [times, ...lines], box);
  box.append(tip);
  body.plot.over.addEventListener("mousedown", () => (body.dragging = true));
  if (pointed?.left >= 0) body.plot.setCursor({ left: pointed.left, top: pointed.top });
  if (focused !== undefined) legend.querySelector(`[data-series="${CSS.escape(focused)}"]`)?.focus();
  body.dataset.last = JSON.stringify(Object.fromEntries(values));
  body.resized = () => body.plot.setSize(size());
}

// A picture is not renewed under a reader who drags over it.
addEventListener("mouseup", () => page.panels.forEach(({ body }) => (body.dragging = false)));

const DRAW = { timeseries: drawSeries, stat: drawStat, bargauge: drawBars, table: drawTable };
