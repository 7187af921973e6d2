/** Elements made from values. A string is always text: there is no way from here to markup. */

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, unknown>} Props */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element. `on…` are listeners, `vars` are CSS variables (the policy of the page forbids style attributes),
 * anything false or null is left out.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Props} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * An SVG element.
 *
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Props} [props]
 * @param {...(Child | Child[])} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function s(tag, props = {}, ...children) {
  return fill(/** @type {SVGElementTagNameMap[K]} */ (document.createElementNS(SVG, tag)), props, children);
}

/**
 * @template {HTMLElement | SVGElement} E
 * @param {E} element
 * @param {Props} props
 * @param {(Child | Child[])[]} children
 * @returns {E}
 */
function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "vars") {
      for (const [variable, v] of Object.entries(/** @type {object} */ (value))) {
        element.style.setProperty(variable, String(v));
      }
    } else if (typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

/** @param {(Child | Child[])[]} children @returns {(Node | string)[]} */
function present(children) {
  return children.flat().filter((c) => c !== null && c !== undefined && c !== false).map((c) =>
    c instanceof Node ? c : String(c)
  );
}

/** Put children in the place of whatever an element holds. @param {Element} element @param {...(Child | Child[])} children */
export function put(element, ...children) {
  element.replaceChildren(...present(children));
}

/** An element of the page's own HTML. @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** Rows of name and value; values that are not known are left out. @param {[string, Child][]} rows */
export function facts(rows) {
  return h(
    "dl",
    { class: "facts" },
    rows.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [
      h("dt", {}, name),
      h("dd", {}, value),
    ]),
  );
}

const SHAPES = {
  fake: "M8 1.2 15.4 14.4H.6zM7.2 5.6h1.6v4.3H7.2zm0 5.4h1.6v1.6H7.2z",
  real: "M8 .8a7.2 7.2 0 1 1 0 14.4A7.2 7.2 0 0 1 8 .8zm3.6 4.3L6.9 9.9 4.5 7.6 3.4 8.8l3.5 3.4 5.9-6z",
  inconclusive:
    "M1 1h14v14H1zM5.4 5.9h1.7c0-.7.4-1 1-1s1 .3 1 .9c0 1-1.9 1-1.9 3.2h1.7c0-1.5 2-1.5 2-3.4C10.9 4.200 9.700 3.300 8.100 3.300S5.400 4.200 5.400 5.900zM7.100 10.300h1.800v1.800H7.100z",
  ok: "M6.2 12.4 1.800 8l1.300-1.300 3.100 3.100 6.700-6.700L14.200 4.400z",
  skipped: "M2 7.1h12v1.800H2z",
  failed:
    "M3.300 2 8 6.700 12.700 2 14 3.300 9.300 8l4.700 4.700-1.300 1.300L8 9.300 3.300 14 2 12.700 6.700 8 2 3.300z",
  open:
    "M8 1.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13zm0 1.600a4.900 4.900 0 1 0 0 9.800 4.900 4.900 0 0 0 0-9.800z",
  leased: "M8 1.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13zm0 1.600v9.800a4.900 4.900 0 0 0 0-9.800z",
  play: "M4 2v12l10-6z",
  pause: "M3.500 2h3v12h-3zm6 0h3v12h-3z",
};

/** A shape that says what a colour says too. @param {keyof typeof SHAPES} name */
export function icon(name) {
  return s(
    "svg",
    { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    s("path", { d: SHAPES[name], "fill-rule": "evenodd" }),
  );
}
