"""tuspy: uploads FILE, and resumes it if STORAGE knows its URL. With `checksum`, every chunk has one, and is sent again after a failure."""

import sys

from tusclient import client
from tusclient.storage import filestorage

endpoint, token, file, storage, *mode = sys.argv[1:]
checksum = mode == ["checksum"]
options = {"chunk_size": 8 << 20, "retries": 20, "retry_delay": 1} if checksum else {}
uploader = client.TusClient(endpoint, headers={"Authorization": f"Bearer {token}"}).uploader(
    file,
    store_url=True,
    url_storage=filestorage.FileStorage(storage),
    metadata={"filename": "talk.mp4"},
    upload_checksum=checksum,
    **options,
)


def tell(offset):
    print("resumed", offset, flush=True)
    return offset


if uploader.url:
    tell(uploader.offset)
get_offset = uploader.get_offset
uploader.get_offset = lambda: tell(get_offset())
uploader.upload()
print("done", uploader.url, flush=True)
