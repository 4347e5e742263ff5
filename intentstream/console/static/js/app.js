import { fill, h } from "./dom.js";
import { PAGES } from "./pages.js";

const root = document.getElementById("page");
const list = document.getElementById("pages");
let leave = null;
let turn = 0;

/** `#/dead-letters/a/b` as the page and what follows its name. */
function place() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  return { page: PAGES.find((one) => one.name === name) ?? PAGES[0], rest };
}

async function go() {
  const mine = ++turn;
  const { page, rest } = place();
  leave?.();
  leave = null;
  document.title = `${page.title} · intentstream`;
  for (const link of list.querySelectorAll("a")) {
    if (link.dataset.page === page.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  fill(root, h("h1", { tabindex: -1 }, page.title));
  if (turn > 1) root.querySelector("h1").focus({ preventScroll: true });
  scrollTo(0, 0);
  try {
    const module = await import(`./${page.name}.js`);
    const ends = mine === turn ? await module.show(root, rest) : null;
    if (mine === turn) leave = ends ?? null;
    else ends?.();
  } catch (error) {
    if (mine === turn) root.append(h("p.problem", { role: "alert" }, error.message));
  }
}

fill(list, PAGES.map((page) => h("li", h("a", { href: `#/${page.name}`, "data-page": page.name }, page.title))));
addEventListener("hashchange", go);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();  // the address names the page
  root.focus();
});

// Letters that lead to pages, as in a mail program: g, then the page's first letter.
let pending = false;
addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (pending) {
    const page = PAGES.find((one) => one.title[0].toLowerCase() === event.key.toLowerCase());
    if (page) location.hash = `#/${page.name}`;
    pending = false;
  } else pending = event.key === "g";
});

const SCHEMES = ["auto", "light", "dark"];
const toggle = document.getElementById("scheme");
function scheme(chosen) {
  document.documentElement.dataset.scheme = chosen;
  toggle.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[chosen];
  toggle.setAttribute("aria-label", `Colours: ${chosen}. Change them.`);
  dispatchEvent(new Event("scheme"));
}
toggle.addEventListener("click", () => {
  const next = SCHEMES[(SCHEMES.indexOf(document.documentElement.dataset.scheme) + 1) % SCHEMES.length];
  localStorage.setItem("scheme", next);
  scheme(next);
});
scheme(SCHEMES.includes(localStorage.getItem("scheme")) ? localStorage.getItem("scheme") : "auto");
go();
