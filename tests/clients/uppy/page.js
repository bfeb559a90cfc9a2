import Uppy from '@uppy/core';
import Dashboard from '@uppy/dashboard';
import Tus from '@uppy/tus';

const asked = new URLSearchParams(location.search);
const headers = { Authorization: `Bearer ${asked.get('token')}` };

new Uppy({ autoProceed: true })
  .use(Dashboard, { inline: true, target: '#drop', width: 900, height: 420 })
  .use(Tus, { endpoint: asked.get('endpoint'), headers })
  .on('complete', ({ successful: [file], failed: [broken] }) => {
    globalThis.outcome = broken ? { failed: broken.error } : { url: file.uploadURL };
  });

/** Shows what is stored, and answers its SHA-256. */
globalThis.download = async (url) => {
  const answer = await fetch(url, { headers });
  if (!answer.ok) throw new Error(`GET answers ${answer.status}`);
  const blob = await answer.blob();
  const video = document.querySelector('video');
  video.src = URL.createObjectURL(blob);
  await video.play();
  const digest = await crypto.subtle.digest('SHA-256', await blob.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
};
