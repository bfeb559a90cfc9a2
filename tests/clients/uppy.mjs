// Uppy's Dashboard with @uppy/tus in a headless Chromium, on a page of another origin.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { TOKEN } from './lab.mjs';

const HERE = import.meta.dirname;

/** The page with all that it needs, at an origin of its own. */
async function serve() {
  const { outputFiles: [script] } = await build({ entryPoints: [path.join(HERE, 'uppy/page.js')], bundle: true, format: 'iife', minify: true, write: false });
  const style = (name) => fs.readFileSync(path.join(HERE, `node_modules/@uppy/${name}/dist/style.min.css`));
  const files = {
    '/': ['text/html; charset=utf-8', fs.readFileSync(path.join(HERE, 'uppy/page.html'))],
    '/page.js': ['text/javascript; charset=utf-8', script.contents],
    '/page.css': ['text/css; charset=utf-8', Buffer.concat([style('core'), style('dashboard')])],
  };
  const server = http.createServer(({ url }, response) => {
    const [type, content] = files[new URL(url, 'http://page').pathname] ?? ['text/plain', 'Not found'];
    response.writeHead(type === 'text/plain' ? 404 : 200, { 'Content-Type': type }).end(content);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.closeAllConnections() ?? server.close() };
}

/** Drops a file onto the page, as a hand would. */
async function drop(page, selector, file) {
  const devtools = await page.context().newCDPSession(page);
  const { x, y, width, height } = await page.locator(selector).boundingBox();
  for (const type of ['dragEnter', 'dragOver', 'drop']) {
    await devtools.send('Input.dispatchDragEvent', { type, x: x + width / 2, y: y + height / 2, data: { items: [], files: [path.resolve(file)], dragOperationsMask: 1 } });
  }
}

/** The video is dropped, the server dies in the middle, the page goes on by itself, and shows the video. */
async function uppy(lab) {
  const pages = await serve();
  await lab.open({ cors: pages.origin });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await browser.newPage({ viewport: { width: 1000, height: 800 } });
    page.setDefaultTimeout(30_000);
    const seen = { resumed: 0, allowed: new Set(), errors: [] };
    page.on('pageerror', (error) => seen.errors.push(String(error)));
    page.on('response', (response) => {
      if (response.request().method() !== 'HEAD') return;
      seen.resumed += Number(response.headers()['upload-offset']);
      seen.allowed.add(response.headers()['access-control-allow-origin']);
    });
    await page.goto(`${pages.origin}/?${new URLSearchParams({ endpoint: lab.endpoint, token: TOKEN })}`);
    await page.waitForSelector('.uppy-Dashboard-AddFiles');
    await drop(page, '.uppy-Dashboard-inner', lab.video.file);
    const outcome = page.waitForFunction(() => globalThis.outcome).then((value) => value.jsonValue());
    await lab.crash(outcome.then(JSON.stringify));
    const { url, failed } = await outcome;
    assert.equal(failed, undefined, 'what the page says of a failure');
    assert.equal(await page.evaluate((where) => globalThis.download(where), url), lab.video.digest, 'sha-256 of what the page downloads');
    await page.waitForFunction(() => {
      const video = document.querySelector('video');
      return video.videoWidth > 0 && video.currentTime > 0.5;
    });
    if (lab.options.screenshot) await page.screenshot({ path: lab.options.screenshot });
    assert.deepEqual([...seen.allowed], [pages.origin], 'the origin that the answers are for');
    assert.deepEqual(seen.errors, [], 'failures of scripts');
    return { interrupted: 'server killed', url, resumed: seen.resumed };
  } finally {
    await browser.close();
    pages.close();
  }
}

export const clients = { uppy };
