// The percentile curves: of the stages of one run, or of two runs in one chart.

const report = JSON.parse(document.getElementById("data").textContent);
const { stages, nines } = report;

function drawPromise(plot) {
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
}

function curves() {
  const lines = stages.map((stage) => nines.map((_, nth) => stage.curve[nth] ?? null));
  const values = lines.flat().filter((value) => value != null);
  if (!values.length) return;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const series = stages.map((stage) => ({
    label: stage.name,
    stroke: colour(stage),
    width: stage.strong ? 3 : 2,
    dash: stage.dashed ? [8, 5] : undefined,
    show: stage.shown ?? true,
    points: { show: false },
    value: (_, value) => (value == null ? "" : time(value)),
  }));
  const marks = report.linear ? {} : { splits: () => decades(low, high) };
  chart(
    "curves",
    {
      height: 340,
      scales: { x: { time: false }, y: report.linear ? { range: [0, high * 1.05] } : logScale(low, high) },
      axes: [
        axis((plot, marks) => marks.map((mark) => percent(mark).replace(" %", plot.width < 480 ? "" : " %")), {
          size: 34,
          splits: () => nines.filter(Number.isInteger),
        }),
        axis((_, marks) => marks.map((mark) => (mark ? short(mark) : "0")), { size: 64, ...marks }),
      ],
      series: [{ label: "percentile", value: (_, value) => (value == null ? "" : percent(value)) }, ...series],
      hooks: { draw: [drawPromise] },
    },
    [nines, ...lines],
    (nth) => percent(nines[nth]) + ": " + stages.map((stage) => stage.name + " " + time(stage.curve[nth])).join(", "),
  );
}

function drawAll(charts) {
  for (const place of document.querySelectorAll(".chart")) place.replaceChildren();
  for (const key of document.querySelectorAll(".key")) key.style.background = colour(key.dataset);
  charts.forEach((one) => one());
  document.body.dataset.drawn = document.querySelectorAll(".chart canvas").length;
}
