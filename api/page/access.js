/** The API key: asked for when the gateway wants one, and kept for this tab only. */

import { byId, h, put } from "./dom.js";

const NAME = "clipwarden-key";

/** What a header can hold. */
const SENDABLE = /^[!-~]+$/;

/** @type {string | null} */
let held = kept();

/** @returns {string | null} */
function kept() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null;
  }
}

/** @returns {string | null} */
export const key = () => held;

export const forget = () => hold(null);

/** @param {string | null} secret */
function hold(secret) {
  held = secret;
  try {
    if (secret === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, secret);
  } catch {
    // then it lasts as long as the page
  }
  shown();
}

/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * Ask for a key, once however many requests want it. Resolves to whether there is one now.
 *
 * @param {string} why
 */
export function askForKey(why) {
  asking ??= ask(why).finally(() => {
    asking = null;
  });
  return asking;
}

/** @param {string} why @returns {Promise<boolean>} */
function ask(why) {
  const field = h("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "key-why",
  });
  const said = h("p", { id: "key-why" }, why);
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { class: "sheet", "aria-labelledby": "key-title", onclose: () => done() },
      h(
        "form",
        { method: "dialog", onsubmit: (/** @type {Event} */ event) => keep(field.value.trim(), said, event) },
        h("h2", { id: "key-title" }, "API key"),
        said,
        h("label", { for: "key" }, "Key"),
        field,
        h("p", { class: "quiet" }, "It is kept in this tab until you close it, and sent to this gateway only."),
        h(
          "div",
          { class: "row end" },
          h("button", { type: "button", onclick: () => dialog.close() }, "Not now"),
          h("button", { class: "primary" }, "Use this key"),
        ),
      ),
    );
    const done = () => {
      dialog.remove();
      resolve(key() !== null);
    };
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** @param {string} secret @param {Element} said @param {Event} event the dialog closes unless it is stopped */
function keep(secret, said, event) {
  if (SENDABLE.test(secret)) return hold(secret);
  event.preventDefault();
  put(said, "That is no API key: it has spaces or letters that no key has. Copy the key once more.");
}

/** Say in the head of the page that a key is in use, and let it be forgotten. */
export function shown() {
  const forgetting = () => {
    forget();
    location.reload();
  };
  put(
    byId("access"),
    key() && h("button", { type: "button", class: "plain", onclick: forgetting }, "Forget the key"),
  );
}
