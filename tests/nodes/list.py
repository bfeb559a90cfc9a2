"""What a bucket says to GET: list.py ENDPOINT BUCKET KEY SECRET QUERY. Signed as S3 was at first, which needs no library."""
import base64, email.utils, hashlib, hmac, sys, urllib.request

endpoint, bucket, key, secret, query = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
# Of the query only what names another resource is signed.
resource = f'/{bucket}' + ('?uploads' if 'uploads' in query.split('&') else '')
signature = base64.b64encode(hmac.new(secret.encode(), f'GET\n\n\n{date}\n{resource}'.encode(), hashlib.sha1).digest()).decode()
headers = {'Date': date, 'Authorization': f'AWS {key}:{signature}'}
print(urllib.request.urlopen(urllib.request.Request(f'{endpoint}/{bucket}?{query}', headers=headers)).read().decode())
