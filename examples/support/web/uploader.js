/**
 * Sends one file in chunks over the chunk API: in parallel, with a checksum per chunk, through bad networks and
 * server restarts, and goes on where it stopped after the page or the whole browser was closed.
 *
 *     const upload = new ChunkUploader({ endpoint: '/api/streaming', token, file, videoId });
 *     upload.addEventListener('progress', ({ detail }) => draw(detail));
 *     const { video_path } = await upload.start();
 *
 * Events: `progress` (detail: {@link Progress}, a few times a second) and `state` (detail: `{state, error?, delay?}`;
 * `waiting` says why, as `error`, and for how long, as `delay` in ms; `failed` says why).
 *
 * @typedef {object} Progress
 * @property {number} size         bytes of the file
 * @property {number} confirmed    bytes that the server has stored durably
 * @property {number} sent         `confirmed` plus what has left for the server since; falls back when a connection breaks
 * @property {number} fraction     `sent` as 0–1, and 1 only when every chunk is confirmed
 * @property {number|null} speed   bytes per second, smoothed; null while nothing is being sent
 * @property {number|null} secondsLeft
 * @property {{total: number, stored: number, sending: number, missing: number}} chunks
 */

/** What `chunkStates` holds for each chunk. */
export const Chunk = Object.freeze({ MISSING: 0, SENDING: 1, STORED: 2 });

const OUTAGE = [0, 502, 503, 504]; // nobody there: wait as long as it takes
const GONE = [404, 410];
const ENDED = ['aborted', 'expired', 'failed'];
const RESENDS = 3; // of one damaged chunk
const ROUNDS = 5; // of "assemble" answered with "chunks missing"

/**
 * Why it failed; `message` is a sentence for a person and says what to do.
 * @property {number} status      HTTP status; 0 when no answer came
 * @property {string} serverText  the server's own words
 * @property {object} body        the `error` object of the answer: `missing`, `field`, `expected`, …
 * @property {number} retryAfter  milliseconds the server asked to wait
 * @property {boolean} retry      whether the same request may succeed later
 */
export class UploadError extends Error {
  constructor(message, { cause, ...facts } = {}) {
    super(message, { cause });
    Object.assign(this, { name: 'UploadError', status: 0, serverText: '', body: {}, retryAfter: 0, retry: false }, facts);
  }
}

/**
 * One JSON request. Resolves with `data` of the envelope, rejects with an {@link UploadError}.
 * @param {string} url
 * @param {{method?: string, headers?: object, json?: object, signal?: AbortSignal, timeout?: number}} [options]
 */
export async function callApi(url, { method = 'GET', headers, json, signal, timeout = 30_000 } = {}) {
  const content = json === undefined ? {} : { body: JSON.stringify(json), headers: { ...headers, 'Content-Type': 'application/json' } };
  const limit = AbortSignal.timeout(timeout);
  let answer;
  let text;
  try {
    answer = await fetch(url, { method, headers, ...content, signal: signal ? AbortSignal.any([signal, limit]) : limit, cache: 'no-store' });
    text = await answer.text();
  } catch (cause) {
    signal?.throwIfAborted();
    throw unreachable(cause);
  }
  return decode(answer.status, text, answer.headers.get('Retry-After'));
}

/** Uploads one file. Every method may be called at any time. */
export class ChunkUploader extends EventTarget {
  #o; #base; #key; #state = 'idle'; #running; #stop; #wake; #nudge; // options; mount; in localStorage; …; ends a pause; ends a wait
  #id; #videoId; #chunkSize = 0; #chunks = new Uint8Array(0); #result; // what the server knows
  #inFlight = new Map(); #damaged = new Map(); #recovery; #futile = 0; #waits = 0; #moved = 0; #meter;

