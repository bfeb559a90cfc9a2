// Drives the example's page in a real Chromium, as a person would: kills the server in the middle of an upload, closes
// the browser in the middle of another, uses the keyboard only, and compares what was stored byte by byte.
//
//     npm install --no-package-lock
//     node page.mjs --server PATH_TO_EXAMPLE --work DIR [--video FILE] [--screenshot FILE] [--hls]
//
// With --hls, which needs an example that was built with the feature ffmpeg, only this: a video becomes a stream, the server is
// killed while it is made, and the stream plays before it is whole. Without --video, ffmpeg makes one. CHROMIUM names another browser than /usr/bin/chromium. One line per check; the
// last line is `N passed, N failed`, and the exit code says the same.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values: options } = parseArgs({ options: { server: { type: 'string' }, work: { type: 'string' }, video: { type: 'string' }, screenshot: { type: 'string' }, hls: { type: 'boolean' } } });
if (!options.server || !options.work) {
  console.error('usage: node page.mjs --server PATH --work DIR [--video FILE] [--screenshot FILE]');
  process.exit(2);
}

const TOKEN = 'demo';
const MOUNT = '/api/streaming';
const MINUTE = 60_000;

// Upload speeds, so that an interruption lands in the middle however busy the machine is.
const SECONDS_PER_UPLOAD = 60;
const HOLD = 2000; // bytes per second: as good as standing still
const FREE = -1;

// ---- checks

let passed = 0;
let failed = 0;

function report(good, name, detail = '') {
  if (good) passed += 1;
  else failed += 1;
  console.log(`${good ? 'ok  ' : 'FAIL'} ${name}${detail && !good ? `: ${detail}` : ''}`);
}

async function check(name, work) {
  try {
    await work();
    report(true, name);
  } catch (error) {
    report(false, name, String(error.message).split('\n').slice(0, 8).join(' | '));
  }
}

/** A group of checks; when a step between them fails, the rest of the group cannot be judged and counts as one failure. */
async function scenario(name, work) {
  console.log(`# ${name}`);
  try {
    await work();
  } catch (error) {
    report(false, `${name}: stopped early`, String(error.stack ?? error));
  }
}

// ---- the server

const server = {
  data: path.join(options.work, 'data'),
  address: '127.0.0.1:0',
  child: null,

  async start() {
    const log = fs.openSync(path.join(options.work, 'server.log'), 'a');
    this.child = spawn(path.resolve(options.server), ['--listen', this.address, '--data', this.data, '--token', `${TOKEN}=alice`, ...(options.hls ? ['--hls'] : [])], { stdio: ['ignore', 'pipe', log] });
    fs.closeSync(log);
    const child = this.child;
    const base = await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error('the server did not say "listening on http://ADDR" within 20 s')), 20_000);
      child.once('error', reject);
      child.once('exit', (code, signal) => reject(new Error(`the server ended early (${code ?? signal}); see server.log`)));
      createInterface({ input: child.stdout }).on('line', (line) => {
        const found = /listening on (http:\/\/\S+)/.exec(line);
        if (!found) return;
        clearTimeout(late);
        resolve(found[1].replace(/\/$/, ''));
      });
    });
    child.removeAllListeners('exit');
    this.base = base;
    this.address = new URL(base).host; // the same port next time
  },

  async end(signal) {
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await gone;
    clearTimeout(late);
  },

  async api(where, init = {}) {
    const answer = await fetch(`${this.base}${MOUNT}/${where}`, { ...init, headers: { Authorization: `Bearer ${TOKEN}`, ...init.headers } });
    return { status: answer.status, body: answer.status === 204 ? null : await answer.json() };
  },

  async video(title) {
    const { body } = await this.api('videos/');
    const found = body.data.filter((video) => video.title === title);
    assert.equal(found.length, 1, `one video titled "${title}" in the list, not ${found.length}`);
    return found[0];
  },

  /** The address of the stream. */
  async hls(title) {
    const { id } = await this.video(title);
    const { body } = await this.api(`videos/${id}/ticket`, { method: 'POST' });
    return new URL(body.data.hls, this.base);
  },

  async ticket(id) {
    const { status, body } = await this.api(`videos/${id}/ticket`, { method: 'POST' });
    assert.ok(status === 200 || status === 201, `ticket answered ${status}`);
    return new URL(body.data.url, `${this.base}${MOUNT}/videos/${id}/ticket`);
  },
};

