"use strict";
// The report's four charts, and the colours of the table's keys.

const report = JSON.parse(document.getElementById("data").textContent);
const { stages, nines, events } = report;
const columns = Array.from({ length: report.time.number }, (_, nth) => nth * report.time.width);
const width = report.time.width;
const seconds = width >= 60 ? width / 60 + " min" : width + " s";

function curves() {
  const lines = stages.map((stage) => nines.map((_, nth) => stage.curve[nth] ?? null));
  const values = lines.flat().filter((value) => value != null);
  const series = stages.map((stage) => ({
    label: stage.name,
    stroke: colour(stage),
    width: stage.name === "e2e" ? 3 : 2,
    points: { show: false },
    value: (_, value) => time(value),
  }));
  const promise = (plot) => {
    if (!report.promise) return;
    const y = plot.valToPos(report.promise, "y", true);
    const { left, top, width, height } = plot.bbox;
    if (y < top || y > top + height) return;
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = css("--bad");
    ctx.setLineDash([6 * devicePixelRatio, 5 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(left + width, y);
    ctx.stroke();
    ctx.font = 12 * devicePixelRatio + "px system-ui, sans-serif";
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.fillText("promise: " + report.promised, left + 8 * devicePixelRatio, y - 6 * devicePixelRatio);
    ctx.restore();
  };
  chart(
    "curves",
    {
      height: 340,
      scales: { x: { time: false }, y: logScale(Math.min(...values), Math.max(...values)) },
      axes: [
        axis((plot, marks) => marks.map((mark) => percent(mark).replace(" %", plot.width < 480 ? "" : " %")), {
          size: 34,
          splits: () => nines.filter(Number.isInteger),
        }),
        axis((_, marks) => marks.map((mark) => short(mark)), { size: 64, splits: () => decades(Math.min(...values), Math.max(...values)) }),
      ],
      series: [{ label: "percentile", value: (_, value) => (value == null ? "–" : percent(value)) }, ...series],
      hooks: { draw: [promise] },
    },
    [nines, ...lines],
    (nth) => percent(nines[nth]) + ": " + stages.map((stage) => stage.name + " " + time(stage.curve[nth])).join(", "),
  );
}

function heat() {
  const place = document.getElementById("heat");
  document.getElementById("heat-hint").textContent =
    `${report.headline}: each column is ${seconds}, each cell the number of events with this latency, ` +
    `the ${dark.matches ? "brighter" : "darker"} the more. An event is counted when it is done.`;
  const cells = report.cells;
  const most = Math.max(...cells.map((cell) => cell[2]));
  const bands = report.bands;
  const low = bands[Math.min(...cells.map((cell) => cell[1]))];
  const high = bands[bands.length - 1];
  const steps = ["--cold", "--hot"].map((name) => css(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  const shade = (count) => {
    const share = Math.log1p(count) / Math.log1p(most);
    return "rgb(" + steps[0].map((from, nth) => Math.round(from + (steps[1][nth] - from) * share)).join(" ") + ")";
  };
  const paint = (plot) => {
    const { ctx } = plot;
    ctx.save();
    for (const [column, band, count] of cells) {
      const left = plot.valToPos(columns[column], "x", true);
      const right = plot.valToPos(columns[column] + width, "x", true);
      const top = plot.valToPos(bands[band + 1], "y", true);
      const bottom = plot.valToPos(bands[band], "y", true);
      ctx.fillStyle = shade(count);
      ctx.fillRect(Math.round(left), Math.round(top), Math.max(1, Math.round(right) - Math.round(left)), Math.round(bottom) - Math.round(top));
    }
    ctx.restore();
  };
  const readout = document.createElement("div");
  readout.className = "readout";
  const marks = ticks(low, high);
  const describe = (nth) => {
    const column = cells.filter((cell) => cell[0] === nth);
    const all = column.reduce((sum, cell) => sum + cell[2], 0);
    if (!all) return clock(columns[nth]) + ": no events";
    const from = bands[column[0][1]];
    const to = bands[column[column.length - 1][1] + 1];
    return `${clock(columns[nth])}: ${grouped(all)} events, from ${time(from)} to ${time(to)}`;
  };
  const hover = (plot) => {
    const { left, top } = plot.cursor;
    if (left == null || left < 0) return void (readout.textContent = "");
    const column = Math.min(columns.length - 1, Math.max(0, Math.floor(plot.posToVal(left, "x") / width)));
    const latency = plot.posToVal(top, "y");
    const cell = cells.find((cell) => cell[0] === column && bands[cell[1]] <= latency && latency < bands[cell[1] + 1]);
    readout.textContent = cell
      ? `${clock(columns[column])}: ${grouped(cell[2])} events from ${time(bands[cell[1]])} to ${time(bands[cell[1] + 1])}`
      : describe(column);
  };
  chart(
    "heat",
    {
      height: 300,
      legend: { show: false },
      cursor: { y: true, drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, range: [0, columns.length * width] }, y: { distr: 3, log: 10, range: [low, high] } },
      axes: [timeAxis(), axis((_, marks) => marks.map((mark) => short(mark)), { size: 64, splits: () => marks })],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { drawClear: [], draw: [paint], setCursor: [hover] },
    },
    [columns, columns.map(() => low)],
    describe,
  );
  place.append(readout);
}

function rate() {
  document.getElementById("rate-hint").textContent = `Events of ${report.headline} a second, in columns of ${seconds}.`;
  const rates = events.map((count) => count / width);
  chart(
    "rate",
    {
      scales: { x: { time: false, range: [0, columns.length * width] }, y: { range: (_, low, high) => [0, high * 1.08 || 1] } },
      axes: [timeAxis(), axis((_, marks) => marks.map(grouped), { size: 64 })],
      series: [
        { label: "at", value: (_, value) => (value == null ? "–" : clock(value)) },
        {
          label: "events/s",
          stroke: css("--accent"),
          fill: css("--accent") + "2b",
          width: 1.5,
          paths: uPlot.paths.stepped({ align: 1 }),
          points: { show: false },
          value: (_, value) => grouped(value),
        },
      ],
    },
    [columns, rates],
    (nth) => `${clock(columns[nth])}: ${grouped(rates[nth])} events a second`,
  );
}

function stack() {
  const parts = stages.filter((stage) => stage.name !== "e2e");
  let below = columns.map(() => 0);
  const tops = parts.map((stage) => (below = below.map((sum, nth) => (stage.means[nth] == null ? sum : sum + stage.means[nth]))));
  const empty = columns.map((_, nth) => parts.every((stage) => stage.means[nth] == null));
  const shown = tops.map((top) => top.map((value, nth) => (empty[nth] ? null : value)));
  const order = parts.map((_, nth) => parts.length - 1 - nth);
  // Columns, not lines: at a low rate a column with events stands between empty ones.
  const bars = uPlot.paths.bars({ size: [1, Infinity], align: 1 });
  chart(
    "stack",
    {
      scales: { x: { time: false, range: [0, columns.length * width] }, y: { range: (_, low, high) => [0, high * 1.08 || 1] } },
      axes: [timeAxis(), axis((_, marks) => marks.map((mark) => (mark ? short(mark) : "0")), { size: 64 })],
      series: [
        { label: "at", value: (_, value) => (value == null ? "–" : clock(value)) },
        ...order.map((nth) => ({
          label: parts[nth].name,
          stroke: colour(parts[nth]),
          fill: colour(parts[nth]),
          width: 0,
          paths: bars,
          points: { show: false },
          value: (_, __, ___, at) => time(at == null ? null : parts[nth].means[at]),
        })),
      ],
    },
    // The highest first, so that each is painted over by those below it.
    [columns, ...order.map((nth) => shown[nth])],
    (at) => clock(columns[at]) + ": " + parts.map((stage) => stage.name + " " + time(stage.means[at])).join(", "),
  );
}

function draw() {
  for (const place of document.querySelectorAll(".chart")) place.replaceChildren();
  for (const key of document.querySelectorAll(".key")) key.style.background = colour(stages[key.dataset.nth]);
  [curves, heat, rate, stack].forEach((one) => one());
  document.body.dataset.drawn = document.querySelectorAll(".chart canvas").length;
}

draw();
dark.addEventListener("change", draw);
