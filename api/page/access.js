/** The API key: asked for when the gateway wants one, and kept for this tab only. */

import { byId, h, put } from "./dom.js";

const NAME = "clipwarden-key";

/** @returns {string | null} */
export const key = () => sessionStorage.getItem(NAME);

export function forget() {
  sessionStorage.removeItem(NAME);
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
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { class: "sheet", "aria-labelledby": "key-title", onclose: () => done() },
      h(
        "form",
        { method: "dialog", onsubmit: () => keep(field.value.trim()) },
        h("h2", { id: "key-title" }, "API key"),
        h("p", { id: "key-why" }, why),
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

/** @param {string} secret */
function keep(secret) {
  if (secret) sessionStorage.setItem(NAME, secret);
  shown();
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
