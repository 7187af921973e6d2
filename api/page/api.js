/** Requests to the gateway: with the key where one is needed, and every failure as a sentence. */

import { askForKey, forget, key } from "./access.js";

/** What went wrong, in the API's own words where it had any. */
export class Problem extends Error {
  /** @param {string} sentence @param {{ status?: number, code?: string, retryAfter?: number }} [facts] */
  constructor(sentence, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(sentence);
    this.status = status;
    this.code = code;
    /** Seconds to wait before it may be tried again; 0 if nobody said. */
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may well go through later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** How long an answer may take to begin. */
const ANSWER_MS = 15_000;

export const NO_ANSWER = "Clipwarden does not answer. Check that it runs and that this machine can reach it.";
const BROKEN = "This page made a mistake, which its console tells of. Reload it; what was found is not lost.";

/** @returns {Record<string, string>} */
export function credentials() {
  const held = key();
  return held ? { Authorization: `Bearer ${held}` } : {};
}

/**
 * The answer to a request; asks for a key, and tries again, where one is missing. Throws Problem. What only reads is
 * not waited for without end.
 *
 * @param {string} path
 * @param {{ method?: string, json?: unknown, headers?: Record<string, string>, signal?: AbortSignal }} [options]
 * @returns {Promise<Response>}
 */
export async function answer(path, { method = "GET", json, headers = {}, signal } = {}) {
  const sent = { ...credentials(), ...headers };
  const used = key();
  /** @type {RequestInit} */
  const init = { method, headers: sent, cache: "no-store", credentials: "omit" };
  if (json !== undefined) {
    sent["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  }
  const late = new AbortController();
  const timer = setTimeout(() => method === "GET" && late.abort(), ANSWER_MS);
  init.signal = AbortSignal.any(signal ? [signal, late.signal] : [late.signal]);
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(NO_ANSWER);
  } finally {
    clearTimeout(timer);
  }
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (problem.status === 401 && await renewed(used, problem)) return answer(path, { method, json, headers, signal });
  throw problem;
}

/** For a request that, however often it is sent, opens one analysis. @returns {Record<string, string>} */
export function onceOnly() {
  const random = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16));
  return { "Idempotency-Key": `"page-${random.join("-")}"` };
}

/** Whether there is another key now than the one that was refused. @param {string | null} used @param {Problem} problem */
export async function renewed(used, problem) {
  if (key() !== used) return true;
  forget();
  return await askForKey(used ? problem.message : "This installation asks for an API key.");
}

/** The JSON of an answer. @param {string} path @param {Parameters<typeof answer>[1]} [options] @returns {Promise<any>} */
export async function read(path, options) {
  return jsonOf(await answer(path, options));
}

/** The JSON of an answer that may break off. @param {Response} response @returns {Promise<any>} */
export async function jsonOf(response) {
  try {
    return await response.json();
  } catch {
    throw new Problem(NO_ANSWER);
  }
}

/** The JSON of an answer, asked for until it comes. Throws what does not pass. @param {string} path @param {AbortSignal} [signal] */
export async function readAtLast(path, signal) {
  for (let tries = 0;; tries++) {
    try {
      return await read(path, { signal });
    } catch (error) {
      if (signal?.aborted || !mayPass(error)) throw error;
      await pause(patience(error, tries), signal);
    }
  }
}

/** @param {Response} response */
async function problemOf(response) {
  let said = {};
  try {
    said = await response.json();
  } catch {
    // whatever stands before the gateway answered with a page of its own
  }
  return problem(response.status, said, response.headers.get("Retry-After"));
}

/** @param {number} status @param {{ detail?: unknown, code?: unknown }} said @param {string | null} retryAfter */
export function problem(status, said, retryAfter) {
  const detail = typeof said.detail === "string" ? said.detail : `The gateway answered with status ${status}.`;
  return new Problem(detail, { status, code: String(said.code ?? ""), retryAfter: Number(retryAfter) || 0 });
}

/** How long to wait before a try, longer each time, or as long as was asked for. @param {unknown} error @param {number} tries */
export function patience(error, tries) {
  const asked = error instanceof Problem ? error.retryAfter : 0;
  return 1000 * Math.max(asked, Math.min(2 ** tries, 15));
}

/** Whether it is trouble that time may end. @param {unknown} error */
export const mayPass = (error) => error instanceof Problem && error.passing;

/** A sentence for any error; one of the page's own is also reported as what it is. @param {unknown} error */
export function sentence(error) {
  if (error instanceof Problem) return error.message;
  reportError(error);
  return BROKEN;
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
