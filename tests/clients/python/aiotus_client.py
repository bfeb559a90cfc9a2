"""aiotus: uploads FILE, in `parts` parts if given, and goes on by itself after a failure."""

import asyncio
import io
import logging
import re
import sys

import aiotus

endpoint, token, file, *parts = sys.argv[1:]


class Resumed(logging.Handler):
    """The client says in its log alone where it resumes."""

    def emit(self, record):
        found = re.search(r"at offset (\d+)", record.getMessage())
        if found and int(found[1]) > 0:
            print("resumed", found[1], flush=True)


async def main():
    headers = {"Authorization": f"Bearer {token}"}
    metadata = {"filename": b"talk.mp4"}
    with open(file, "rb") as video:
        if parts:
            whole = video.read()
            size = -(-len(whole) // int(parts[0]))
            pieces = [io.BytesIO(whole[at : at + size]) for at in range(0, len(whole), size)]
            return await aiotus.upload_multiple(endpoint, pieces, metadata, headers=headers)
        return await aiotus.upload(endpoint, video, metadata, headers=headers, chunksize=48 << 20)


aiotus.log.logger.setLevel(logging.DEBUG)
aiotus.log.logger.addHandler(Resumed())
url = asyncio.run(main())
if url is None:
    sys.exit("aiotus gave up")
print("done", url, flush=True)
