// tuspy and aiotus, in a virtual environment.
import path from 'node:path';
import { TOKEN } from './lab.mjs';

const run = (lab, script, ...args) =>
  lab.client(lab.options.python, path.join(import.meta.dirname, 'python', script), lab.endpoint, TOKEN, lab.video.file, ...args);

const finished = async (client, interrupted) => {
  const { done, resumed } = await client.done();
  return { interrupted, url: done, resumed };
};

/** Killed in the middle; another process finds the URL that it stored. */
async function tuspy(lab) {
  await lab.open();
  const storage = path.join(lab.work, 'urls.json');
  const first = run(lab, 'tuspy_client.py', storage);
  await lab.interrupt(first.ended, () => first.kill());
  return finished(run(lab, 'tuspy_client.py', storage), 'client killed');
}

/** Every chunk has a checksum, so none counts in part. */
async function tuspyChecksums(lab) {
  await lab.open();
  const client = run(lab, 'tuspy_client.py', path.join(lab.work, 'urls.json'), 'checksum');
  await lab.crash(client.ended);
  return finished(client, 'server killed');
}

const aiotus = (...parts) => async (lab) => {
  await lab.open({ absolute: true });
  const client = run(lab, 'aiotus_client.py', ...parts);
  await lab.crash(client.ended);
  return finished(client, 'server killed');
};

export const clients = {
  tuspy,
  'tuspy, checksums': tuspyChecksums,
  aiotus: aiotus(),
  'aiotus, upload_multiple of 3': aiotus('3'),
};
