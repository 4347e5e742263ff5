// Builds elements. Text becomes text nodes and nothing is ever parsed as HTML: titles, queries and
// ids are strangers' text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `h("p.quiet", {title: "…"}, "text", child)`.
 * `tag` may carry classes. Attributes that are null or false are left out, functions named on… listen.
 */
export function h(tag, ...rest) {
  return build(document.createElement(tag.split(".")[0]), tag, rest);
}

/** The same of SVG. */
export function svg(tag, ...rest) {
  return build(document.createElementNS(SVG, tag.split(".")[0]), tag, rest);
}

function build(element, tag, rest) {
  const classes = tag.split(".").slice(1);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  const [first] = rest;
  if (first && Object.getPrototypeOf(first) === Object.prototype) {
    rest.shift();
    for (const [name, value] of Object.entries(first)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...rest.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one)))));
  return element;
}

/** Gives an element these children instead of those that it has. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  return element;
}

/** Sets an element's text, if it is another. */
export function text(element, value) {
  const told = String(value);
  if (element.textContent !== told) element.textContent = told;
}

/** A table: the names of its columns, and rows of cells. Numbers stand to the right. */
export function table(caption, columns, rows, empty = "None.") {
  if (!rows.length) return h("p.quiet", empty);
  const numeric = columns.map((_, at) => rows.every((row) => typeof row[at] === "number" || row[at] === "–" || /^[\d.,\s]+( ?(ms|s|min|h|%|B|KiB|MiB|\/s))?$/.test(row[at] ?? "")));
  const kind = (at) => (numeric[at] ? "number" : null);
  return h("div.scrolls", { tabindex: 0, role: "region", "aria-label": caption },
    h("table", h("caption", caption),
      h("thead", h("tr", columns.map((name, at) => h("th", { scope: "col", class: kind(at) }, name)))),
      h("tbody", rows.map((row) => h("tr", row.map((cell, at) => h("td", { class: kind(at) }, cell)))))));
}
