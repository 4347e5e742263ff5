// The pages, in the order of the navigation: each is a module `<name>.js` with `show(root, rest)`,
// which may return a function that ends it. `rest` is what follows the name in the address.
export const PAGES = [
  { name: "now", title: "Now" },
  { name: "member", title: "Member" },
  { name: "search", title: "Search" },
  { name: "map", title: "Map" },
  { name: "models", title: "Models" },
  { name: "dead-letters", title: "Dead letters" },
];
