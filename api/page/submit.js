/** Sending clips: dropped, picked or named by address; each with its progress, and why it was refused. */

import { credentials, NO_ANSWER, onceOnly, Problem, problem, read, readAtLast, renewed, sentence } from "./api.js";
import { key } from "./access.js";
import { byId, h, put } from "./dom.js";
import { about, bytes, percent, plain } from "./format.js";

/** Uploads that run at the same time; the others wait their turn. */
const AT_ONCE = 2;

/**
 * @typedef {object} Sending
 * @property {HTMLElement} line
 * @property {string} name
 * @property {boolean} alone whether it was not one of several
 * @property {(progress: (share: number) => void, signal: AbortSignal) => Promise<import("./types.js").Analysis>} send
 */

/** @type {Sending[]} */
const waiting = [];
let running = 0;

/** @type {(id: string, alone: boolean) => boolean} */
let taken = () => false;

/** @param {typeof taken} onTaken told of every clip that was accepted, and says whether it is shown now */
export function startSubmitting(onTaken) {
  taken = onTaken;
  const picker = /** @type {HTMLInputElement} */ (byId("files"));
  picker.addEventListener("change", () => {
    sendFiles(picker.files ?? []);
    picker.value = "";
  });
  const form = /** @type {HTMLFormElement} */ (byId("by-address"));
  const address = /** @type {HTMLInputElement} */ (byId("address"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sendAddress(address.value.trim());
    address.value = "";
  });
  takeDrops();
  addEventListener("beforeunload", (event) => running && event.preventDefault());
}

/** Say what the gateway takes, and by which policies it judges. @param {import("./types.js").Detectors} installed */
export function offer({ policies, limits }) {
  put(byId("limits"), `Up to ${bytes(limits.bytes)} and ${about(limits.duration_s).replace("about ", "")}.`);
  put(byId("policy"), policies.map((name, i) => h("option", { value: i ? name : "" }, i ? name : `${name} (default)`)));
}

/** Open the system's own dialog. */
export const pickFiles = () => byId("files").click();

/** A clip may be dropped anywhere on the page. */
function takeDrops() {
  let inside = 0;
  const show = () => document.body.classList.toggle("dropping", inside > 0);
  const holdsFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    inside++;
    show();
  });
  addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    inside = Math.max(inside - 1, 0);
    show();
  });
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    inside = 0;
    show();
    if (!event.dataTransfer || !holdsFiles(event)) return;
    event.preventDefault();
    sendFiles(event.dataTransfer.files);
  });
}

/** @param {ArrayLike<File>} files */
function sendFiles(files) {
  const chosen = options();
  for (const file of Array.from(files)) {
    const once = onceOnly();
    enqueue({
      line: newLine(),
      name: `${plain(file.name)} (${bytes(file.size)})`,
      alone: files.length === 1,
      send: (progress, signal) => upload(file, { chosen, once, progress, signal }),
    });
  }
}

/** @param {string} url */
function sendAddress(url) {
  const json = { url, ...options() };
  const headers = onceOnly();
  const send = (/** @type {unknown} */ _, /** @type {AbortSignal} */ signal) =>
    read("/v1/analyses", { method: "POST", json, headers, signal });
  enqueue({ line: newLine(), name: plain(url), alone: true, send });
}

/** @returns {Record<string, string>} */
function options() {
  const named = ["tag", "policy"].map((name) => [name, /** @type {HTMLInputElement} */ (byId(name)).value.trim()]);
  return Object.fromEntries(named.filter(([, value]) => value));
}

function newLine() {
  const line = h("li", { class: "sending" });
  byId("sending").append(line);
  return line;
}

/** @param {Sending} sending */
function enqueue(sending) {
  put(sending.line, h("span", { class: "name" }, sending.name), h("span", { class: "quiet" }, "waiting for its turn"));
  waiting.push(sending);
  next();
}

async function next() {
  const sending = running < AT_ONCE && waiting.shift();
  if (!sending) return;
  running++;
  try {
    await run(sending);
  } finally {
    running--;
    next();
  }
}

/** @param {Sending} sending */
async function run(sending) {
  const { line, name, alone, send } = sending;
  const stop = new AbortController();
  const title = h("span", { class: "name" }, name);
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${name}` });
  const share = h("span", { class: "quiet number" }, "0 %");
  const button = (/** @type {string} */ label, /** @type {() => void} */ onclick) =>
    h("button", { type: "button", class: "plain", onclick }, label);
  put(line, title, bar, share, button("Stop", () => stop.abort()));
  try {
    const analysis = await send((sent) => {
      bar.value = sent;
      share.textContent = sent < 1 ? percent(sent) : "checking";
    }, stop.signal);
    const link = h("a", { href: `#/analyses/${analysis.id}` }, "accepted");
    put(line, title, link, button("Dismiss", () => line.remove()));
    if (taken(analysis.id, alone)) line.remove();
  } catch (error) {
    if (stop.signal.aborted) return line.remove();
    const fault = h("span", { class: "fault", role: "alert" }, sentence(error));
    put(line, title, fault, button("Try again", () => enqueue(sending)), button("Dismiss", () => line.remove()));
  }
}

/**
 * @typedef {object} Sent
 * @property {Record<string, string>} chosen
 * @property {Record<string, string>} once
 * @property {(share: number) => void} progress
 * @property {AbortSignal} signal
 */

/** @param {File} file @param {Sent} how @returns {Promise<import("./types.js").Analysis>} */
async function upload(file, how) {
  const used = key();
  if (file.size === 0) throw new Problem("The file is empty; check it and send it again.");
  try {
    return await sent(file, how);
  } catch (error) {
    const refused = error instanceof Problem && error.status === 401;
    if (refused && await renewed(used, error)) return upload(file, how);
    throw error;
  }
}

/** `fetch` tells no progress of what it sends, XMLHttpRequest does. @type {typeof upload} */
function sent(file, { chosen, once, progress, signal }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(chosen)) form.append(name, value);
  form.append("file", file);
  const request = new XMLHttpRequest();
  request.open("POST", "/v1/analyses");
  for (const [name, value] of Object.entries({ ...credentials(), ...once })) request.setRequestHeader(name, value);
  request.responseType = "json";
  request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
  signal.addEventListener("abort", () => request.abort());
  return new Promise((resolve, reject) => {
    request.onerror = request.onabort = () => reject(new Problem(NO_ANSWER));
    request.onload = () => {
      if (request.status >= 200 && request.status < 300 && request.response) resolve(request.response);
      else reject(problem(request.status, request.response ?? {}, request.getResponseHeader("Retry-After")));
    };
    request.send(form);
  });
}

/** What the gateway would examine a clip with. @returns {Promise<import("./types.js").Detectors>} */
export const installed = () => readAtLast("/v1/detectors");
