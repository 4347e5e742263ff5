// Numbers, durations and times as people read them.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A count, or a figure of three digits where it is small. `null` is a dash. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 100 || Number.isInteger(value) ? number.format(value) : fine.format(value);
}

/** Events a second and the like; 0 where there are hardly any. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 0.05 ? "<0.1" : value < 10 ? value.toFixed(1).replace(/\.0$/, "") : count(value);
}

/** Seconds, in the unit that fits. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 s";
  if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.0095 ? 1 : 0)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 129600) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} days`;
}

/** A share of 1. */
export function percent(value, digits = 0) {
  return value === null || value === undefined ? "–" : `${(value * 100).toFixed(digits)} %`;
}

/** A moment, of milliseconds since the epoch, in the reader's own time. */
export function moment(ms) {
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" }).format(new Date(ms));
}
