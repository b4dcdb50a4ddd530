// The report's other charts, and the colours of the table's keys.

const { events } = report;
const columns = Array.from({ length: report.time.number }, (_, nth) => nth * report.time.width);
const width = report.time.width;
const seconds = width >= 60 ? width / 60 + " min" : width + " s";

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
  place.append(readout, scale(shade, most));
}

// The meaning of the shades, from one event to the most of a cell.
function scale(shade, most) {
  const legend = document.createElement("div");
  legend.className = "scale";
  const counts = [0, 1, 2, 3, 4].map((step) => Math.max(1, Math.round(Math.expm1((step / 4) * Math.log1p(most)))));
  legend.append("events in a cell:");
  for (const count of new Set(counts)) {
    const swatch = document.createElement("i");
    swatch.style.background = shade(count);
    const entry = document.createElement("span");
    entry.append(swatch, grouped(count));
    legend.append(entry);
  }
  return legend;
}

function rate() {
  document.getElementById("rate-hint").textContent = `Events a second, in columns of ${seconds}.`;
  const rates = events.map((count) => count / width);
  chart(
    "rate",
    {
      scales: { x: { time: false, range: [0, columns.length * width] }, y: { range: (_, low, high) => [0, high * 1.08 || 1] } },
      axes: [timeAxis(), axis((_, marks) => marks.map(grouped), { size: 64 })],
      series: [
        { label: "at", value: (_, value) => (value == null ? "mean" : clock(value)) },
        {
          label: "events/s",
          stroke: css("--accent"),
          fill: css("--accent") + "2b",
          width: 1.5,
          paths: uPlot.paths.stepped({ align: 1 }),
          points: { show: false },
          // Without a cursor, the rate of the run as the head of the page has it.
          value: (_, value) => (value == null ? report.rate : grouped(value)),
        },
      ],
    },
    [columns, rates],
    (nth) => `${clock(columns[nth])}: ${grouped(rates[nth])} events a second`,
  );
}

function stack() {
  const parts = report.stack;
  const beside = report.beside;
  const whole = columns.map((_, nth) => (parts[0].means[nth] == null ? null : parts.reduce((sum, part) => sum + part.means[nth], 0)));
  document.getElementById("stack-hint").textContent =
    (parts.length > 1 ? "Means, one upon the other: their sum is the mean of the whole way, " + time(parts.reduce((sum, part) => sum + part.mean, 0)) + "." : "Mean of " + parts[0].name + ".") +
    (beside ? " The line is commit, which comes after." : "");
  let below = columns.map(() => 0);
  const tops = parts.map((part) => (below = below.map((sum, nth) => sum + (part.means[nth] ?? 0))));
  const shown = tops.map((top) => top.map((value, nth) => (whole[nth] == null ? null : value)));
  const order = parts.map((_, nth) => parts.length - 1 - nth);
  // Columns, not lines: at a low rate a column with events stands between empty ones.
  const bars = uPlot.paths.bars({ size: [1, Infinity], align: 1 });
  const line = uPlot.paths.stepped({ align: 1 });
  const series = (part, more) => ({
    label: part.name,
    stroke: colour(part),
    points: { show: false },
    // Without a cursor, the mean of the run.
    value: (_, __, ___, at) => time(at == null ? part.mean : part.means[at]),
    ...more,
  });
  chart(
    "stack",
    {
      scales: { x: { time: false, range: [0, columns.length * width] }, y: { range: (_, low, high) => [0, high * 1.08 || 1] } },
      axes: [timeAxis(), axis((_, marks) => marks.map((mark) => (mark ? short(mark) : "0")), { size: 64 })],
      series: [
        { label: "at", value: (_, value) => (value == null ? "mean" : clock(value)) },
        ...order.map((nth) => series(parts[nth], { fill: colour(parts[nth]), width: 0, paths: bars })),
        ...(beside ? [series(beside, { width: 2, dash: [4, 3], paths: line })] : []),
      ],
    },
    // The highest first, so that each is painted over by those below it.
    [columns, ...order.map((nth) => shown[nth]), ...(beside ? [beside.means] : [])],
    (at) => clock(columns[at]) + ": " + parts.concat(beside ?? []).map((part) => part.name + " " + time(part.means[at])).join(", "),
  );
}

const draw = () => drawAll([curves, heat, rate, stack]);

draw();
dark.addEventListener("change", draw);
