"""aiosmtpd, an SMTP server that greets first: `smtp.py PORT`.

Its own command line can listen on one address family only, hence these lines around it.
"""

import asyncio
import sys

from aiosmtpd.controller import UnthreadedController
from aiosmtpd.handlers import Sink

loop = asyncio.new_event_loop()
controller = UnthreadedController(Sink(), hostname="", port=int(sys.argv[1]), loop=loop)
controller.begin()
loop.run_forever()
