// Uploads a video with clients that others wrote, each interrupted in the middle: the client is killed, or the server
// is. The upload goes on where it was, and what is stored and served is compared byte by byte.
//
//     npm install --no-package-lock
//     python3 -m venv DIR && DIR/bin/pip install -r python/requirements.txt
//     cargo build --manifest-path rust/Cargo.toml
//     node run.mjs --server PATH_TO_EXAMPLE --work DIR --python DIR/bin/python --rust rust/target/debug/rust-clients
//
// [--only WORDS] takes the clients whose names contain them, [--screenshot FILE] shows Uppy at the end, [--video FILE] is
// uploaded instead of one that ffmpeg makes (40 MB at least). CHROMIUM names another browser than /usr/bin/chromium. Clients
// reach the server by a link that counts bytes (lab.mjs), so that the middle is the middle on a fast machine and a slow one.
// One line per client; the last line is `N passed, N failed`, and the exit code says the same.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { clients as curl } from './curl.mjs';
import { Lab, sha256 } from './lab.mjs';
import { clients as python } from './python.mjs';
import { clients as rust } from './rust.mjs';
import { clients as tusJs } from './tus-js.mjs';
import { clients as uppy } from './uppy.mjs';

const text = { type: 'string' };
const { values: options } = parseArgs({ options: { server: text, work: text, python: text, rust: text, only: text, screenshot: text, video: text } });
if (!['server', 'work', 'python', 'rust'].every((name) => options[name])) {
  console.error('usage: node run.mjs --server PATH --work DIR --python PATH --rust PATH [--only WORDS] [--screenshot FILE] [--video FILE]');
  process.exit(2);
}

const LIMIT = 90_000; // milliseconds for one client

const output = (command, ...args) => spawnSync(command, args, { encoding: 'utf8' }).stdout?.trim();

const versions = {
  'tus-js-client': () => installed('tus-js-client'),
  uppy: () => `dashboard ${installed('@uppy/dashboard')}, tus ${installed('@uppy/tus')}`,
  tuspy: () => output(options.python, '-c', 'from importlib.metadata import version; print(version("tuspy"))'),
  aiotus: () => output(options.python, '-c', 'from importlib.metadata import version; print(version("aiotus"))'),
  tusc: () => /^tusc = "=(.*)"$/m.exec(fs.readFileSync(path.join(import.meta.dirname, 'rust/Cargo.toml'), 'utf8'))[1],
  curl: () => output('curl', '--version').split(' ')[1],
};
const installed = (name) => JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'node_modules', name, 'package.json'), 'utf8')).version;

async function video() {
  const file = path.resolve(options.video ?? path.join(options.work, 'talk.mp4'));
  if (!options.video) {
    const made = spawnSync('ffmpeg', ['-v', 'error', '-y', '-f', 'lavfi', '-i', 'testsrc2=size=1280x720:rate=30,noise=alls=20:allf=t', '-f', 'lavfi', '-i', 'sine', '-t', '12',
      '-c:v', 'libx264', '-preset', 'ultrafast', '-b:v', '40M', '-maxrate', '40M', '-bufsize', '40M', '-x264-params', 'nal-hrd=cbr', '-pix_fmt', 'yuv420p', '-movflags', '+faststart', file], { encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`ffmpeg could not make a video (${made.error?.message ?? made.stderr}); pass one with --video`);
  }
  return { file, size: fs.statSync(file).size, digest: await sha256(fs.createReadStream(file)) };
}

function late() {
  let timer;
  const promise = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`not done after ${LIMIT / 1000} s`)), LIMIT); });
  return { promise, stop: () => clearTimeout(timer) };
}

async function run(name, client, file) {
  const [first, ...rest] = name.split(', ');
  const title = [`${first} ${versions[first]()}`, ...rest].join(', ');
  const lab = new Lab(options, file, name.replaceAll(/[^a-z0-9]+/gi, '-'));
  const limit = late();
  const began = Date.now();
  let failure;
  try {
    const told = await Promise.race([client(lab), limit.promise]);
    await Promise.race([lab.check(told), limit.promise]);
    console.log(`ok   ${title}: ${told.interrupted}, resumed from ${told.resumed} of ${file.size} bytes (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failure = error;
    console.log(`FAIL ${title}: ${error.stack ?? error}\n${lab.tail()}`);
  } finally {
    limit.stop();
    await lab.close(failure !== undefined);
  }
  return failure === undefined;
}

fs.mkdirSync(options.work, { recursive: true });
const all = Object.entries({ ...tusJs, ...curl, ...python, ...rust, ...uppy });
const chosen = all.filter(([name]) => name.includes(options.only ?? ''));
assert.ok(chosen.length > 0, `no client has "${options.only}" in its name`);
const file = await video();
let passed = 0;
for (const [name, client] of chosen) passed += (await run(name, client, file)) ? 1 : 0;
console.log(`${passed} passed, ${chosen.length - passed} failed`);
process.exit(passed === chosen.length ? 0 : 1);