async function digest(stream) {
  const hash = createHash('sha256');
  await pipeline(stream, hash);
  return hash.digest('hex');
}

/** The stored video titled `title` is `file`, byte by byte: as served, and on disk where the layout shows it. */
async function assertSame(title, file) {
  const video = await server.video(title);
  const want = await digest(fs.createReadStream(file));
  const answer = await fetch(await server.ticket(video.id));
  assert.equal(answer.status, 200);
  assert.equal(await digest(answer.body), want, 'sha-256 of the download');
  const stored = path.join(server.data, 'blobs', video.video_path);
  if (fs.existsSync(stored)) assert.equal(await digest(fs.createReadStream(stored)), want, `sha-256 of ${video.video_path} on disk`);
}

// ---- the browser

/** Opens the page in a browser with its own profile; what it does on the network is written down in `seen`. */
async function browse(profile, media = {}) {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    viewport: { width: 1000, height: 900 },
    locale: 'en-GB',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ...media,
  });
  context.setDefaultTimeout(20_000);
  const page = context.pages()[0] ?? (await context.newPage());
  const seen = { begun: [], acknowledged: [], listened: [], asked: [], total: 0, strangers: [], errors: [] };
  const index = (request) => (request.method() === 'PUT' ? /\/chunks\/(\d+)$/.exec(new URL(request.url()).pathname)?.[1] : undefined);
  page.on('request', (request) => {
    if (!request.url().startsWith(`${server.base}/`) && !/^(data|blob|about):/.test(request.url())) seen.strangers.push(request.url());
    if (index(request) !== undefined) seen.begun.push(Number(index(request)));
    if (request.method() === 'GET' && /\/uploads\/[^/]+\/events$/.test(new URL(request.url()).pathname)) seen.listened.push(request);
    if (request.method() === 'GET' && /\/uploads\/[^/]+\/$/.test(new URL(request.url()).pathname)) seen.asked.push(request.url());
  });
  page.on('response', async (response) => {
    if (index(response.request()) !== undefined && response.status() === 200) seen.acknowledged.push(Number(index(response.request())));
  });
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) seen.errors.push(message.text());
  });
  page.on('filechooser', () => {}); // from now on the browser opens no chooser of its own
  const devtools = await context.newCDPSession(page);
  await devtools.send('Network.enable');
  const throttle = (bytesPerSecond) => devtools.send('Network.emulateNetworkConditions', { offline: false, latency: 5, downloadThroughput: -1, uploadThroughput: bytesPerSecond });
  await page.goto(`${server.base}/`);
  return { context, page, seen, devtools, throttle };
}

async function signIn(page, token = TOKEN) {
  await page.fill('#token', token);
  await page.click('#sign-in');
  await page.waitForSelector('#drop', { state: 'visible' });
}

const chunks = (page) => page.$eval('#chunks', ({ dataset: { total, stored } }) => ({ total: Number(total), stored: Number(stored) }));
const state = (page, wanted) => page.waitForSelector(`#transfer[data-state="${wanted}"]`, { state: 'attached' });
const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());

/** Until `percent` are sent, some chunk is stored and some is not. */
async function midway(page, percent = 30) {
  await page.waitForFunction((least) => {
    const { stored, total } = document.getElementById('chunks').dataset;
    return document.getElementById('progress').value >= least && Number(stored) > 0;
  }, percent, { polling: 100, timeout: 3 * MINUTE });
  const { total, stored } = await chunks(page);
  assert.ok(stored < total, 'the upload was over before it could be interrupted: take a larger --video');
  return { total, stored };
}

async function finished(page) {
  await page.waitForFunction(() => {
    const error = document.getElementById('error');
    if (!error.hidden) throw new Error(`the page shows an error: ${error.textContent}`);
    return !document.getElementById('watch').hidden && /^Done/.test(document.getElementById('status').textContent);
  }, null, { polling: 250, timeout: 3 * MINUTE });
}

async function assertPlays(page) {
  const at = await page.$eval('#player', async (player) => {
    player.muted = true; // what is muted needs no click
    await player.play();
    return player.currentTime;
  });
  await page.waitForFunction((before) => {
    const player = document.getElementById('player');
    return player.videoWidth > 0 && player.currentTime > before + 0.5;
  }, at);
}

