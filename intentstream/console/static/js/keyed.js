// Lists that keep their elements: what stays moves to its new place, what is new comes in.

const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Makes the children of `parent` those of `items`, in their order.
 * `key(item)` tells which is which, `make(item)` builds an element, `update(element, item, place)`
 * brings it up to date. Elements are moved in the document too, so that they are read in that order.
 */
export function keyed(parent, items, { key, make, update }) {
  const known = parent.known ?? new Map();
  const animated = !still.matches && known.size && parent.offsetParent;
  const before = new Map();
  if (animated) for (const element of known.values()) before.set(element, [element.offsetLeft, element.offsetTop]);
  const now = new Map();
  items.forEach((item, place) => {
    const name = String(key(item));
    const element = known.get(name) ?? make(item);
    now.set(name, element);
    update?.(element, item, place);
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
  });
  for (const [name, element] of known) if (!now.has(name)) element.remove();
  while (parent.children.length > now.size) parent.lastElementChild.remove();
  parent.known = now;
  if (!animated) return;
  for (const element of now.values()) {
    const was = before.get(element);
    const options = { duration: 520, easing: "cubic-bezier(0.2, 0.8, 0.2, 1)" };
    if (was === undefined) element.animate([{ opacity: 0, transform: "translateY(-8px)" }, { opacity: 1, transform: "none" }], options);
    else {
      const [x, y] = [was[0] - element.offsetLeft, was[1] - element.offsetTop];
      if (x || y) element.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], options);
    }
  }
}
