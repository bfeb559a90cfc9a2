// curl, as a person at a terminal would use it: the plain requests of the protocols.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import { text } from 'node:stream/consumers';
import { TOKEN } from './lab.mjs';

const TUS = {
  headers: ['Tus-Resumable: 1.0.0'],
  creation: ({ size }) => [`Upload-Length: ${size}`, 'Upload-Metadata: filename dGFsay5tcDQ='],
  append: ['Content-Type: application/offset+octet-stream'],
  offsetStatus: 200,
  lastStatus: 204,
  download: (lab, url) => url,
};

const IETF = {
  headers: ['Upload-Draft-Interop-Version: 6'],
  creation: ({ size }) => ['Upload-Complete: ?0', `Upload-Length: ${size}`],
  append: ['Content-Type: application/partial-upload', 'Upload-Complete: ?1'],
  offsetStatus: 204,
  lastStatus: 200,
  download: (lab, url) => lab.content(url),
};

/** Runs the shell's `before | curl`; `reply` is status and headers, or null if it was killed. */
function curl(lab, headers, args, before = '') {
  const all = ['-sS', '--include', '-H', `Authorization: Bearer ${TOKEN}`, ...headers.flatMap((line) => ['-H', line]), ...args];
  const child = lab.start('sh', '-c', `${before} exec curl "$@"`, 'sh', ...all);
  return { child, reply: read(child) };
}

async function read(child) {
  const [output, [code, signal]] = await Promise.all([text(child.stdout), once(child, 'close')]);
  if (signal) return null;
  assert.equal(code, 0, `exit code of curl; it printed ${output}`);
  const head = output.split('\r\n\r\n').findLast((part) => part.startsWith('HTTP/')); // 100 Continue has one, too
  const [status, ...lines] = head.split('\r\n');
  const headers = Object.fromEntries(lines.map((line) => [line.split(':')[0].toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
  return { status: Number(status.split(' ')[1]), headers };
}

async function ask(lab, status, headers, ...args) {
  const reply = await curl(lab, headers, args).reply;
  assert.equal(reply.status, status, `status of ${args.join(' ')}: ${JSON.stringify(reply.headers)}`);
  return reply.headers;
}

async function create(lab, { headers, creation }) {
  const { location } = await ask(lab, 201, [...headers, ...creation(lab.video)], '-X', 'POST', lab.endpoint);
  return new URL(location, lab.endpoint).href;
}

const offset = async (lab, { offsetStatus, headers }, url) => Number((await ask(lab, offsetStatus, headers, '--head', url))['upload-offset']);

/** What `tail` gives of the file from `from` on, cut by `head` if only `bytes` of it are wanted. */
const piece = (lab, from, bytes) => `tail -c +${from + 1} ${lab.video.file} |${bytes === undefined ? '' : ` head -c ${bytes} |`}`;

async function send(lab, status, { headers, append }, more, url, from, bytes) {
  const all = [...headers, ...append, ...more, `Upload-Offset: ${from}`];
  const answer = await curl(lab, all, ['-X', 'PATCH', '--data-binary', '@-', url], piece(lab, from, bytes)).reply;
  assert.equal(answer.status, status, `status of PATCH from ${from}: ${JSON.stringify(answer.headers)}`);
  return answer.headers;
}

/** PATCH is killed in the middle; HEAD says from where another one goes on. */
const killed = (protocol) => async (lab) => {
  await lab.open();
  const url = await create(lab, protocol);
  const { child, reply } = curl(lab, [...protocol.headers, ...protocol.append, 'Upload-Offset: 0'], ['-X', 'PATCH', '--limit-rate', '30M', '-T', lab.video.file, url]);
  await lab.interrupt(reply.then(JSON.stringify), () => child.kill('SIGKILL'));
  const resumed = await offset(lab, protocol, url);
  const answer = await send(lab, protocol.lastStatus, protocol, [], url, resumed);
  assert.equal(answer['upload-offset'], String(lab.video.size));
  return { interrupted: 'client killed', url: protocol.download(lab, url), resumed };
};

/** A body that is not what its checksum says counts for nothing. */
async function checksums(lab) {
  await lab.open();
  const url = await create(lab, TUS);
  const half = Math.floor(lab.video.size / 2);
  const bytes = fs.readFileSync(lab.video.file).subarray(0, half);
  const sha1 = `Upload-Checksum: sha1 ${createHash('sha1').update(bytes).digest('base64')}`;
  await send(lab, 204, TUS, [sha1], url, 0, half);
  await send(lab, 460, TUS, [sha1], url, half);
  const resumed = await offset(lab, TUS, url);
  assert.equal(resumed, half);
  lab.link.cut();
  await send(lab, 400, TUS, ['Upload-Checksum: rot13 AAAA'], url, half, 5);
  await send(lab, 204, TUS, [], url, half);
  return { interrupted: 'wrong checksum', url, resumed };
}

export const clients = {
  'curl, tus': killed(TUS),
  'curl, tus checksums': checksums,
  'curl, IETF interop 6': killed(IETF),
};
