/** The page around {@link ChunkUploader}: sign in, choose a file, watch it go, watch the video. */
import { statuses } from './status.js';
import { callApi, Chunk, ChunkUploader } from './uploader.js';

const $ = (id) => document.getElementById(id);
const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const mount = meta('mount').replace(/\/+$/, '');
const anonymous = meta('auth') === 'anonymous';
const calm = matchMedia('(prefers-reduced-motion: reduce)');

let token = '';
/** The upload on the screen, or null. */
let upload = null;
/** The unfinished upload for which a file is being chosen, or null. */
let expected = null;

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});
const api = (path, options) => callApi(`${mount}/${path}`, { headers: headers(), ...options });

// ---- words

const number = (value, digits = 0) => value.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });

function size(bytes) {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let step = 0;
  let value = bytes;
  for (; value >= 999.5 && step < units.length - 1; step += 1) value /= 1000;
  return `${number(value, step && value < 99.95 ? 1 : 0)} ${units[step]}`;
}

function duration(seconds) {
  if (seconds < 55) return `${Math.max(1, Math.ceil(seconds / 5) * 5)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function say(text) {
  if ($('status').textContent !== text) $('status').textContent = text;
}

function complain(error) {
  const box = $('error');
  const server = error?.serverText ? ` (The server says: ${error.serverText})` : '';
  box.textContent = error ? `${error.message}${server}` : '';
  box.hidden = !error;
  if (error) box.scrollIntoView({ block: 'nearest' });
}

/** Runs what a button does; what goes wrong is told. */
const doing = (work) => async (event) => {
  complain(null);
  try { await work(event); } catch (error) { complain(error); }
};

/** Shows some elements, hides others, and keeps the keyboard's place when it was on one that goes. */
function swap(shown, hidden, next) {
  const lost = hidden.some((element) => element.contains(document.activeElement));
  for (const element of shown) element.hidden = false;
  for (const element of hidden) element.hidden = true;
  if (lost) next?.focus();
}

// ---- signing in

const KEY = 'tower-upload-token';
const stores = ['sessionStorage', 'localStorage'];

function keepToken(remember) {
  for (const store of stores) {
    try {
      if (token && store === stores[Number(remember)]) window[store].setItem(KEY, token);
      else window[store].removeItem(KEY);
    } catch { /* no storage: known until the page is closed */ }
  }
}

function recallToken() {
  for (const store of stores) {
    try {
      const kept = window[store].getItem(KEY);
      if (kept) return kept;
    } catch { /* no storage */ }
  }
  return '';
}

/** The server prints an address with the token in its fragment, which never travels; it does not stay in the address bar either. */
function tokenOfAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get('token');
  if (found) history.replaceState(null, '', location.pathname + location.search);
  return found;
}

async function signIn(candidate, keep) {
  const before = token;
  token = candidate;
  try {
    showLibrary(await api('videos/'));
  } catch (error) {
    token = before;
    if (error.status === 401) error.message = 'The server does not know this token. Check that you copied all of it.';
    throw error;
  }
  keep?.();
  $('token').value = '';
  $('sign-out').hidden = anonymous;
  swap([$('upload'), $('library')], [$('entry')], upload ? $('file-name') : $('upload-heading'));
  if (upload) {
    upload.token = token;
    if (upload.state === 'failed') upload.resume().catch(() => {});
  } else {
    say('Choose a video to begin.');
    await showUnfinished();
  }
}

function askToSignIn() {
  $('entry').hidden = false;
  $('token').focus();
}

$('entry-form').addEventListener('submit', (event) => {
  event.preventDefault();
  doing(() => signIn($('token').value.trim(), () => keepToken($('remember').checked)))();
});

$('sign-out').addEventListener('click', () => {
  upload?.pause(); // it stays on the server, and is offered again
  upload = null;
  token = '';
  keepToken(false);
  complain(null);
  document.title = 'Videos';
  turnTo(null);
  $('library-list').replaceChildren();
  $('unfinished-list').replaceChildren();
  swap([$('choose')], [$('transfer'), $('upload'), $('library'), $('watch'), $('sign-out')]);
  askToSignIn();
});

// ---- choosing a file

function row(name, about, ...buttons) {
  const item = document.createElement('li');
  const what = document.createElement('div');
  what.className = 'what';
  for (const [kind, text] of [['name', name], ['hint', about]]) {
    const line = document.createElement('span');
    line.className = kind;
    line.textContent = text;
    what.append(line);
  }
  item.append(what, ...buttons);
  return item;
}

function button(text, label, work) {
  const made = document.createElement('button');
  made.type = 'button';
  made.textContent = text;
  made.setAttribute('aria-label', label);
  made.addEventListener('click', doing(work));
  return made;
}

/** Uploads that this browser began and the server still waits for. */
async function showUnfinished() {
  const rows = await Promise.all(ChunkUploader.unfinished(mount).map(async (record) => {
    const status = await api(`uploads/${record.uploadId}/`).catch((error) => ({ state: error.status === 410 ? 'ended' : 'unknown' }));
    if (['ended', 'assembled', 'aborted', 'expired', 'failed'].includes(status.state)) ChunkUploader.forget(record);
    if (status.state !== 'open' && status.state !== 'assembling') return []; // over, or somebody else's
    const name = record.note?.title || record.fileName;
    const stored = record.size ? Math.floor((100 * status.bytes) / record.size) : 0;
    const choose = button('Choose the file', `Choose the file ${record.fileName} again to go on`, () => {
      expected = record;
      $('file').click();
    });
    const discard = button('Discard', `Discard the upload of ${record.fileName}`, async () => {
      await api(`uploads/${record.uploadId}/`, { method: 'DELETE' }).catch((error) => { if (error.status !== 404 && error.status !== 410) throw error; });
      ChunkUploader.forget(record);
      say(`The upload of ${record.fileName} was discarded.`);
      $('upload-heading').focus();
      await showUnfinished();
    });
    discard.className = 'quiet';
    return [row(name, `${stored} % of ${size(record.size)} stored. Choose ${record.fileName} again to go on.`, choose, discard)];
  }));
  $('unfinished-list').replaceChildren(...rows.flat());
  $('unfinished').hidden = rows.flat().length === 0;
}

function take(files) {
  const wanted = expected;
  expected = null;
  const [file] = files;
  if (!file) return;
  if ($('upload').hidden) throw new Error('Sign in first, then choose the file.');
  if (upload) throw new Error('One upload at a time: wait for this one, or cancel it.');
  if (wanted && (file.name !== wanted.fileName || file.size !== wanted.size || file.lastModified !== wanted.lastModified)) {
    throw new Error(`This is not the file that was begun: ${wanted.fileName} with ${number(wanted.size)} bytes, unchanged since. Nothing was sent. Choose that file, or discard the unfinished upload.`);
  }
  begin(file);
}

$('file').addEventListener('change', doing(() => {
  const files = [...$('file').files];
  $('file').value = ''; // so that the same file can be chosen again
  take(files);
}));
$('file').addEventListener('cancel', () => { expected = null; });

for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes('Files')) return;
    event.preventDefault(); // a file dropped beside the zone must not replace the page
    $('drop').classList.toggle('over', name !== 'drop' && name !== 'dragleave' && $('drop').contains(event.target));
    if (name === 'drop') doing(() => take([...event.dataTransfer.files]))();
  });
}

// ---- the upload

function begin(file) {
  const title = $('title').value.trim() || ChunkUploader.unfinished(mount).find((known) => known.fileName === file.name && known.size === file.size)?.note?.title || file.name;
  const current = new ChunkUploader({
    endpoint: mount,
    token,
    file,
    note: { title },
    videoId: async () => (await api('create-video/', { method: 'POST', json: { title } })).id,
  });
  upload = current;
  const mine = (work) => ({ detail }) => { if (upload === current) work(detail); };
  current.addEventListener('progress', mine(showProgress));
  current.addEventListener('state', mine((detail) => showState(detail, file)));
  $('file-name').textContent = title;
  announced = { tenth: 0, at: Date.now() };
  swap([$('transfer')], [$('choose')], $('file-name'));
  current.start().then((result) => { if (upload === current) return finish(result); }).catch(() => {}); // told by the state
}

async function finish({ video_id: id }) {
  upload = null;
  $('title').value = '';
  $('confirm').close('no');
  swap([$('choose')], [$('transfer')], $('upload-heading'));
  await doing(async () => {
    await Promise.all([api('videos/').then(showLibrary), showUnfinished(), watch(await api(`videos/${id}/`))]);
  })();
}

function showState({ state, error, delay }, file) {
  const shown = { pause: ['starting', 'sending', 'waiting'], resume: ['waiting', 'paused', 'failed'] };
  const visible = (name) => shown[name].includes(state);
  const names = Object.keys(shown);
  $('resume').textContent = state === 'waiting' ? 'Try now' : 'Resume';
  swap(names.filter(visible).map($), names.filter((name) => !visible(name)).map($), visible('pause') ? $('pause') : visible('resume') ? $('resume') : $('cancel'));
  $('transfer').classList.toggle('still', ['waiting', 'paused', 'failed'].includes(state));
  $('transfer').dataset.state = state;
  nextTry = state === 'waiting' ? Date.now() + delay : 0;
  if (state !== 'failed') complain(null);
  if (state === 'starting') say('Asking the server what it has already.');
  if (state === 'sending') say(`Uploading ${file.name}.`);
  if (state === 'waiting') say(`The server ${error.status ? 'has a problem' : 'cannot be reached'} at the moment. Trying again by itself; what is stored is not lost.`);
  if (state === 'assembling') say('Everything is sent. The server is putting the video together.');
  if (state === 'paused') say('Paused. You may close the page: choose the same file again to go on.');
  if (state === 'done') say('Done: the video is stored.');
  if (state === 'aborted') say('Cancelled. What was sent is being deleted.');
  if (state === 'failed') {
    say('Stopped. What is stored on the server is kept for now.');
    complain(error);
    if (error.status === 401 && !anonymous) askToSignIn();
  }
}

let announced = { tenth: 0, at: 0 };
let nextTry = 0;

function showProgress({ fraction, sent, confirmed, size: total, speed, secondsLeft, chunks }) {
  const percent = Math.floor(fraction * 100);
  $('progress').value = fraction * 100;
  $('percent').textContent = `${percent} %`;
  $('bytes').textContent = `${size(confirmed)} of ${size(total)} stored`;
  $('speed').textContent = speed ? `${size(speed)}/s` : '–';
  const wait = Math.ceil((nextTry - Date.now()) / 1000);
  $('eta-label').textContent = wait > 0 ? 'Next try in' : 'Time left';
  $('eta').textContent = wait > 0 ? `${wait} s` : secondsLeft && sent < total ? duration(secondsLeft) : '–';
  for (const name of ['stored', 'sending', 'missing']) $(`count-${name}`).textContent = number(chunks[name]);
  Object.assign($('chunks').dataset, chunks);
  $('chunks').setAttribute('aria-label', `Pieces of the file: ${chunks.stored} of ${chunks.total} stored, ${chunks.sending} under way, ${chunks.missing} to go.`);
  draw();
  document.title = upload?.state === 'done' ? 'Videos' : `${percent} % – Videos`;

  const tenth = Math.floor(fraction * 10); // a screen reader hears every tenth, at most every ten seconds
  if (upload?.state === 'sending' && tenth > announced.tenth && Date.now() - announced.at > 10_000) {
    announced = { tenth, at: Date.now() };
    say(`More than ${tenth * 10} % uploaded.`);
  }
}

$('pause').addEventListener('click', () => upload?.pause());
$('resume').addEventListener('click', () => upload?.resume().catch(() => {}));
$('cancel').addEventListener('click', () => $('confirm').showModal());
$('confirm').addEventListener('close', doing(async () => {
  if ($('confirm').returnValue !== 'yes' || !upload) return;
  const cancelled = upload;
  try {
    await cancelled.abort();
    say('Cancelled. What was sent is deleted.');
  } catch (error) {
    error.message = 'Cancelled here, but the server could not be told. It deletes what it has after a while.';
    throw error;
  } finally {
    upload = null;
    document.title = 'Videos';
    swap([$('choose')], [$('transfer')], $('upload-heading'));
    await showUnfinished();
  }
}));

// ---- the map of chunks

/** How `total` chunks fit into `width`: squares `pitch` high and `across` wide, `each` chunks to a square. */
function grid(total, width) {
  const most = 168;
  for (const pitch of [14, 11, 8, 6, 4]) {
    const columns = Math.floor(width / pitch);
    const rows = Math.ceil(total / columns);
    if (rows * pitch <= most) return { columns, rows, pitch, across: width / Math.min(columns, total), each: 1 };
  }
  const columns = Math.floor(width / 4);
  const each = Math.ceil(total / (columns * Math.floor(most / 4)));
  return { columns, rows: Math.ceil(total / each / columns), pitch: 4, across: width / columns, each };
}

function draw() {
  const canvas = $('chunks');
  const states = upload?.chunkStates ?? [];
  const width = canvas.clientWidth;
  if (!width || !states.length) return;
  const { columns, rows, pitch, across, each } = grid(states.length, width);
  const scale = devicePixelRatio;
  const height = rows * pitch;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const style = getComputedStyle(canvas);
  const [missing, sending, stored] = ['--missing', '--sending', '--stored'].map((name) => style.getPropertyValue(name));
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const gap = pitch > 6 ? 2 : 1;
  for (let square = 0; square * each < states.length; square += 1) {
    const members = states.subarray(square * each, (square + 1) * each);
    const done = members.reduce((sum, state) => sum + (state === Chunk.STORED), 0) / members.length;
    const layers = [[missing, 1], [stored, done], [sending, members.includes(Chunk.SENDING) ? 1 : 0]];
    for (const [colour, strength] of layers) {
      if (!strength) continue;
      pen.globalAlpha = strength;
      pen.fillStyle = colour;
      pen.beginPath();
      pen.roundRect((square % columns) * across, Math.floor(square / columns) * pitch, Math.max(1, across - gap), pitch - gap, pitch > 6 ? 2 : 0);
      pen.fill();
    }
  }
}

new ResizeObserver(draw).observe($('chunks').parentElement);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

// ---- watching

function showLibrary(videos) {
  $('library-empty').hidden = videos.length > 0;
  $('library-list').replaceChildren(...videos.toReversed().map((video) => {
    const title = video.title || `Video ${video.id}`;
    if (!video.video_path) return row(title, 'not uploaded yet');
    return row(title, (video.processing_status ?? '').replaceAll('_', ' '), button('Play', `Play ${title}`, () => watch(video)));
  }));
}

/** A video element cannot send a token, so it gets addresses that say themselves who may use them, for a while. */
async function sources(id) {
  const at = `videos/${id}/ticket`;
  const { url, hls, upload_id: uploadId } = await api(at, { method: 'POST' });
  const here = (address) => {
    const found = new URL(address, new URL(`${mount}/${at}`, location.href));
    if (found.origin !== location.origin) throw new Error('The server named a strange address for this video. Tell its operator.');
    return found.href;
  };
  return { file: here(url), hls: hls && here(hls), uploadId };
}

/** Safari plays HLS, and so do Chrome and Chromium since 142; for Firefox a site would add a library like hls.js. */
const playsHls = () => $('player').canPlayType('application/vnd.apple.mpegurl') !== '';

let playing = { over: new AbortController() };

/** Leaves what is on the screen for another video, or for none. */
function turnTo(id) {
  playing.over.abort();
  playing = { id, renewed: 0, on: false, hls: '', over: new AbortController() };
  const player = $('player');
  for (const name of ['src', 'poster']) player.removeAttribute(name);
  player.load();
}

function play(source, kind) {
  const player = $('player');
  player.dataset.kind = kind;
  player.src = source;
  return calm.matches ? undefined : player.play().catch(() => {}); // the browser may want a click first
}

/** What the server still makes of the file, and how far it is; null once that is over. */
function showProcessing(hook) {
  $('processing').hidden = !hook;
  $('processing-bar').hidden = false;
  if (!hook) return;
  const { progress, seconds_left: left } = hook;
  if (progress === null || progress === undefined) $('processing-bar').removeAttribute('value');
  else $('processing-bar').value = progress;
  const time = left ? `, about ${duration(left)} left` : '';
  $('processing-text').textContent = progress ? `The server makes versions for slow and fast connections: ${progress} %${time}.` : 'The server makes versions for slow and fast connections.';
}

/** The picture that was made with the stream; of sound there is none. */
async function showPoster(stream, current) {
  const { href } = new URL('poster.jpg', stream);
  const { ok } = await fetch(href, { method: 'HEAD' }).catch(() => ({}));
  if (ok && current()) $('player').poster = href;
}

/** Plays the stream as soon as its first version is there, and shows how the others come along. */
async function follow(id, { file, hls, uploadId }) {
  let stream = hls;
  const { signal } = playing.over;
  const current = () => !signal.aborted;
  for await (const status of statuses(`${mount}/uploads/${uploadId}/`, headers, signal)) {
    const hook = status.hooks?.find(({ name }) => name === 'hls');
    if (!current()) return;
    showProcessing(hook?.state === 'running' || !playing.hls ? hook ?? {} : null);
    if (!playing.hls) {
      const { ok, status: answered } = await fetch(stream, { method: 'HEAD' }).catch(() => ({}));
      if (!current()) return;
      if (ok) {
        playing.hls = stream;
        if (hook?.state === 'finished') await showPoster(stream, current);
        if (!current()) return;
        await play(stream, 'hls');
      } else if (answered === 403) { // it has expired
        stream = (await sources(id).catch(() => null))?.hls ?? stream;
      }
    }
    if (hook?.state === 'finished' && playing.hls) {
      showProcessing(null);
      if (!$('player').poster) await showPoster(stream, current);
      return;
    }
    if (hook?.state === 'failed') {
      showProcessing(null);
      if (!playing.hls) await play(file, 'file');
      throw new Error(`The server could not make a stream of this video, so you see the file as it is. (${hook.error ?? 'It did not say why.'})`);
    }
  }
  if (current()) showProcessing(null); // it was deleted
}

async function watch(video) {
  turnTo(video.id);
  $('watch-heading').textContent = video.title || `Video ${video.id}`;
  showProcessing(null);
  swap([$('watch')], [], $('watch-heading'));
  $('watch').scrollIntoView({ block: 'nearest', behavior: calm.matches ? 'auto' : 'smooth' });
  const found = await sources(video.id);
  if (playing.id !== video.id) return;
  if (found.hls && playsHls()) doing(() => follow(video.id, found))();
  else await play(found.file, 'file');
  if (found.hls && !playsHls() && playing.id === video.id) {
    $('processing').hidden = false;
    $('processing-bar').hidden = true;
    $('processing-text').textContent = 'This browser plays no HLS streams by itself, so you see the file as it was uploaded; a player such as hls.js would play the stream.';
  }
}

$('player').addEventListener('play', () => { playing.on = true; });
$('player').addEventListener('pause', () => { playing.on = $('player').error ? playing.on : false; }); // an error pauses, too
$('player').addEventListener('error', doing(async () => {
  const player = $('player');
  if (!player.getAttribute('src')) return;
  const { currentTime } = player;
  const { on } = playing;
  if (currentTime > 0 && Date.now() - playing.renewed > 10_000) { // the ticket may have run out
    playing.renewed = Date.now();
    const found = await sources(playing.id);
    player.src = playing.hls ? found.hls : found.file;
    player.currentTime = currentTime;
    if (on) await player.play().catch(() => {});
    return;
  }
  throw new Error('This browser cannot play the file. It is stored on the server all the same.');
}));

// ---- begin

async function open() {
  const given = tokenOfAddress();
  const kept = given || recallToken();
  if (!anonymous && !kept) return askToSignIn();
  try {
    await signIn(kept, given ? () => keepToken(false) : undefined);
  } catch (error) {
    if (!anonymous) askToSignIn();
    complain(error);
  }
}

addEventListener('hashchange', () => { if (location.hash.startsWith('#token=')) open(); });
open();
