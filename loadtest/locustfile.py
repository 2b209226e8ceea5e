"""Users for Locust: `locust -f loadtest/locustfile.py --host 127.0.0.1:8001 --images DIR`.

With its web page, `--headless`, or `--master` and any number of `--worker`; `--rate` and `--fps` choose the loop.
"""

import locust  # noqa: F401, I001  # first: it patches the standard library for gevent
from triptych_loadtest import locust_events, web_tab  # noqa: F401  # its options, and the web page's tab
from triptych_loadtest.users import DetectionUser  # noqa: F401