/** Presses Tab until the focus is on `#id`. */
async function tabTo(page, id) {
  const places = [];
  for (let steps = 0; steps < 40; steps += 1) {
    places.push(await page.evaluate(() => document.activeElement.id || document.activeElement.tagName));
    if (places.at(-1) === id) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab never reached #${id}, only ${[...new Set(places)].join(', ')} (status: ${await text(page, '#status')})`);
}

// ---- accessibility

const NAMED = new Set(['button', 'checkbox', 'combobox', 'dialog', 'image', 'link', 'progressbar', 'radio', 'slider', 'textbox', 'video']);

async function assertNamed({ devtools }) {
  const { nodes } = await devtools.send('Accessibility.getFullAXTree');
  const nameless = nodes.filter((node) => !node.ignored && NAMED.has(node.role?.value?.toLowerCase()) && !node.name?.value);
  assert.deepEqual(nameless.map((node) => node.role.value), [], 'controls without a name');
}

/** Tab reaches everything that can be operated, and each shows that it has the focus. */
async function assertTabOrder({ page }) {
  const all = await page.evaluate(() => {
    document.activeElement.blur();
    getSelection().removeAllRanges();
    const usable = [...document.querySelectorAll('button, input, a[href], video[controls]')].filter((element) => !element.disabled && element.checkVisibility() && element.tabIndex >= 0);
    usable.forEach((element, place) => { element.dataset.place = place; });
    return usable.map((element) => element.id || element.textContent);
  });
  const reached = new Set();
  const unseen = [];
  for (let steps = 0; steps < all.length * 2 + 20 && reached.size < all.length; steps += 1) {
    await page.keyboard.press('Tab');
    const { place, outline } = await page.evaluate(() => {
      const element = document.activeElement;
      const shown = element.id === 'file' ? document.getElementById('drop') : element;
      return { place: element.dataset.place, outline: getComputedStyle(shown).outlineStyle };
    });
    if (place === undefined) continue;
    reached.add(Number(place));
    if (outline === 'none' && all[place] !== 'player') unseen.push(all[place]); // the browser's own controls show it themselves
  }
  assert.deepEqual(all.filter((_, place) => !reached.has(place)), [], 'not reached with Tab');
  assert.deepEqual(unseen, [], 'no sign of the focus on');
}

/** WCAG AA: 4.5 to 1, or 3 to 1 for large text. */
async function assertContrast({ page }) {
  const poor = await page.evaluate(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = channels(getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] === 1) return colour;
      }
      return [255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
      const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      if (!own || !element.checkVisibility() || element.matches('script, noscript *')) continue;
      const style = getComputedStyle(element);
      const [a, b] = [light(channels(style.color)), light(ground(element))].sort((x, y) => y - x);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < (large ? 3 : 4.5)) found.push(`${element.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
    }
    return found;
  });
  assert.deepEqual(poor, [], 'too little contrast');
}

/** In both colour schemes, and on a phone. */
async function assertLooks({ page }) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await assertContrast({ page });
    const moving = await page.$$eval('body *', (elements) => elements.filter((element) => parseFloat(getComputedStyle(element).transitionDuration) > 0).length);
    assert.equal(moving, 0, 'transitions though less motion is asked for');
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'no-preference' });
  const size = page.viewportSize();
  for (const width of [375, 320]) {
    await page.setViewportSize({ width, height: 700 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${wide} px wide on a screen of ${width} px`);
  }
  await page.setViewportSize(size);
}

async function accessible(where, tab) {
  await check(`${where}: every control has a name`, () => assertNamed(tab));
  await check(`${where}: Tab reaches all, and shows where it is`, () => assertTabOrder(tab));
  await check(`${where}: contrast, less motion, narrow screens`, () => assertLooks(tab));
}

// ---- scenarios

