// Elements from code. Text goes in as text nodes only, so that nothing from a tenant, a receiver or an
// event is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("a", { href: "/", class: "x", onclick: f }, "text", child)`. */
export function h(name, props, ...children) {
  return fill(document.createElement(name), props, children);
}

/** The same in SVG. */
export function svg(name, props, ...children) {
  return fill(document.createElementNS(SVG, name), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else if (name === "checked") element.checked = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

/** Appends nodes and texts; nothing for what is null or false. */
export function append(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Puts this in place of what an element has. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

let ids = 0;

/** An id that the page does not have yet. */
export function newId(stem) {
  ids += 1;
  return `${stem}-${ids}`;
}

/** What only a screen reader says. */
export function spoken(...children) {
  return h("span", { class: "spoken" }, children);
}
