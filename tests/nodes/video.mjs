// Uploads a file by tus-js-client, as a page would: node video.mjs ENDPOINT TOKEN FILE. Says `again` for each request that is
// tried once more, and `done URL`.
import fs from 'node:fs';
import * as tus from 'tus-js-client';

const [endpoint, token, file] = process.argv.slice(2);
const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { filename: 'talk.mp4', filetype: 'video/mp4' },
  chunkSize: 6 << 20,
  retryDelays: Array(60).fill(500),
  onShouldRetry: () => { console.log('again'); return true; },
  onSuccess: () => console.log(`done ${upload.url}`),
  onError(error) { console.error(String(error)); process.exit(1); },
});
upload.start();