async function killedServer(file, speed) {
  const tab = await browse(path.join(options.work, 'profile-1'));
  const { context, page, seen, throttle } = tab;
  try {
    await accessible('sign-in', tab);
    await check('a wrong token is refused in words', async () => {
      await page.fill('#token', 'wrong');
      await page.click('#sign-in');
      await page.waitForSelector('#error', { state: 'visible' });
      assert.match(await text(page, '#error'), /token/i);
      assert.equal(await page.isVisible('#token'), true);
    });
    await signIn(page);
    await check('signing in clears the error', async () => assert.equal(await page.isVisible('#error'), false));
    await accessible('choosing', tab);
    await check('the page has landmarks, a language and live regions', async () => {
      const facts = await page.evaluate(() => [document.documentElement.lang, document.querySelectorAll('main').length, document.querySelectorAll('h1').length,
        document.getElementById('status').ariaLive, document.getElementById('error').role, document.querySelectorAll('[style], script:not([src]), style').length]);
      assert.deepEqual(facts, ['en', 1, 1, 'polite', 'alert', 0]);
    });

    await page.evaluate(() => {
      window.spoken = 0;
      new MutationObserver(() => { window.spoken += 1; }).observe(document.getElementById('status'), { childList: true, characterData: true, subtree: true });
    });
    await throttle(speed);
    await page.fill('#title', 'Killed server');
    await page.setInputFiles('#file', file);
    const before = await midway(page);
    if (options.screenshot) await page.screenshot({ path: options.screenshot, fullPage: true });
    await check('speed and time left are shown', async () => {
      assert.match(await text(page, '#speed'), /\d.*\/s$/);
      assert.match(await text(page, '#eta'), /\d+ (s|min|h)/);
    });
    const safe = new Set(seen.acknowledged);
    await server.end('SIGKILL');
    await check('the kill landed in the middle', () => assert.ok(seen.begun.length > seen.acknowledged.length && safe.size < before.total, `${seen.begun.length} begun, ${safe.size} of ${before.total} acknowledged`));
    await check('without a server the page waits, and says so', async () => {
      await state(page, 'waiting');
      await sleep(2000);
      await state(page, 'waiting');
      assert.match(await text(page, '#status'), /cannot be reached.*not lost/);
      assert.equal(await page.isVisible('#error'), false);
    });
    await throttle(FREE);
    await server.start();
    await check('after the restart it finishes by itself', () => finished(page));
    await check('no acknowledged chunk was sent again', () => {
      const twice = [...safe].filter((index) => seen.acknowledged.filter((each) => each === index).length > 1);
      assert.deepEqual(twice, []);
    });
    await check('the stored file is byte-identical', () => assertSame('Killed server', file));
    await check('the video plays', () => assertPlays(page));
    await check('a part of the video can be asked for', async () => {
      const { id } = await server.video('Killed server');
      const answer = await fetch(await server.ticket(id), { headers: { Range: 'bytes=10-19' } });
      const bytes = Buffer.from(await answer.arrayBuffer());
      const want = Buffer.alloc(10);
      const handle = fs.openSync(file);
      fs.readSync(handle, want, 0, 10, 10);
      fs.closeSync(handle);
      assert.equal(answer.status, 206);
      assert.ok(bytes.equals(want), 'other bytes');
    });
    await check('a forged ticket is refused', async () => {
      const { id } = await server.video('Killed server');
      const url = await server.ticket(id);
      for (const [name, value] of url.searchParams) url.searchParams.set(name, `${value.slice(0, -1)}${value.endsWith('0') ? '1' : '0'}`);
      const { status } = await fetch(url);
      assert.ok([401, 403, 404].includes(status), `answered ${status}`);
    });
    await check('the status is not chatty', async () => assert.ok((await page.evaluate(() => window.spoken)) <= 15));
    await accessible('watching', tab);
    await check('"My videos" plays it again', async () => {
      await page.reload();
      await page.click('#library-list button');
      await page.waitForSelector('#player', { state: 'visible' });
      await assertPlays(page);
    });
    await check('nothing was asked of another server, no script failed', () => assert.deepEqual([seen.strangers, seen.errors], [[], []]));
  } finally {
    await context.close();
  }
}

