// tusc, a Rust crate; ./rust is the program around it.
import { TOKEN } from './lab.mjs';

/** Killed in the middle; another process is given the URL. */
async function tusc(lab) {
  await lab.open();
  const run = (...args) => lab.client(lab.options.rust, lab.endpoint, TOKEN, ...args);
  const first = run('create', lab.video.file);
  await lab.interrupt(first.ended, () => first.kill());
  const { done, resumed } = await run('resume', lab.video.file, first.said.url).done();
  return { interrupted: 'client killed', url: done, resumed };
}

export const clients = { tusc };
