"""HTTP requests one after the other, each on a connection of its own, until the file STOP exists.

    load.py URL STOP PROGRESS

Keeps in the file PROGRESS, one line an answer or error, what came: the body of an answer, or `error: ...`.
"""

import os
import sys
import urllib.request

url, stop, progress = sys.argv[1:]
with open(progress, "w", buffering=1) as lines:
    while not os.path.exists(stop):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                print(answer.read().decode().strip(), file=lines)
        except OSError as error:
            print("error:", error, file=lines)
