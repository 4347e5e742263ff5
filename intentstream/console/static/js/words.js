// How members, titles and clusters are told.

import { h, svg } from "./dom.js";

/** A head's name for people. */
export const HEAD = { action: "Next action", genre: "Next genre", kind: "Movie or show", release_age: "How old a title" };

const LABEL = { "month": "under a month", "quarter": "under 3 months", "year": "under a year", "3-years": "1 to 3 years", "10-years": "3 to 10 years", "20-years": "10 to 20 years", "older": "over 20 years" };

/** A label for people. */
export function label(head, name) {
  return (head === "release_age" && LABEL[name]) || String(name).replaceAll("_", " ");
}

/** What was done, for people. */
export const ACTION = { discover: "first play", continue: "went on", rewatch: "watched again", trailer: "trailer", open: "looked at", search: "search", list: "put on the list" };

const PATHS = {
  discover: "M5 3.2v9.6L13 8z",
  continue: "M3 3.2v9.6L10 8zM11.2 3.4h1.8v9.2h-1.8z",
  rewatch: "M8 3a5 5 0 1 0 4.9 6h-1.7A3.4 3.4 0 1 1 8 4.6c.9 0 1.7.4 2.3.9L8.6 7.2H13V2.8l-1.5 1.5A5 5 0 0 0 8 3z",
  trailer: "M2.5 4h11v8h-11zM4 5.3v1.4h1.4V5.3zM4 9.3v1.4h1.4V9.3zM10.6 5.3v1.4H12V5.3zM10.6 9.3v1.4H12V9.3z",
  open: "M8 4C4.8 4 2.5 6.4 1.6 8c.9 1.6 3.2 4 6.4 4s5.5-2.4 6.4-4C13.5 6.4 11.2 4 8 4zm0 6.5A2.5 2.5 0 1 1 8 5.5a2.5 2.5 0 0 1 0 5z",
  search: "M7 2.5a4.5 4.5 0 1 0 2.7 8.1l2.9 2.9 1-1-2.9-2.9A4.5 4.5 0 0 0 7 2.5zm0 1.5a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
  list: "M7.2 2.8h1.6v4.4h4.4v1.6H8.8v4.4H7.2V8.8H2.8V7.2h4.4z",
};

/** The sign of an action, for the eye alone. */
export function sign(action) {
  return svg("svg.sign", { viewBox: "0 0 16 16", "aria-hidden": "true", "data-action": action }, svg("path", { d: PATHS[action] ?? PATHS.open, "fill-rule": "evenodd" }));
}

/** What one knows of a title beside its name. */
export function facts(title) {
  return [title.year, title.kind, ...title.genres.slice(0, 3)].filter(Boolean).join(" · ");
}

/** How long ago, in one unit. */
export function ago(ms) {
  const s = Math.max(0, ms / 1000);
  if (s < 1.5) return "now";
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  if (s < 129600) return `${Math.round(s / 3600)} h ago`;
  if (s < 86400 * 700) return `${Math.round(s / 86400)} days ago`;
  return `${Math.round(s / 86400 / 365.25)} years ago`;
}

/** The hue of a cluster: those next to each other are told apart. */
export function hue(number) {
  return Math.round((30 + number * 137.508) % 360);
}

/** A cluster's mark. */
export function dot(number) {
  const mark = h("span.dot", { "aria-hidden": "true" });
  if (number >= 0) mark.style.setProperty("--hue", hue(number));
  else mark.classList.add("none");
  return mark;
}

/** The address of a member's page. */
export function memberHref(profile) {
  return `#/member/${encodeURIComponent(profile)}`;
}
