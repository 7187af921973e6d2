/** What the person at the desk prefers, kept on this machine: theme, blur, sound, one-key commands. */

import { byId, h, put } from "./dom.js";

/** @typedef {{ theme: "auto" | "light" | "dark", blur: boolean, mute: boolean, keys: boolean }} Settings */

const NAME = "clipwarden-settings";

/** Nobody is shown or played what may be disturbing without asking for it. @type {Settings} */
const DEFAULTS = { theme: "auto", blur: true, mute: true, keys: true };

/** @type {Settings} */
export const settings = { ...DEFAULTS, ...kept() };

/** @type {Set<() => void>} */
const listeners = new Set();

/** @returns {Partial<Settings>} */
function kept() {
  try {
    return JSON.parse(localStorage.getItem(NAME) ?? "{}");
  } catch {
    return {};
  }
}

/** Be told of every change, and at once. @param {() => void} listener @param {AbortSignal} [signal] until then */
export function onSettings(listener, signal) {
  listeners.add(listener);
  signal?.addEventListener("abort", () => listeners.delete(listener));
  listener();
}

/** @template {keyof Settings} K @param {K} name @param {Settings[K]} value */
export function set(name, value) {
  settings[name] = value;
  try {
    localStorage.setItem(NAME, JSON.stringify(settings));
  } catch {
    // then it lasts as long as the page
  }
  for (const listener of listeners) listener();
}

/** Apply what the style sheets need to know, now and whenever it changes. */
export function applySettings() {
  onSettings(() => {
    document.documentElement.dataset.theme = settings.theme;
    document.documentElement.dataset.blur = settings.blur ? "on" : "off";
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set("theme", settings.theme));
}

/** The dialog to change them in. */
export function openSettings() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("settings"));
  put(
    dialog,
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "settings-title" }, "Settings"),
      theme(),
      check("blur", "Blur the clip and its pictures"),
      check("mute", "Mute the clip"),
      check("keys", "One-key commands (press ? for the list)"),
      h("p", { class: "quiet" }, "Kept in this browser."),
      h("div", { class: "row end" }, h("button", { class: "primary" }, "Done")),
    ),
  );
  dialog.showModal();
}

function theme() {
  const names = { auto: "As the system", light: "Light", dark: "Dark" };
  const options = Object.entries(names).map(([value, name]) =>
    h("option", { value, selected: settings.theme === value }, name)
  );
  const choose = (/** @type {Event} */ event) => {
    const field = /** @type {HTMLSelectElement} */ (event.currentTarget);
    set("theme", /** @type {Settings["theme"]} */ (field.value));
  };
  return h("label", { class: "field" }, "Theme", h("select", { id: "theme", onchange: choose }, options));
}

/** @param {"blur" | "mute" | "keys"} name @param {string} label */
function check(name, label) {
  const turn = (/** @type {Event} */ event) => set(name, /** @type {HTMLInputElement} */ (event.currentTarget).checked);
  return h(
    "label",
    { class: "check" },
    h("input", { type: "checkbox", name, checked: settings[name], onchange: turn }),
    label,
  );
}
