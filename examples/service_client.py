"""Ask a running service for verdicts, with Python's standard library alone.

    python examples/service_client.py http://127.0.0.1:8080 part.png

If the service wants a token, it is taken from the variable FAPROMPT_TOKEN.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path


def ask(address, path, *, token="", timeout=30.0, **options):
    """Return the row of one picture; options of the service are product, overlay, map, ..."""
    query = urllib.parse.urlencode({"name": Path(path).name, **options})
    headers = {"content-type": "application/octet-stream"}
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    url, data = f"{address.rstrip('/')}/v1/predict?{query}", Path(path).read_bytes()
    try:
        request = urllib.request.Request(url, data, headers)
        return json.load(urllib.request.urlopen(request, timeout=timeout))
    except urllib.error.HTTPError as error:  # 503: full, ask again after Retry-After seconds
        raise RuntimeError(f"{error.code}: {json.load(error)['detail']}") from error


def main(address, *paths):
    """Print verdict, score and name of each picture."""
    for path in paths:
        row = ask(address, path, token=os.environ.get("FAPROMPT_TOKEN", ""))
        print(row["verdict"], f"{row['score']:.3f}", row["path"])


if __name__ == "__main__":
    main(*sys.argv[1:])
