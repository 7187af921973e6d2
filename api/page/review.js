/** A person's word on a verdict: right, or wrong and how. It changes no verdict; operators learn from it. */

import { onceOnly, read, sentence } from "./api.js";
import { byId, h, put } from "./dom.js";
import { moment, plain } from "./format.js";

/** @typedef {import("./types.js").Analysis} Analysis */
/** @typedef {import("./types.js").Feedback} Feedback */

/** @type {Record<string, string>} */
const CATEGORIES = {
  confirmation: "The verdict is right",
  false_positive: "False alarm: the clip is real",
  false_negative: "Missed: the clip is manipulated",
  other: "Something else",
};

export class Review {
  /** @param {Analysis} analysis @param {Element} into */
  constructor(analysis, into) {
    this.analysis = analysis;
    this.into = into;
    /** @type {Feedback[]} */
    this.given = [];
    /** The last word and its headers: said again, after a failure or by a double click, it is kept once. */
    this.last = { word: "", headers: onceOnly() };
    this.said = h("p", { role: "status", class: "quiet" });
    this.show();
    this.load();
  }

  get path() {
    return `/v1/analyses/${this.analysis.id}/feedback`;
  }

  async load() {
    try {
      this.given = (await read(this.path)).feedback;
      this.show();
    } catch (error) {
      this.said.textContent = sentence(error);
    }
  }

  show() {
    put(
      this.into,
      h("h2", {}, "Your word"),
      h(
        "div",
        { class: "row" },
        h("button", { type: "button", class: "primary", onclick: () => this.right() }, "Right ", h("kbd", {}, "c")),
        h("button", { type: "button", onclick: () => this.wrong() }, "Wrong ", h("kbd", {}, "w")),
      ),
      this.said,
      h("ul", { class: "given" }, this.given.map(given)),
    );
  }

  /** An inconclusive verdict cannot be right: then a person says what the clip is. */
  right() {
    const { label } = this.analysis.verdict ?? { label: "inconclusive" };
    if (label === "inconclusive") this.wrong();
    else this.save({ label, category: "confirmation", comment: null });
  }

  wrong() {
    const { label } = this.analysis.verdict ?? { label: "inconclusive" };
    const likely = { fake: "false_positive", real: "false_negative", inconclusive: "other" }[label];
    const dialog = /** @type {HTMLDialogElement} */ (byId("review"));
    const comment = h("textarea", { id: "comment", rows: "3", maxlength: "500" });
    const choices = choicesFor(label).map(([value, text]) =>
      h(
        "label",
        { class: "check" },
        h("input", { type: "radio", name: "is", value, checked: value.endsWith(likely) }),
        text,
      )
    );
    const fault = h("p", { class: "fault", role: "alert" });
    const form = h(
      "form",
      {
        onsubmit: async (/** @type {Event} */ event) => {
          event.preventDefault();
          const [is, category] = String(new FormData(form).get("is") ?? "unknown other").split(" ");
          const saved = await this.save({ label: is, category, comment: comment.value.trim() || null });
          if (saved && form.isConnected) dialog.close();
          else put(fault, this.said.textContent);
        },
      },
      h("h2", { id: "review-title" }, label === "inconclusive" ? "What is the clip?" : "What is wrong?"),
      h("fieldset", {}, h("legend", { class: "quiet" }, "As far as you know"), choices),
      h("label", { for: "comment" }, "Comment"),
      comment,
      fault,
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button", { class: "primary" }, "Save"),
      ),
    );
    put(dialog, form);
    dialog.showModal();
    /** @type {HTMLElement | null} */ (form.querySelector("input:checked"))?.focus();
  }

  /** Whether it was kept. @param {{ label: string, category: string, comment: string | null }} said */
  async save(said) {
    this.said.textContent = "Saving…";
    const word = JSON.stringify(said);
    if (word !== this.last.word) this.last = { word, headers: onceOnly() };
    try {
      /** @type {Feedback} */
      const kept = await read(this.path, { method: "POST", json: said, headers: this.last.headers });
      this.given = [...this.given.filter((each) => each.id !== kept.id), kept];
      this.show();
      this.said.textContent = `Saved: ${CATEGORIES[said.category]}.`;
      dispatchEvent(new CustomEvent("reviewed", { detail: { id: this.analysis.id, category: said.category } }));
      return true;
    } catch (error) {
      this.said.textContent = sentence(error);
      return false;
    }
  }
}

/** What a person may say of a verdict, as "LABEL CATEGORY". @param {import("./types.js").Label} label @returns {[string, string][]} */
function choicesFor(label) {
  const real = label === "fake" ? "real false_positive" : "real other";
  const fake = label === "real" ? "fake false_negative" : "fake other";
  /** @type {[string, string][]} */
  const all = [
    [real, "The clip is real"],
    [fake, "The clip is manipulated"],
    ["unknown other", "Something else, or nobody can tell"],
  ];
  return all.filter(([value]) => !value.startsWith(label));
}

/** @param {Feedback} said */
function given({ label, category, comment, created_at }) {
  return h(
    "li",
    {},
    h("strong", {}, category === "other" ? `Said to be ${label}` : CATEGORIES[category] ?? category),
    comment && h("span", {}, `: ${plain(comment)}`),
    h("span", { class: "quiet" }, ` ${moment(created_at)}`),
  );
}