async function closedBrowser(file, speed) {
  const profile = path.join(options.work, 'profile-2');
  let tab = await browse(profile);
  let before;
  try {
    await signIn(tab.page);
    await tab.throttle(speed);
    await tab.page.fill('#title', 'Closed browser');
    await tab.page.setInputFiles('#file', file);
    before = await midway(tab.page);
  } finally {
    await tab.context.close();
  }
  tab = await browse(profile);
  const { context, page, seen } = tab;
  try {
    await check('the token did not outlive the browser', async () => assert.equal(await page.isVisible('#token'), true));
    await signIn(page);
    await check('the unfinished upload is offered', async () => {
      await page.waitForSelector('#unfinished', { state: 'visible' });
      const offered = await text(page, '#unfinished');
      assert.ok(offered.includes('Closed browser') && offered.includes(path.basename(file)), offered);
    });
    await accessible('an unfinished upload', tab);
    await check('another file is not taken for it', async () => {
      const other = path.join(options.work, 'other.mp4');
      fs.writeFileSync(other, 'not that film');
      const choosing = page.waitForEvent('filechooser');
      await page.click('#unfinished-list button');
      await (await choosing).setFiles(other);
      await page.waitForSelector('#error', { state: 'visible' });
      assert.match(await text(page, '#error'), /not the file/);
    });
    const choosing = page.waitForEvent('filechooser');
    await page.click('#unfinished-list button');
    await (await choosing).setFiles(file);
    await check('with the same file it goes on to the end', () => finished(page));
    await check('only what was missing was sent', () => {
      const sent = new Set(seen.begun).size;
      assert.ok(sent > 0 && sent <= before.total - before.stored, `${sent} chunks sent, though ${before.stored} of ${before.total} were stored`);
    });
    await check('the file of two browsers is byte-identical', () => assertSame('Closed browser', file));
    await check('nothing is left to offer', async () => assert.equal(await page.isVisible('#unfinished'), false));
    await check('no script failed', () => assert.deepEqual(seen.errors, []));
  } finally {
    await context.close();
  }
}

async function keyboardOnly(file, speed) {
  const tab = await browse(path.join(options.work, 'profile-3'));
  const { context, page, seen, throttle } = tab;
  const { keyboard } = page;
  try {
    await tabTo(page, 'token');
    await keyboard.type(TOKEN);
    await keyboard.press('Enter');
    await page.waitForSelector('#drop', { state: 'visible' });
    await throttle(speed);
    await tabTo(page, 'title');
    await keyboard.type('Keyboard');
    await tabTo(page, 'file');
    const choosing = page.waitForEvent('filechooser');
    await keyboard.press('Enter');
    await (await choosing).setFiles(file);
    await midway(page, 10);
    await throttle(HOLD);
    await check('sending: every control has a name', () => assertNamed(tab));
    await tabTo(page, 'pause');
    await keyboard.press('Enter');
    await check('Pause stops the sending', async () => {
      await state(page, 'paused');
      await sleep(500);
      const count = seen.begun.length;
      const { stored } = await chunks(page);
      await sleep(1500);
      assert.equal(seen.begun.length, count);
      assert.equal((await chunks(page)).stored, stored);
      assert.match(await text(page, '#status'), /^Paused/);
    });
    await check('the focus has moved to Resume', async () => assert.equal(await page.evaluate(() => document.activeElement.id), 'resume'));
    await accessible('paused', tab);
    await tabTo(page, 'resume');
    await keyboard.press('Space');
    await check('Resume goes on, and the focus is on Pause', async () => {
      await state(page, 'sending');
      assert.equal(await page.evaluate(() => document.activeElement.id), 'pause');
    });
    await tabTo(page, 'cancel');
    await keyboard.press('Enter');
    await check('Cancel asks first, and Escape keeps the upload', async () => {
      await page.waitForSelector('#confirm', { state: 'visible' });
      await assertNamed(tab);
      await assertContrast(tab);
      await keyboard.press('Escape');
      await page.waitForSelector('#confirm', { state: 'hidden' });
      await state(page, 'sending');
    });
    await throttle(FREE);
    await check('it finishes', () => finished(page));
    await check('the file sent by keyboard is byte-identical', () => assertSame('Keyboard', file));
    await check('no script failed', () => assert.deepEqual(seen.errors, []));
  } finally {
    await context.close();
  }
}

