// Lines over the last hour, drawn by uPlot in the colours of the page.

/* global uPlot */
import { h } from "./dom.js";

const HEIGHT = 170;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A chart: `series` has {name, key, colour}, `format` tells a value; `set(points)` draws points of {at_ms, …}. */
export function lines(title, series, format) {
  const place = h("div.plot", { role: "img" });
  const key = h("p.key", series.map((one) => {
    const mark = h("span.mark");
    mark.style.background = `var(${one.colour})`;
    return [mark, `${one.name} `];
  }));
  const element = h("section.card", h("div.head", h("h2", title), key), place);
  let plot = null;
  let data = [[], ...series.map(() => [])];

  function axis(more) {
    return { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", ...more };
  }

  function draw() {
    plot?.destroy();
    plot = null;
    const width = place.clientWidth;
    if (!width) return;
    plot = new uPlot({
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [axis({ space: 80, size: 30, values: (_, splits) => splits.map((at) => new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) }),
        axis({ size: 58, values: (_, splits) => splits.map(format) })],
      series: [{}, ...series.map((one) => ({
        stroke: colour(one.colour), width: 1.75, points: { show: false }, spanGaps: false,
        fill: series.length === 1 ? `${colour(one.colour)}1f` : undefined,
      }))],
    }, data, place);
  }

  function set(points) {
    data = [points.map((one) => one.at_ms / 1000), ...series.map((one) => points.map((each) => each[one.key] ?? null))];
    const last = points.at(-1);
    place.setAttribute("aria-label", `${title}, the last hour. Now: ${series.map((one) => `${one.name} ${format(last?.[one.key] ?? null)}`).join(", ")}.`);
    if (plot) plot.setData(data);
    else draw();
  }

  const watch = new ResizeObserver(() => {
    if (!plot) draw();
    else if (plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  });
  watch.observe(place);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  addEventListener("scheme", draw);
  dark.addEventListener("change", draw);
  return {
    element,
    set,
    end() {
      watch.disconnect();
      removeEventListener("scheme", draw);
      dark.removeEventListener("change", draw);
      plot?.destroy();
    },
  };
}
