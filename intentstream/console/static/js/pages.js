// The pages, in the order of the navigation: each is a module `<name>.js` with `show(root, rest)`,
// which may return a function that ends it. `rest` is what follows the name in the address.
export const PAGES = [
  { name: "models", title: "Models" },
];