  /**
   * @param {object} options
   * @param {string} options.endpoint     the mount, e.g. `/api/streaming`
   * @param {File} options.file
   * @param {string} [options.fileName]   default: the file's name
   * @param {string|number|(() => Promise<string|number>)} [options.videoId]  a function is asked only when a new upload must begin
   * @param {string} [options.token]      sent as `Authorization: Bearer …`; the property of this name may be changed later
   * @param {object|(() => object)} [options.headers]  more request headers
   * @param {number} [options.chunkSize]  default: what the server proposes
   * @param {number} [options.parallel]   chunks under way at once
   * @param {boolean} [options.checksum]  SHA-256 of each chunk; left out where the browser has none to offer (plain http)
   * @param {boolean} [options.remember]  keep the upload's id in localStorage, to resume after the browser was closed
   * @param {object} [options.note]       JSON to remember with it, e.g. `{title}`
   * @param {number} [options.maxRetries] failures in a row, without one stored chunk, while the server does answer
   * @param {number} [options.backoff]    first wait in ms; doubles up to `maxBackoff`
   * @param {number} [options.maxBackoff]
   * @param {number} [options.stallTimeout]  ms without a byte before a request is given up and repeated
   */
  constructor(options) {
    super();
    this.#o = { parallel: 3, checksum: true, remember: true, maxRetries: 10, backoff: 500, maxBackoff: 15_000, stallTimeout: 60_000, ...options };
    this.#o.fileName ??= options.file.name;
    this.#base = options.endpoint.replace(/\/+$/, '');
    this.#key = `${prefix(this.#base)}${this.#o.fileName}|${options.file.size}|${options.file.lastModified}`;
    this.token = options.token;
  }

