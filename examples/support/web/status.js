/** How an upload is getting on: told by the server as it happens, and asked for where that does not come through. */
import { callApi } from './uploader.js';

const FIRST_WORD = 5000; // ms; the server says at once how it is
const SILENCE = 40_000; // ms; the server says something every 15 s
const ROUNDS = 10; // of asking, behind something that holds Server-Sent Events back

/**
 * The status of an upload whenever it has changed, without end but for an upload that is gone.
 * @param {string} url  of the upload, with a slash at the end
 * @param {() => object} headers  of each request: an EventSource sends none, so the events are read by `fetch`
 * @param {AbortSignal} signal  ends it
 * @yields {object} what `GET` of `url` answers
 */
export async function* statuses(url, headers, signal) {
  let asking = 0;
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 1.2, 3000)) {
    try {
      if (asking === 0) {
        const began = Date.now();
        for await (const status of events(`${url}events`, headers(), signal)) yield status;
        // One that ends at once has nothing more to tell.
        if (Date.now() - began > 5000) wait = 500;
      }
      asking = Math.max(0, asking - 1);
    } catch (error) {
      if (error.name === 'TimeoutError') asking = ROUNDS;
    }
    if (signal.aborted) return;
    try {
      yield await callApi(url, { headers: headers(), signal });
    } catch (error) {
      if (error.status === 404 || error.status === 410) return;
    }
    await new Promise((next) => { setTimeout(next, wait); });
  }
}

/** The data of Server-Sent Events, until they break off. */
async function* events(url, headers, signal) {
  const quiet = new AbortController();
  const end = () => quiet.abort(new DOMException('No word came', 'TimeoutError'));
  let timer = setTimeout(end, FIRST_WORD);
  try {
    const answer = await fetch(url, { headers, signal: AbortSignal.any([signal, quiet.signal]), cache: 'no-store' });
    if (!answer.ok || !answer.headers.get('Content-Type')?.startsWith('text/event-stream')) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ''; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE);
      text += value;
      const parts = text.split(/\r?\n\r?\n/);
      text = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5));
        if (data.length) yield JSON.parse(data.join('\n'));
      }
    }
  } finally {
    clearTimeout(timer);
    quiet.abort(); // nobody listens any more
  }
}
