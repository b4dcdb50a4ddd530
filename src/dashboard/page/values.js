// Formats values and times, as Grafana's units do. Clocks have 24 hours.
"use strict";

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

const two = (number) => String(number).padStart(2, "0");
const minutes = (ms) => ((at) => `${two(at.getHours())}:${two(at.getMinutes())}`)(new Date(ms));
const clock = (ms) => `${minutes(ms)}:${two(new Date(ms).getSeconds())}`;
const day = (ms) => ((at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`)(new Date(ms));
/// The clock, after the day if that is not today.
const moment = (ms) => (day(ms) === day(Date.now()) ? clock(ms) : `${day(ms)} ${clock(ms)}`);

const fixed = (value, decimals) =>
  value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

function short(value, decimals) {
  const size = Math.abs(value);
  for (const [from, suffix] of [[1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= from) return fixed(value / (suffix === "k" ? 1e3 : from), 1) + " " + suffix;
  }
  return value.toLocaleString("en-US", { maximumFractionDigits: decimals ?? 2 });
}

function bytes(value) {
  const power = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), 4);
  return fixed(value / 1000 ** power, power ? 1 : 0) + " " + ["B", "kB", "MB", "GB", "TB"][power];
}

function lasting(seconds, decimals) {
  if (seconds < 100) return fixed(seconds, decimals ?? 2) + " s";
  return seconds < 6000 ? fixed(seconds / 60, 1) + " min" : fixed(seconds / 3600, 1) + " h";
}

function written(value, unit, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value !== "number") return String(value);
  switch (unit) {
    case "currencyUSD": return "$" + fixed(value, decimals ?? 2);
    case "percentunit": return fixed(value * 100, decimals ?? 1) + " %";
    case "percent": return fixed(value, decimals ?? 1) + " %";
    case "ms": return Math.abs(value) >= 1000 ? fixed(value / 1000, 2) + " s" : fixed(value, decimals ?? 0) + " ms";
    case "decbytes": return bytes(value);
    case "s": return lasting(value, decimals);
    case "reqps": case "ops": case "cps": return fixed(value, decimals ?? 1) + " /s";
    case "none": return value.toLocaleString("en-US", { maximumFractionDigits: decimals ?? 2 });
    default: return short(value, decimals);
  }
}

/// A round number on an axis: without zeros after the point.
const tick = (value, unit) => written(value, unit, undefined).replace(/\.0+(?=\D|$)/, "");

/// The options of a field: the panel's defaults, with the overrides for its name.
function field(panel, name) {
  const { unit, decimals, color, thresholds, mappings, min } = panel.fieldConfig.defaults;
  const options = { unit, decimals, min, thresholds, mappings, color: color?.mode === "fixed" ? color.fixedColor : undefined };
  for (const { matcher, properties } of panel.fieldConfig.overrides ?? []) {
    if (matcher.id !== "byName" || matcher.options !== name) continue;
    for (const { id, value } of properties) options[id] = id === "color" ? value.fixedColor : value;
  }
  return options;
}

/// The text that stands for a range of values, such as "> 1 hour".
function mapped(mappings, value) {
  const inside = ({ from, to }) => (from === null || value >= from) && (to === null || value <= to);
  return mappings?.find(({ type, options }) => type === "range" && inside(options))?.options.result.text;
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