  /** `idle`, `starting`, `sending`, `waiting`, `assembling`, `paused`, `done`, `failed` or `aborted`. */
  get state() { return this.#state; }
  /** The server's id of this upload, once known. */
  get uploadId() { return this.#id; }
  /** The video it is for, once known. */
  get videoId() { return this.#videoId; }
  /** One {@link Chunk} per chunk; read only. */
  get chunkStates() { return this.#chunks; }

  /** Begins or goes on. @returns {Promise<object>} `{video_id, video_path, upload_id, size, checksum}` once the server has the whole file */
  start() {
    return (this.#running ??= this.#run().finally(() => { this.#running = null; }));
  }

  /** Stops sending at once; what the server confirmed is kept. */
  pause() {
    if (!['starting', 'sending', 'waiting', 'assembling'].includes(this.#state)) return;
    this.#enter('paused');
    this.#stop.abort();
  }

  /** Goes on after `pause()` or a failure; while `waiting`, tries at once. @returns what `start()` returns */
  resume() {
    (this.#state === 'paused' ? this.#wake : this.#nudge)?.();
    return this.start();
  }

  /** Gives the upload up and has the server delete what it stored. */
  async abort() {
    if (this.#state === 'done' || this.#state === 'aborted') return;
    this.#enter('aborted');
    this.#stop?.abort();
    this.#wake?.();
    await this.#running?.catch(() => {});
    const id = this.#id ?? this.#recall()?.uploadId;
    ChunkUploader.forget({ key: this.#key });
    for (let tries = 1; id; tries += 1) {
      try {
        await this.#call('DELETE', `uploads/${id}/`);
        return;
      } catch (error) {
        if (GONE.includes(error.status)) return;
        if (!error.retry || tries === 4) throw error;
        await new Promise((next) => { setTimeout(next, this.#o.backoff * 2 ** tries); });
      }
    }
  }

  /** @returns {Progress} */
  progress() {
    const { size } = this.#o.file;
    const chunks = { total: this.#chunks.length, stored: 0, sending: 0, missing: 0 };
    let confirmed = 0;
    this.#chunks.forEach((state, index) => {
      chunks[['missing', 'sending', 'stored'][state]] += 1;
      if (state === Chunk.STORED) confirmed += this.#length(index);
    });
    let sent = confirmed;
    for (const loaded of this.#inFlight.values()) sent += loaded;
    const whole = this.#state === 'done' || (chunks.total > 0 && chunks.stored === chunks.total);
    const speed = this.#meter?.speed || null;
    return { size, confirmed, sent, fraction: whole ? 1 : Math.min(sent / size || 0, 0.999), speed, secondsLeft: speed && (size - sent) / speed, chunks };
  }

  /** Unfinished uploads to this mount that this browser remembers: `[{uploadId, videoId, fileName, size, lastModified, note, savedAt}]`. */
  static unfinished(endpoint) {
    const start = prefix(endpoint.replace(/\/+$/, ''));
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(start))
        .map((key) => ({ ...JSON.parse(localStorage.getItem(key)), key })).sort((a, b) => b.savedAt - a.savedAt);
    } catch { return []; }
  }

  /** Forgets one of `unfinished()`; the server is not told. */
  static forget({ key }) {
    try { localStorage.removeItem(key); } catch { /* no storage, nothing to forget */ }
  }

  async #run() {
    for (;;) {
      this.#stop = new AbortController();
      const ticking = setInterval(() => this.#report(), 200);
      try {
        const result = await this.#attempt(this.#stop.signal).finally(() => clearInterval(ticking));
        ChunkUploader.forget({ key: this.#key });
        this.#enter('done');
        return result;
      } catch (error) {
        if (this.#state === 'paused') await new Promise((wake) => { this.#wake = wake; });
        else if (this.#state !== 'aborted') {
          this.#enter('failed', { error });
          throw error;
        }
        if (this.#state === 'aborted') throw new UploadError('The upload was cancelled.');
      }
    }
  }

  /** From whatever the server has to the assembled file. */
  async #attempt(signal) {
    this.#enter('starting');
    this.#futile = this.#waits = 0;
    this.#result = null;
    this.#damaged.clear();
    await this.#open(signal);
    for (let round = 0; ; round += 1) {
      while (this.#chunks.includes(Chunk.MISSING)) await this.#sendMissing(signal);
      const result = this.#result ?? (await this.#assemble(signal, round));
      if (result) return { ...result, upload_id: this.#id, video_id: result.video_id ?? this.#videoId };
    }
  }

  /** Finds the upload on the server, or creates it. */
  async #open(signal) {
    const { videoId: asked, fileName, file, chunkSize } = this.#o;
    const ask = typeof asked === 'function';
    const known = this.#recall();
    const find = (path) => this.#persist(signal, 'GET', path).then((status) => (ENDED.includes(status.state) ? null : status), (error) => {
      if (GONE.includes(error.status)) return null;
      throw error;
    });
    const findByName = () => find(`uploads/?videoId=${encodeURIComponent(videoId)}&fileName=${encodeURIComponent(fileName)}`);
    let videoId = ask ? this.#videoId ?? known?.videoId : asked;
    const id = this.#id ?? known?.uploadId;
    this.#id = null; // until it is found
    let status = id ? await find(`uploads/${encodeURIComponent(id)}/`) : null;
    if (!status && videoId != null) status = await findByName();
    for (let fresh = !ask; !status;) {
      if (videoId == null && ask) {
        videoId = await asked();
        fresh = true;
      }
      this.#videoId = videoId;
      try {
        status = await this.#persist(signal, 'POST', 'uploads/', { fileName, fileSize: file.size, videoId, chunkSize });
      } catch (error) {
        if (error.status === 409 && videoId != null) status = await findByName(); // an earlier try got through
        else if (!fresh && [403, 404].includes(error.status)) {
          videoId = null; // the remembered video is gone
          continue;
        }
        if (!status) throw error;
      }
    }
    this.#videoId = videoId;
    this.#adopt(status);
    this.#remember();
  }

  /** Takes over what the server says it has. */
  #adopt({ upload_id: id, state, file_size: known, chunk_size: chunkSize, total_chunks: total, missing, video_path, checksum, error }) {
    const { size } = this.#o.file;
    if (ENDED.includes(state)) throw new UploadError(SENTENCES[410], { status: 410, serverText: error ?? state });
    if (known != null && known !== size) {
      throw new UploadError(`The unfinished upload is of a file with ${known} bytes, this one has ${size}. Choose the same file again, or cancel and begin anew.`);
    }
    if (size && !(chunkSize * total >= size && chunkSize * (total - 1) < size)) {
      throw new UploadError('The unfinished upload was begun in pieces of another size and cannot go on here. Cancel it and begin anew.');
    }
    if (state === 'assembled') this.#result = { video_path, size, checksum };
    const before = this.#chunks;
    this.#id = id;
    this.#chunkSize = chunkSize;
    this.#chunks = new Uint8Array(total).fill(Chunk.STORED);
    if (!this.#result) this.#lack(missing ?? [[0, total - 1]]);
    for (const index of this.#inFlight.keys()) this.#chunks[index] = before[index];
  }

  #lack(ranges) {
    for (const [first, last] of ranges) this.#chunks.fill(Chunk.MISSING, first, last + 1);
  }

  /** Sends what is missing, `parallel` at a time; the first failure that waiting cannot mend stops them all. */
  async #sendMissing(signal) {
    const lane = async () => {
      for (;;) {
        await this.#recovery;
        signal.throwIfAborted();
        const index = this.#chunks.indexOf(Chunk.MISSING);
        if (index < 0) return;
        await this.#send(index, signal);
      }
    };
    const stop = this.#stop;
    await Promise.all(Array.from({ length: Math.max(1, this.#o.parallel) }, () => lane().catch((error) => stop.abort(error))));
    signal.throwIfAborted();
  }

  /** One chunk, once: afterwards it is stored, or missing and worth another try. */
  async #send(index, signal) {
    this.#chunks[index] = Chunk.SENDING;
    this.#inFlight.set(index, 0);
    this.#enter('sending');
    try {
      const start = index * this.#chunkSize;
      const bytes = await this.#o.file.slice(start, start + this.#length(index)).arrayBuffer().catch((cause) => {
        throw new UploadError('The file can no longer be read: it was moved, changed or deleted. Choose it again.', { cause });
      });
      const digest = this.#o.checksum && globalThis.crypto?.subtle ? { 'Content-Digest': `sha-256=:${await sha256(bytes)}:` } : {};
      signal.throwIfAborted();
      await this.#put(index, bytes, { ...this.#headers(), ...digest, 'Content-Type': 'application/octet-stream' }, signal);
      this.#chunks[index] = Chunk.STORED;
      this.#inFlight.delete(index);
      this.#futile = this.#waits = 0;
    } catch (error) {
      this.#chunks[index] = Chunk.MISSING;
      this.#inFlight.delete(index);
      signal.throwIfAborted();
      const times = (this.#damaged.get(index) ?? 0) + 1;
      if (error.status === 422 && times <= RESENDS) this.#damaged.set(index, times);
      else await this.#recover(error, signal);
    }
  }

  /** By XMLHttpRequest, which alone reports the bytes as they leave. */
  #put(index, bytes, headers, signal) {
    return new Promise((resolve, reject) => {
      const xhr = new XMLHttpRequest();
      const cut = () => xhr.abort();
      let stalled;
      const stir = () => {
        clearTimeout(stalled);
        stalled = setTimeout(cut, this.#o.stallTimeout);
      };
      xhr.open('PUT', `${this.#base}/uploads/${this.#id}/chunks/${index}`);
      for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
      xhr.upload.onprogress = ({ loaded }) => {
        stir();
        this.#moved += loaded - this.#inFlight.get(index);
        this.#inFlight.set(index, loaded);
      };
      xhr.onload = () => {
        try { resolve(decode(xhr.status, xhr.responseText, xhr.getResponseHeader('Retry-After'))); } catch (error) { reject(error); }
      };
      xhr.onerror = xhr.onabort = () => reject(unreachable());
      xhr.onloadend = () => {
        clearTimeout(stalled);
        signal.removeEventListener('abort', cut);
      };
      signal.addEventListener('abort', cut);
      stir();
      xhr.send(bytes);
    });
  }

  /** @returns the result, or null when the server lacks chunks, which are marked missing */
  async #assemble(signal, round) {
    for (;;) {
      this.#enter('assembling');
      try {
        return await this.#call('POST', `uploads/${this.#id}/assemble/`, { json: {}, signal, timeout: 120_000 });
      } catch (error) {
        if (error.status === 409 && error.body.missing?.length && round < ROUNDS) {
          this.#lack(error.body.missing);
          return null;
        }
        await this.#recover(error, signal);
        if (this.#result || this.#chunks.includes(Chunk.MISSING)) return this.#result;
      }
    }
  }

  async #persist(signal, method, path, json) {
    for (;;) {
      try {
        return await this.#call(method, path, { json, signal });
      } catch (error) {
        await this.#recover(error, signal);
      }
    }
  }

  /** Returns when the same request is worth another try; all that failed meanwhile wait together. Throws what waiting cannot mend. */
  async #recover(error, signal) {
    if (!error.retry) throw error;
    this.#recovery ??= this.#waitOut(error, signal).finally(() => { this.#recovery = null; });
    await this.#recovery;
  }

  async #waitOut(error, signal) {
    const outage = OUTAGE.includes(error.status);
    for (;;) {
      signal.throwIfAborted();
      if (!OUTAGE.includes(error.status)) this.#countFutile(error);
      const ceiling = Math.min(this.#o.maxBackoff, this.#o.backoff * 2 ** this.#waits);
      const delay = Math.max(error.retryAfter, (ceiling * (1 + Math.random())) / 2);
      this.#waits += 1;
      this.#enter('waiting', { error, delay });
      await this.#sleep(delay, signal);
      if (!this.#id) return;
      try {
        this.#adopt(await this.#call('GET', `uploads/${this.#id}/`, { signal }));
        break;
      } catch (next) {
        if (!next.retry) throw next;
        error = next;
      }
    }
    if (outage) this.#countFutile(error); // the server is there, and still the request failed
  }

  #countFutile(error) {
    this.#futile += 1;
    if (this.#futile > this.#o.maxRetries) throw error;
  }

  #sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        removeEventListener('online', end);
        signal.removeEventListener('abort', end);
        this.#nudge = null;
        if (signal.aborted) reject(signal.reason);
        else resolve();
      };
      const timer = setTimeout(end, ms);
      addEventListener('online', end);
      signal.addEventListener('abort', end);
      this.#nudge = end;
    });
  }

  #call(method, path, options) {
    return callApi(`${this.#base}/${path}`, { method, headers: this.#headers(), ...options });
  }

  #headers() {
    const { headers } = this.#o;
    return { ...(this.token && { Authorization: `Bearer ${this.token}` }), ...(typeof headers === 'function' ? headers() : headers) };
  }

  #length(index) {
    return Math.max(0, Math.min(this.#chunkSize, this.#o.file.size - index * this.#chunkSize));
  }

  #recall() {
    const { videoId, remember } = this.#o;
    try {
      const known = remember && JSON.parse(localStorage.getItem(this.#key));
      return typeof videoId === 'function' || String(known.videoId) === String(videoId) ? known : null;
    } catch { return null; }
  }

  #remember() {
    const { file: { size, lastModified }, fileName, note, remember } = this.#o;
    const record = { uploadId: this.#id, videoId: this.#videoId, fileName, size, lastModified, note, savedAt: Date.now() };
    try { if (remember) localStorage.setItem(this.#key, JSON.stringify(record)); } catch { /* no room: resumes until the page is closed */ }
  }

  #enter(state, detail) {
    if (this.#state === state && state !== 'waiting') return;
    this.#state = state;
    this.#emit('state', { state, ...detail });
    this.#report();
  }

  #report() {
    const now = performance.now();
    const { at, moved, speed } = this.#meter ?? {};
    const seconds = (now - at) / 1000;
    if (this.#state !== 'sending') this.#meter = null;
    else if (!this.#meter) this.#meter = { at: now, moved: this.#moved, speed: 0 };
    else if (seconds > 0.4) {
      const rate = Math.max(0, this.#moved - moved) / seconds;
      this.#meter = { at: now, moved: this.#moved, speed: speed ? rate + (speed - rate) * Math.exp(-seconds / 4) : rate };
    }
    this.#emit('progress', this.progress());
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const prefix = (base) => `tower-upload:${base}|`;

const sha256 = async (bytes) => btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))));

const unreachable = (cause) => new UploadError('The server cannot be reached. Check your connection.', { retry: true, cause });

/** Opens the envelope `{success, data}` or `{success, error: {error}}`. */
function decode(status, text, retryAfter) {
  let body;
  try { body = JSON.parse(text); } catch { /* no JSON: 204, or a proxy's page */ }
  if (status === 204 || (status < 300 && body?.success === true)) return body?.data ?? {};
  if (status < 400) throw new UploadError('The answer did not come from the upload server. Perhaps this network wants you to sign in first.', { retry: true });
  const detail = typeof body?.error === 'object' && body.error ? body.error : {};
  throw new UploadError(SENTENCES[status] ?? SENTENCES[status < 500 ? 400 : 500], {
    status,
    serverText: typeof detail.error === 'string' ? detail.error : '',
    body: detail,
    retryAfter: Math.max(0, (/^\d+$/.test(retryAfter) ? retryAfter * 1000 : Date.parse(retryAfter) - Date.now()) || 0),
    retry: status >= 500 || status === 408 || status === 429,
  });
}

const SENTENCES = {
  400: 'The server did not understand the request. Reload the page and try again.',
  401: 'Your sign-in is missing or no longer valid. Sign in again, then resume.',
  403: 'You may not do this with this video. Sign in as its owner.',
  404: 'The server does not know this upload any more. Resume to send the file again from the beginning.',
  408: 'The connection is too slow or was interrupted. Check it, then resume.',
  409: 'What the server holds and this file do not fit together; perhaps the file has changed since. Cancel, then send it anew.',
  410: 'This upload has ended on the server. Resume to send the file again from the beginning.',
  413: 'The file is larger than the server accepts. Make it smaller, or ask the operator to raise the limit.',
  415: 'The server does not accept files of this kind. Choose another one.',
  422: 'A piece of the file arrives damaged again and again. Check the network, then resume.',
  429: 'You have sent too much for now. Wait a while, then resume.',
  500: 'The server has a problem. Wait a while, then resume.',
  503: 'The server is busy or restarting. Wait a while, then resume.',
  507: 'The server has no space left. Tell its operator, then resume.',
};
