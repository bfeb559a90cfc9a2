// What every client is tested with: the server as a process of its own, a link to it that can be halted and cut,
// and the comparison of what is stored.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

export const TOKEN = 'demo';
export const MOUNT = '/api/streaming';

/** Of the video: where a client is interrupted. Not at a boundary of anything. */
const HALT = 0.63;

/** What may be sent besides the bytes of the video once an upload goes on: heads of requests. */
const HEADS = 256 << 10;

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** A process that is read from; what it complains about goes to the log. */
function start(command, args, log) {
  const complaints = fs.openSync(log, 'a');
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', complaints] });
  fs.closeSync(complaints);
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

export async function sha256(stream) {
  const hash = createHash('sha256');
  await pipeline(stream, hash);
  return hash.digest('hex');
}

/** Passes connections on to the server, and counts the bytes that go there. */
class Link {
  sent = 0;
  #pairs = new Set();
  #halt = null;
  #stands = false;

  async open() {
    this.listener = net.createServer({ pauseOnConnect: true }, (client) => this.#pass(client));
    this.listener.listen(0, '127.0.0.1');
    await once(this.listener, 'listening');
    this.origin = `http://127.0.0.1:${this.listener.address().port}`;
  }

  #pass(client) {
    const server = net.connect(this.port, '127.0.0.1');
    const pair = { client, server };
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    client.on('error', end).on('close', end);
    server.on('error', end).on('close', end);
    server.pipe(client);
    client.on('data', (bytes) => {
      this.sent += bytes.length;
      if (!server.write(bytes)) {
        client.pause();
        server.once('drain', () => this.#stands || client.resume());
      }
      if (this.#halt && this.sent >= this.#halt.at) {
        this.#stands = true;
        this.#pairs.forEach((other) => other.client.pause());
        this.#halt.reached();
        this.#halt = null;
      }
    });
    client.on('end', () => server.end());
    if (!this.#stands) client.resume();
  }

  /** Until so many more bytes have passed; from then on nothing does. */
  halt(bytes) {
    return new Promise((reached) => {
      this.#halt = { at: this.sent + bytes, reached };
    });
  }

  /** Every connection breaks; new ones pass, and are counted anew. */
  cut() {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
    this.#stands = false;
    this.sent = 0;
  }

  close() {
    this.cut();
    this.listener.close();
  }
}

/** A client that is a process; it says `url URL`, `resumed OFFSET` (of each part) and `done URL`, a line each. */
export class Client {
  said = { resumed: 0 };

  constructor(child) {
    this.child = child;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [word, rest] = line.split(' ');
      if (word === 'resumed') this.said.resumed += Number(rest);
      else this.said[word] = rest;
    });
    this.ended = once(child, 'close').then(([code]) => code);
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  async done() {
    const code = await this.ended;
    assert.equal(code, 0, 'the exit code of the client');
    assert.ok(this.said.done, 'the client says that it is done, and where');
    return this.said;
  }
}

export class Lab {
  link = new Link();
  #server = null;

  constructor(options, video, name) {
    Object.assign(this, { options, video });
    this.work = path.join(options.work, name);
    this.data = path.join(this.work, 'data');
    this.log = path.join(this.work, 'log');
    fs.rmSync(this.work, { recursive: true, force: true });
    fs.mkdirSync(this.work, { recursive: true });
  }

  /** `cors`: the origin whose pages may upload. `absolute`: for clients that take no relative Location. */
  async open({ cors, absolute = false } = {}) {
    await this.link.open();
    this.endpoint = `${this.link.origin}${MOUNT}/files/`;
    this.args = ['--data', this.data, '--token', `${TOKEN}=alice`];
    if (cors) this.args.push('--cors', cors);
    if (absolute) this.args.push('--public-url', this.link.origin);
    await this.startServer();
  }

  async startServer() {
    this.#server = this.start(path.resolve(this.options.server), '--listen', `127.0.0.1:${this.link.port ?? 0}`, ...this.args);
    for await (const line of createInterface({ input: this.#server.stdout })) {
      const found = /listening on (http:\/\/\S+?)\/?$/.exec(line);
      if (!found) continue;
      this.base = found[1];
      this.link.port = Number(new URL(this.base).port); // the same one next time
      return;
    }
    throw new Error('the server ended before it listened');
  }

  /** `kill -9` */
  async killServer() {
    const gone = once(this.#server, 'exit');
    this.#server.kill('SIGKILL');
    await gone;
  }

  /** Does `harm` in the middle of the upload, when all that has arrived had time to become durable; `ended` is the client's end. */
  async interrupt(ended, harm) {
    const early = ended.then((why) => { throw new Error(`the client ended before it was interrupted: ${why}`); });
    await Promise.race([this.link.halt(Math.floor(this.video.size * HALT)), early]);
    await sleep(300);
    await harm();
    this.link.cut();
  }

  /** Kills the server in the middle of the upload, and starts it again. */
  async crash(ended) {
    await this.interrupt(ended, () => this.killServer());
    await sleep(500); // a client that asks at once is refused
    await this.startServer();
  }

  start(command, ...args) {
    return start(command, args, this.log);
  }

  client(command, ...args) {
    return new Client(this.start(command, ...args));
  }

  /** Where the content is of an upload of the IETF's protocol, whose own URL answers GET with its state. */
  content(url) {
    return `${MOUNT}/uploads/${url.split('/').at(-1)}/content`;
  }

  /** Straight to the server, whatever origin the URL names. */
  fetch(url, init = {}) {
    const { pathname, search } = new URL(url, this.base);
    return fetch(new URL(pathname + search, this.base), { ...init, headers: { Authorization: `Bearer ${TOKEN}`, ...init.headers } });
  }

  /** The upload went on where it was, and is stored and served byte by byte. */
  async check({ url, resumed }) {
    const { size, digest } = this.video;
    assert.ok(resumed > 0 && resumed < size, `resumed from ${resumed} of ${size} bytes`);
    assert.ok(this.link.sent <= size - resumed + HEADS, `${this.link.sent} bytes were sent after ${resumed} of ${size}`);
    const answer = await this.#assembled(url);
    assert.equal(answer.headers.get('content-length'), String(size), 'length of the download');
    assert.equal(await sha256(answer.body), digest, 'sha-256 of the download');
    const blobs = path.join(this.data, 'blobs');
    const files = fs.readdirSync(blobs, { recursive: true }).map((name) => path.join(blobs, name)).filter((name) => fs.statSync(name).size === size);
    assert.equal(files.length, 1, `one stored file of ${size} bytes, not ${files.length}`);
    assert.equal(await sha256(fs.createReadStream(files[0])), digest, 'sha-256 of the stored file');
  }

  /** Assembly may come a moment after the last byte. */
  async #assembled(url) {
    for (let tries = 0; ; tries += 1) {
      const answer = await this.fetch(url);
      if (answer.status === 200) return answer;
      assert.ok(tries < 50, `GET ${url} answers ${answer.status}`);
      await answer.arrayBuffer();
      await sleep(100);
    }
  }

  tail() {
    if (!fs.existsSync(this.log)) return '';
    return fs.readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-30).map((line) => `     | ${line}`).join('\n');
  }

  async close(keep) {
    if (this.#server?.exitCode === null && this.#server.signalCode === null) await this.killServer();
    if (this.link.listener) this.link.close();
    if (!keep) fs.rmSync(this.work, { recursive: true, force: true });
  }
}
