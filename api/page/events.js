/** Following an analysis: by its event stream, or by asking again where a stream does not get through. */

import { answer, jsonOf, mayPass, patience, pause, Problem, read } from "./api.js";
import { hasEnded } from "./types.js";

/** A stream says something at once, and every 15 s at least; one that is silent for longer does not get through. */
const OPENING_MS = 8_000;
const SILENCE_MS = 40_000;
/** Streams in a row that brought nothing before the analysis is asked for instead; and how often, before the next one. */
const FRUITLESS = 2;
const AGAIN = 30;

/**
 * Tell each news of an analysis until it has ended, whatever becomes of the connection.
 *
 * @param {string} id
 * @param {{ news: (analysis: import("./types.js").Analysis) => void,
 *   trouble: (error: unknown) => void, signal: AbortSignal }} ears `trouble` is told null when it is over
 * @returns {Promise<void>} when it has ended or was given up (the signal); throws what will not pass, and what `news` throws
 */
export async function follow(id, { news, trouble, signal }) {
  const self = `/v1/analyses/${id}`;
  const seen = { id: "", ended: false, tries: 0, fruitless: 0 };
  const connected = () => {
    seen.tries = 0;
    trouble(null);
  };
  /** @param {import("./types.js").Analysis} analysis @param {string} event */
  const take = (analysis, event) => {
    seen.id = event;
    seen.ended = hasEnded(analysis.state);
    connected();
    news(analysis);
  };
  while (!seen.ended && !signal.aborted) {
    try {
      if (!seen.id) take(await read(self, { signal }), "read");
      const streams = seen.fruitless < FRUITLESS;
      const brought = streams && !seen.ended && await listen(`${self}/events`, seen, { take, connected, signal });
      if (!streams) await poll(self, take, signal);
      seen.fruitless = brought || seen.fruitless > AGAIN ? 0 : seen.fruitless + 1;
    } catch (error) {
      if (signal.aborted) return;
      if (!mayPass(error)) throw error;
      seen.fruitless++;
      trouble(error);
      await pause(patience(error, seen.tries++), signal);
    }
  }
}

/** @param {string} self @param {(analysis: any, event: string) => void} take @param {AbortSignal} signal */
async function poll(self, take, signal) {
  const response = await answer(self, { signal });
  take(await jsonOf(response), "read");
  await pause(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
}

/**
 * One stream, until it ends. Whether it brought anything.
 *
 * @param {string} path
 * @param {{ id: string, ended: boolean }} seen
 * @param {{ take: (analysis: any, event: string) => void, connected: () => void, signal: AbortSignal }} ears
 */
async function listen(path, seen, { take, connected, signal }) {
  const silence = new AbortController();
  const headers = { Accept: "text/event-stream", "Last-Event-ID": seen.id };
  let timer = setTimeout(() => silence.abort(), OPENING_MS);
  try {
    const either = AbortSignal.any([signal, silence.signal]);
    const response = await answer(path, { headers, signal: either }).catch(lost(signal));
    if (response.status === 204 || !response.body) {
      seen.ended = response.status === 204;
      return seen.ended;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "", brought = false;; brought = true) {
      const { value, done } = await reader.read().catch(lost(signal));
      if (done) return brought;
      connected();
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const { data, event } of blocks.map(parsed)) {
        if (data) take(JSON.parse(data), event);
      }
      if (seen.ended) return true;
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

/** A connection that broke is a passing problem, one that was given up is not. @param {AbortSignal} signal */
const lost = (signal) => (/** @type {unknown} */ error) => {
  if (signal.aborted || error instanceof Problem) throw error;
  throw new Problem("The connection was lost; trying again.");
};

/** What one block of a stream says. @param {string} block */
export function parsed(block) {
  const said = { data: "", event: "" };
  for (const line of block.split("\n")) {
    const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
    if (name === "data") said.data += value;
    if (name === "id") said.event = value;
  }
  return said;
}
