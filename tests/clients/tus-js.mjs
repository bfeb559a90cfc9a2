// tus-js-client in Node: tus, and both drafts of the IETF's protocol that it knows.
import fs from 'node:fs';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import * as tus from 'tus-js-client';
import { TOKEN } from './lab.mjs';

/** An upload of the video whose end can be waited for; `resumed` adds up what HEAD answered. */
function upload(lab, input, options) {
  const seen = { resumed: 0 };
  const done = new Promise((resolve, reject) => {
    seen.upload = new tus.Upload(input, {
      endpoint: lab.endpoint,
      headers: { Authorization: `Bearer ${TOKEN}` },
      metadata: { filename: 'talk.mp4', filetype: 'video/mp4' },
      urlStorage: new tus.FileUrlStorage(path.join(lab.work, 'urls.json')),
      ...options,
      onAfterResponse: (request, response) => {
        if (request.getMethod() === 'HEAD') seen.resumed += Number(response.getHeader('Upload-Offset'));
      },
      onSuccess: resolve,
      onError: reject,
    });
  });
  const isTus = options.protocol === undefined;
  seen.done = done.then(() => ({ url: isTus ? seen.upload.url : lab.content(seen.upload.url), resumed: seen.resumed }));
  return seen;
}

/** The client stops in the middle; another one finds the URL that it stored. */
const aborted = (options, open) => async (lab) => {
  await lab.open();
  const first = upload(lab, open(lab.video.file), options);
  first.upload.start();
  await lab.interrupt(first.done, () => first.upload.abort());
  const second = upload(lab, open(lab.video.file), options);
  const [previous] = await second.upload.findPreviousUploads();
  second.upload.resumeFromPreviousUpload(previous);
  second.upload.start();
  return { interrupted: 'client aborted', ...(await second.done) };
};

/** The server dies in the middle; the client goes on by itself. */
const killed = (options, open) => async (lab) => {
  await lab.open();
  const one = upload(lab, open(lab.video.file), options);
  one.upload.start();
  await lab.crash(one.done);
  return { interrupted: 'server killed', ...(await one.done) };
};

const file = (name) => fs.createReadStream(name);
// With a file in Node this client never says, once it has resumed, that its request is the last one.
const buffer = (name) => fs.readFileSync(name);
const stream = (name) => fs.createReadStream(name).pipe(new PassThrough());

export const clients = {
  'tus-js-client': aborted({}, file),
  'tus-js-client, server killed': killed({}, file),
  'tus-js-client, parallelUploads 3': aborted({ parallelUploads: 3 }, file),
  'tus-js-client, parallelUploads 3, server killed': killed({ parallelUploads: 3, chunkSize: 4 << 20 }, file),
  'tus-js-client, uploadLengthDeferred': killed({ uploadLengthDeferred: true, chunkSize: 24 << 20 }, stream),
  'tus-js-client, uploadDataDuringCreation': aborted({ uploadDataDuringCreation: true, chunkSize: 24 << 20 }, file),
  'tus-js-client, ietf-draft-03': aborted({ protocol: 'ietf-draft-03' }, buffer),
  'tus-js-client, ietf-draft-03, server killed': killed({ protocol: 'ietf-draft-03' }, buffer),
  'tus-js-client, ietf-draft-05': aborted({ protocol: 'ietf-draft-05' }, buffer),
  'tus-js-client, ietf-draft-05, server killed': killed({ protocol: 'ietf-draft-05', chunkSize: 24 << 20 }, buffer),
  'tus-js-client, ietf-draft-05, uploadDataDuringCreation': aborted({ protocol: 'ietf-draft-05', uploadDataDuringCreation: true, chunkSize: 24 << 20 }, buffer),
};
