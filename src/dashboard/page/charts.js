// Draws each type of panel, and formats values. uPlot draws the time series.
"use strict";

const PALETTE = ["#3b82f6", "#d97706", "#16a34a", "#a855f7", "#0891b2", "#dc2626", "#6366f1", "#ca8a04"];

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

// --- values ------------------------------------------------------------------------------------------------------------------

const fixed = (value, decimals) =>
  value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

function short(value, decimals) {
  const size = Math.abs(value);
  for (const [from, suffix] of [[1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= from) return fixed(value / (suffix === "k" ? 1e3 : from), 1) + " " + suffix;
  }
  return value.toLocaleString("en-US", { maximumFractionDigits: decimals ?? 2 });
}

function written(value, unit, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  switch (unit) {
    case "currencyUSD": return "$" + fixed(value, decimals ?? 2);
    case "percentunit": return fixed(value * 100, decimals ?? 1) + " %";
    case "percent": return fixed(value, decimals ?? 1) + " %";
    case "ms": return value >= 1000 ? fixed(value / 1000, 2) + " s" : fixed(value, decimals ?? 0) + " ms";
    case "s": return fixed(value, decimals ?? 2) + " s";
    case "reqps": case "ops": case "cps": return fixed(value, decimals ?? 1) + " /s";
    case "none": return value.toLocaleString("en-US", { maximumFractionDigits: decimals ?? 2 });
    default: return short(value, decimals);
  }
}

/// The options of a field: the panel's defaults, with the overrides for its name.
function field(panel, name) {
  const { unit, decimals, color, thresholds, min } = panel.fieldConfig.defaults;
  const options = { unit, decimals, min, thresholds, color: color?.mode === "fixed" ? color.fixedColor : undefined };
  for (const { matcher, properties } of panel.fieldConfig.overrides ?? []) {
    if (matcher.id !== "byName" || matcher.options !== name) continue;
    for (const { id, value } of properties) options[id] = id === "color" ? value.fixedColor : value;
  }
  return options;
}

/// The colour of the highest threshold that a value reaches; none if there is only one threshold.
function judged(thresholds, value) {
  const steps = thresholds?.steps ?? [];
  if (steps.length < 2) return undefined;
  const colours = { green: "var(--good)", orange: "var(--warn)", red: "var(--bad)" };
  const reached = steps.filter((step) => step.value === null || value >= step.value);
  const name = reached[reached.length - 1]?.color;
  return colours[name] ?? name;
}

const label = (name) => String(name).replaceAll("_", " ");

// --- stat, bar gauge, table --------------------------------------------------------------------------------------------------

function drawStat(panel, body, { meta, data }) {
  const value = data[0][data[0].length - 1];
  const { unit, decimals, thresholds, color } = field(panel, meta[0].name);
  const text = el("div", { class: "big", "data-value": value }, written(value, unit, decimals));
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
  body.replaceChildren(el("ul", { class: "bars" }, ...rows));
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
  return { times, series: [...series].map(([name, points]) => ({ name, points })) };
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawSeries(panel, body, result, range) {
  const { times, series } = pivot(result);
  const custom = panel.fieldConfig.defaults.custom ?? {};
  const { unit, decimals, min, thresholds } = field(panel, "");
  const stacked = custom.stacking?.mode === "normal";
  const hidden = (body.hiddenSeries ??= new Set());
  series.forEach((one, at) => (one.color = field(panel, one.name).color ?? PALETTE[at % PALETTE.length]));
  const shown = series.filter(({ name }) => !hidden.has(name));

  // A stack is drawn from its top: each line lies on the sum of those below it.
  let lines = shown.map(({ points }) => points);
  if (stacked) {
    const sums = new Array(times.length).fill(0);
    lines = shown.map(({ points }) => points.map((value, i) => (sums[i] += value ?? 0))).reverse();
  }
  const inOrder = stacked ? [...shown].reverse() : shown;
  const alpha = (colour, percent) => `color-mix(in srgb, ${colour} ${percent}%, transparent)`;
  const bars = custom.drawStyle === "bars";
  const limit = custom.thresholdsStyle ? thresholds.steps.find((step) => step.value !== null)?.value : undefined;
  const hours = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const clocks = (_, ticks) => {
    const shape = ticks[1] - ticks[0] < 60_000 ? { ...hours, second: "2-digit" } : hours;
    return ticks.map((tick) => new Date(tick).toLocaleTimeString([], shape));
  };
  const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };

  const box = el("div", { class: "chart" });
  const tip = el("div", { class: "tip", hidden: "" });
  const hover = (plot) => {
    const { idx, left, top } = plot.cursor;
    if (idx === null || idx === undefined || left < 0) return void (tip.hidden = true);
    tip.replaceChildren(
      el("time", {}, new Date(times[idx]).toLocaleTimeString()),
      ...shown.map(({ name, points, color }) => {
        const dot = el("i", { class: "dot" });
        dot.style.background = color;
        return el("div", {}, dot, `${label(name)} `, el("b", {}, written(points[idx], unit, decimals)));
      }),
    );
    tip.hidden = false;
    const over = plot.over.getBoundingClientRect(), outer = box.getBoundingClientRect();
    const x = over.left - outer.left + left, flip = x > outer.width / 2;
    tip.style.left = flip ? "" : `${x + 12}px`;
    tip.style.right = flip ? `${outer.width - x + 12}px` : "";
    tip.style.top = `${Math.max(top - 20, 0)}px`;
  };
  const line = (plot) => {
    if (limit === undefined) return;
    const y = plot.valToPos(limit, "y", true), { left, width, top } = plot.bbox;
    if (y < top) return;
    plot.ctx.save();
    plot.ctx.strokeStyle = css("--bad");
    plot.ctx.lineWidth = devicePixelRatio;
    plot.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    plot.ctx.beginPath();
    plot.ctx.moveTo(left, y);
    plot.ctx.lineTo(left + width, y);
    plot.ctx.stroke();
    plot.ctx.restore();
  };
  const size = () => ({ width: Math.max(box.clientWidth, 100), height: Math.max(box.clientHeight, 90) });
  const options = {
    ms: 1,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: () => [range.from, range.to] },
      y: {
        range: (_, low, high) => {
          const top = Math.max(high ?? 1, limit !== undefined && high > limit * 0.4 ? limit * 1.05 : 0) || 1;
          const bottom = min ?? (low === high ? low - 1 : low);
          return [bottom, top + (top - bottom) * 0.06];
        },
      },
    },
    axes: [
      { ...axis, space: 60, size: 30, values: clocks },
      { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => written(tick, unit, undefined).replace(/\.0+(?=\D|$)/, "")) },
    ],
    series: [
      {},
      ...inOrder.map(({ name, color }) => ({
        label: name,
        stroke: color,
        width: custom.lineWidth ?? 1,
        fill: custom.fillOpacity ? alpha(color, custom.fillOpacity) : undefined,
        points: { show: times.length === 1 && !bars, size: 5 },
        paths: bars ? uPlot.paths.bars({ size: [0.8, 40] }) : undefined,
      })),
    ],
    bands: stacked ? inOrder.slice(1).map((_, at) => ({ series: [at + 1, at + 2] })) : undefined,
    hooks: { setCursor: [hover], draw: [line] },
  };
  const legend = el("div", { class: "legend" }, ...series.map(({ name, color, points }) => {
    const on = !hidden.has(name);
    const dot = el("i", { class: "dot" });
    dot.style.background = color;
    const toggle = () => {
      if (!hidden.delete(name)) hidden.add(name);
      drawSeries(panel, body, result, range);
    };
    const last = points.findLast((value) => value !== null);
    return el(
      "button", { type: "button", "aria-pressed": String(on), "data-series": name, onclick: toggle },
      dot, `${label(name)} `, el("b", {}, written(last, unit, decimals)),
    );
  }));
  // A reader keeps the shown value and the focus while the picture is renewed.
  const pointed = body.plot?.cursor, focused = body.querySelector(":focus")?.dataset.series;
  body.plot?.destroy();
  body.replaceChildren(box, legend);
  body.plot = new uPlot({ ...options, ...size() }, [times, ...lines], box);
  box.append(tip);
  if (pointed?.left >= 0) body.plot.setCursor({ left: pointed.left, top: pointed.top });
  if (focused !== undefined) legend.querySelector(`[data-series="${CSS.escape(focused)}"]`)?.focus();
  body.dataset.last = JSON.stringify(Object.fromEntries(series.map(({ name, points }) => [name, points.findLast((v) => v !== null)])));
  body.resized = () => body.plot.setSize(size());
}

const DRAW = { timeseries: drawSeries, stat: drawStat, bargauge: drawBars, table: drawTable };
