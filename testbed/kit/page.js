"use strict";

const COLOURS = [
  "#7eb26d", "#e0a526", "#2f8fc4", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0",
  "#508642", "#a16a00", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477",
];

function draw(board, panel, section) {
  const plot = section.querySelector(".plot");
  const legend = section.querySelector(".legend");
  const last = board.times.length - 1;
  const series = panel.series.map((one, n) => {
    const colour = COLOURS[n % COLOURS.length];
    return {
      label: one.name,
      stroke: colour,
      width: 1.5,
      fill: panel.stacked ? `${colour}4d` : undefined,
      // Only of what no line leads to.
      points: { size: 4, space: 60 },
      // Of the time that is pointed at, else of the last.
      value: (_, __, ___, at) => inUnit(one.values[at ?? last], panel.unit),
    };
  });
  const axis = { stroke: "#555", grid: { stroke: "#eceef0", width: 1 }, ticks: { show: false } };
  const chart = new uPlot(
    {
      width: 100,
      height: 100,
      cursor: { sync: { key: board.name } },
      scales: { y: { range: (_, __, top) => [0, panel.most ?? (top > 0 ? 1.08 * top : 1)] } },
      axes: [
        { ...axis, size: 32, space: 70, values: (_, ticks) => ticks.map(clock) },
        { ...axis, size: 68, values: (_, ticks) => ticks.map((at) => inUnit(at, panel.unit)) },
      ],
      series: [{}, ...series],
      // Each is filled down to the one below it.
      bands: panel.stacked ? series.slice(1).map((_, n) => ({ series: [n + 2, n + 1] })) : [],
      legend: { mount: (_, element) => legend.append(element) },
    },
    [board.times, ...panel.series.map((one) => one.tops ?? one.values)],
    plot,
  );
  const fit = () => chart.setSize({ width: plot.clientWidth, height: plot.clientHeight });
  fit();
  window.addEventListener("resize", fit);
}

const board = JSON.parse(document.getElementById("board").textContent);
for (const place of document.querySelectorAll("[data-value]")) {
  place.textContent = inUnit(JSON.parse(place.dataset.value), place.dataset.unit);
}
board.panels.forEach((panel, number) => {
  if (panel.form === "chart" && panel.series.length) {
    draw(board, panel, document.getElementById(`panel-${number}`));
  }
});
// For whoever takes a picture: uPlot draws before the next frame.
requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.drawn = "yes"; }));
