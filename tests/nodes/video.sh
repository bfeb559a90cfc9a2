#!/usr/bin/env bash
# Uploads a file by curl, as a person at a terminal would: video.sh chunks|ietf ORIGIN TOKEN FILE DIR. Says `again` for each
# request that is tried once more, and `done ID`.
set -euo pipefail
dialect=$1 origin=$2 token=$3 file=$4 dir=$5
size=$(stat -c %s "$file")

# Until it succeeds; what curl answers goes to standard output.
ask() {
  for _ in $(seq 100); do
    if curl -sS --fail --max-time 60 -H "Authorization: Bearer $token" "$@" 2>>"$dir/curl.log"; then return; fi
    echo again >&2
    sleep 0.3
  done
  exit 1
}

chunks() {
  local id chunk=$((5 << 20))
  id=$(ask -H 'Content-Type: application/json' -d "{\"fileName\": \"talk.mp4\", \"fileSize\": $size, \"chunkSize\": $chunk}" "$origin/uploads/" |
    sed 's/.*"upload_id": *"\([^"]*\)".*/\1/')
  split -b $chunk -a 4 -d "$file" "$dir/chunk."
  export -f ask
  export token origin id dir
  ls "$dir" | grep '^chunk\.' | shuf | xargs -P 3 -I '{}' bash -euo pipefail -c \
    'n={}; ask -o /dev/null -T "$dir/$n" "$origin/uploads/$id/chunks/$((10#${n#chunk.}))"'
  ask -o /dev/null -X POST "$origin/uploads/$id/assemble/"
  echo "done $id"
}

ietf() {
  local draft='Upload-Draft-Interop-Version: 6' url head offset
  url=$(ask -o /dev/null -D - -X POST -H "$draft" -H 'Upload-Complete: ?0' -H "Upload-Length: $size" "$origin/files/" |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  for _ in $(seq 100); do
    head=$(ask -I -H "$draft" "$url" | tr -d '\r' | tr '[:upper:]' '[:lower:]')
    offset=$(sed -n 's/^upload-offset: //p' <<<"$head")
    if grep -q '^upload-complete: ?1' <<<"$head"; then
      echo "done ${url##*/}"
      return
    fi
    tail -c "+$((offset + 1))" "$file" | curl -sS --fail --limit-rate 30M -o /dev/null -X PATCH -T - -H 'Transfer-Encoding:' \
      -H "Content-Length: $((size - offset))" -H "Authorization: Bearer $token" -H "$draft" -H "Upload-Offset: $offset" \
      -H 'Upload-Complete: ?1' -H 'Content-Type: application/partial-upload' "$url" 2>>"$dir/curl.log" || { echo again >&2; sleep 0.3; }
  done
  exit 1
}

"$dialect"
