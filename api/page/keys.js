/** One-key commands: the moderator's hands stay on the keyboard. They can be switched off in the settings. */

import { byId, h, put } from "./dom.js";
import { settings } from "./settings.js";

/** @typedef {{ key: string, does: string, run: () => void, repeats?: boolean }} Command does it again while the key is held */

/** @type {Command[]} */
const commands = [];

/** @param {...Command} more */
export function bind(...more) {
  commands.push(...more);
}

const TYPING = "input, select, textarea, [contenteditable]";

export function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    const busy = event.target instanceof Element && event.target.closest(TYPING);
    if (busy || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!settings.keys || document.querySelector("dialog[open]")) return;
    const command = commands.find((each) => each.key === event.key);
    if (!command || (event.repeat && !command.repeats)) return;
    event.preventDefault();
    command.run();
  });
}

/** The list of commands. */
export function openHelp() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("help"));
  const rows = commands.map(({ key, does }) =>
    h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key === " " ? "space" : key)), h("td", {}, does))
  );
  put(
    dialog,
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "help-title" }, "Keys"),
      h("table", { class: "keys" }, h("tbody", {}, rows)),
      h("p", { class: "quiet" }, "On the timeline the arrow keys, Page up, Page down, Home and End move in the clip."),
      h("div", { class: "row end" }, h("button", { class: "primary" }, "Close")),
    ),
  );
  dialog.showModal();
}
