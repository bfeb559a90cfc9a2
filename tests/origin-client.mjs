// Runs the documented client: `node origin-client.mjs ORIGIN TOKEN VIDEO FILE`.
import { openAsBlob } from 'node:fs';
import path from 'node:path';

const [origin, token, video, where] = process.argv.slice(2);

// What a page gives it: addresses relative to the page, and a progress bar.
const { fetch: fetchAbsolute } = globalThis;
globalThis.fetch = (url, options) => fetchAbsolute(new URL(url, origin), options);
const updateProgressBar = (progress) => console.log(`progress ${progress}`);

// ---- as documented, not a letter changed

async function uploadVideoInChunks(file, videoId) {
  const CHUNK_SIZE = 5 * 1024 * 1024; // 5MB chunks
  const totalChunks = Math.ceil(file.size / CHUNK_SIZE);
  
  for (let chunkIndex = 0; chunkIndex < totalChunks; chunkIndex++) {
    const start = chunkIndex * CHUNK_SIZE;
    const end = Math.min(start + CHUNK_SIZE, file.size);
    const chunk = file.slice(start, end);
    
    const formData = new FormData();
    formData.append('chunk', chunk);
    formData.append('videoId', videoId);
    formData.append('chunkIndex', chunkIndex);
    formData.append('totalChunks', totalChunks);
    formData.append('fileName', file.name);
    
    const response = await fetch('/api/streaming/upload-chunk/', {
      method: 'POST',
      headers: {
        'Authorization': `Bearer ${token}`
      },
      body: formData
    });
    
    const result = await response.json();
    console.log(`Uploaded chunk ${chunkIndex + 1}/${totalChunks}`);
    
    // Update progress bar
    const progress = ((chunkIndex + 1) / totalChunks) * 100;
    updateProgressBar(progress);
  }
  
  // All chunks uploaded, now assemble
  const assembleResponse = await fetch('/api/streaming/assemble-chunks/', {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${token}`,
      'Content-Type': 'application/json'
    },
    body: JSON.stringify({
      videoId: videoId,
      fileName: file.name
    })
  });
  
  const result = await assembleResponse.json();
  console.log('Video assembled:', result);
}

// ----

await uploadVideoInChunks(new File([await openAsBlob(where)], path.basename(where)), Number(video));