async function smallThings(file, speed) {
  const tab = await browse(path.join(options.work, 'profile-4'));
  const { context, page, seen, throttle } = tab;
  try {
    await check('a token in the address signs in and leaves the address', async () => {
      await page.goto('about:blank'); // a change of the fragment alone would not load the page
      await page.goto(`${server.base}/#token=${TOKEN}`);
      await page.waitForSelector('#drop', { state: 'visible' });
      assert.equal(await page.evaluate(() => location.hash), '');
    });
    await check('a reload keeps the sign-in', async () => {
      await page.reload();
      await page.waitForSelector('#drop', { state: 'visible' });
    });
    await check('an empty file is stored', async () => {
      const empty = path.join(options.work, 'empty.mp4');
      fs.writeFileSync(empty, '');
      await page.fill('#title', 'Empty');
      await page.setInputFiles('#file', empty);
      await page.waitForFunction(() => /^Done/.test(document.getElementById('status').textContent), null, { timeout: MINUTE });
      await assertSame('Empty', empty);
    });
    await check('a cancelled upload is deleted', async () => {
      await throttle(speed);
      await page.fill('#title', 'Cancelled');
      const created = page.waitForResponse((answer) => answer.request().method() === 'POST' && new URL(answer.url()).pathname.replace(/\/$/, '') === `${MOUNT}/uploads`);
      await page.setInputFiles('#file', file);
      const { upload_id: id } = (await (await created).json()).data;
      await midway(page, 10);
      await throttle(HOLD);
      await page.click('#cancel');
      await page.click('#confirm-yes');
      await page.waitForFunction(() => document.getElementById('status').textContent === 'Cancelled. What was sent is deleted.');
      const { status, body } = await server.api(`uploads/${id}/`);
      assert.ok(status === 404 || status === 410 || body.data.state === 'aborted', `its status still answers ${status}`);
      assert.equal(await page.isVisible('#unfinished'), false);
    });
    await check('signing out forgets the token', async () => {
      await page.click('#sign-out');
      await page.reload();
      assert.equal(await page.isVisible('#token'), true);
    });
    await check('no script failed', () => assert.deepEqual(seen.errors, []));
  } finally {
    await context.close();
  }
}

/** The names of the renditions that a master playlist lists. */
async function renditions(title) {
  const answer = await fetch(await server.hls(title));
  if (answer.status === 404) return [];
  assert.equal(answer.status, 200);
  return (await answer.text()).split('\n').filter((line) => line && !line.startsWith('#')).map((line) => line.split('/')[0].split('-')[0]);
}

async function hook(title) {
  const { id } = await server.video(title);
  const { body } = await server.api(`videos/${id}/ticket`, { method: 'POST' });
  const status = await server.api(`uploads/${body.data.upload_id}/`);
  return status.body.data.hooks.find(({ name }) => name === 'hls');
}

async function until(what, work, patience = 5 * MINUTE) {
  for (const end = Date.now() + patience; Date.now() < end; await sleep(250)) if (await work()) return;
  assert.fail(`${what}: not within ${patience / 1000} s`);
}

async function streamed(file, speed) {
  const tab = await browse(path.join(options.work, 'profile-5'));
  const { context, page, seen, throttle } = tab;
  const title = 'Stream';
  try {
    await signIn(page);
    await throttle(speed);
    await page.fill('#title', title);
    // Dropped, as a person does it.
    const dropped = await page.evaluateHandle(() => new DataTransfer());
    const input = await page.evaluateHandle(() => Object.assign(document.createElement('input'), { type: 'file', id: 'dropped' }));
    await input.evaluate((element) => document.body.append(element));
    await page.setInputFiles('#dropped', file);
    await dropped.evaluate((transfer) => { transfer.items.add(document.getElementById('dropped').files[0]); document.getElementById('dropped').remove(); });
    await page.dispatchEvent('#drop', 'drop', { dataTransfer: dropped });
    await midway(page);
    await server.end('SIGKILL');
    await state(page, 'waiting');
    await throttle(FREE);
    await server.start();
    await check('a dropped file is uploaded, across a kill of the server', () => finished(page));
    await check('the page shows that the server is at work', () => page.waitForSelector('#processing', { state: 'visible' }));
    await until('the hook runs', async () => (await hook(title))?.state === 'running');
    await check('the page is told how far the server is, and does not ask', async () => {
      await until('something is told', async () => /\d %/.test(await text(page, '#processing-text')));
      const { length } = seen.asked;
      const said = await text(page, '#processing-text');
      await until('more is told', async () => (await text(page, '#processing-text')) !== said);
      assert.equal(seen.asked.length, length);
      assert.equal((await seen.listened.at(-1).allHeaders()).authorization, `Bearer ${TOKEN}`);
    });
    const address = await server.hls(title);
    const heard = seen.listened.length;
    await server.end('SIGKILL');
    await sleep(1000);
    await server.start();
    await check('an address that was given out before the kill is known', async () => assert.ok([200, 404].includes((await fetch(address)).status)));
    await check('the page listens again', () => until('it does', async () => seen.listened.length > heard));
    await check('after a kill while it is made the stream plays before it is whole', async () => {
      await page.waitForFunction(() => document.getElementById('player').dataset.kind === 'hls', null, { polling: 250, timeout: 5 * MINUTE });
      const still = await hook(title);
      assert.equal(still?.state, 'running', `the hook is ${still?.state}: take a longer --video`);
      await assertPlays(page);
      console.log(`     playing ${(await renditions(title)).join(', ')} at ${(await hook(title)).progress ?? '?'} %`);
    });
    if (options.screenshot) await page.screenshot({ path: options.screenshot, fullPage: true });
    await accessible('watching while it is made', tab);
    await check('in the end there are several renditions, each listed once', async () => {
      await until('the hook ends', async () => ['finished', 'failed'].includes((await hook(title))?.state), 8 * MINUTE);
      assert.equal((await hook(title)).state, 'finished', (await hook(title)).error);
      const listed = await renditions(title);
      assert.ok(listed.length > 1 && new Set(listed).size === listed.length, listed.join(', '));
      await page.waitForSelector('#processing', { state: 'hidden' });
    });
    await check('it still plays', () => assertPlays(page));
    await check('nothing listens to what is finished', async () => {
      const before = [seen.listened.length, seen.asked.length];
      await sleep(4000);
      assert.deepEqual([seen.listened.length, seen.asked.length], before);
    });
    await check('where no events come through the page asks, and the picture stands before a finished stream', async () => {
      await page.emulateMedia({ reducedMotion: 'reduce' }); // nothing plays by itself
      await page.route('**/events', (route) => route.abort());
      await page.reload();
      const { length } = seen.asked;
      await page.click('#library-list button');
      await page.waitForFunction(() => document.getElementById('player').dataset.kind === 'hls');
      assert.ok(seen.asked.length > length, 'it did not ask');
      const [width, height] = await page.$eval('#player', async ({ poster }) => {
        const picture = Object.assign(new Image(), { src: poster });
        await picture.decode();
        return [picture.naturalWidth, picture.naturalHeight];
      });
      assert.ok(width > 0 && width * 9 === height * 16, `${width} × ${height}`);
      await page.unroute('**/events');
      await page.emulateMedia({ reducedMotion: 'no-preference' });
      await assertPlays(page);
    });
    await check('the original is byte-identical', () => assertSame(title, file));
    await check('nothing was asked of another server, no script failed', () => assert.deepEqual([seen.strangers, seen.errors], [[], []]));
  } finally {
    await context.close();
  }
}

// ---- all of it

function testVideo() {
  const file = path.join(options.work, 'talk.mp4');
  const [seconds, rate] = options.hls ? ['90', '8M'] : ['16', '40M'];
  const made = spawnSync('ffmpeg', ['-v', 'error', '-y', '-f', 'lavfi', '-i', 'testsrc2=size=1280x720:rate=30', '-f', 'lavfi', '-i', 'sine', '-t', seconds,
    '-c:v', 'libx264', '-preset', 'ultrafast', '-b:v', rate, '-maxrate', rate, '-bufsize', rate, '-x264-params', 'nal-hrd=cbr', '-pix_fmt', 'yuv420p', '-movflags', '+faststart', file], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`ffmpeg could not make a video (${made.error?.message ?? made.stderr}); pass one with --video`);
  return file;
}

const tooLong = setTimeout(() => {
  console.log('FAIL everything within 15 minutes');
  if (server.child?.exitCode === null) server.child.kill('SIGKILL');
  console.log(`${passed} passed, ${failed + 1} failed`);
  process.exit(1);
}, 15 * MINUTE);

fs.mkdirSync(options.work, { recursive: true });
for (const left of ['data', 'server.log', 'profile-1', 'profile-2', 'profile-3', 'profile-4', 'profile-5']) fs.rmSync(path.join(options.work, left), { recursive: true, force: true });
try {
  const file = path.resolve(options.video ?? testVideo());
  const speed = Math.ceil(fs.statSync(file).size / SECONDS_PER_UPLOAD);
  await server.start();
  if (options.hls) {
    await scenario('a video becomes a stream', () => streamed(file, speed));
  } else {
    await scenario('the server is killed in the middle', () => killedServer(file, speed));
    await scenario('the browser is closed in the middle', () => closedBrowser(file, speed));
    await scenario('the keyboard alone', () => keyboardOnly(file, speed));
    await scenario('small things', () => smallThings(file, speed));
  }
} catch (error) {
  report(false, 'setting up', String(error.message));
} finally {
  await server.end('SIGTERM');
  clearTimeout(tooLong);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
