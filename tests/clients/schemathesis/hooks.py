"""A session for each request that schemathesis makes: what a request ends, no other misses.

Signing out, revoking and deleting so need no exception. The gateway under test signs in whoever signs up.
"""

import itertools
import os

import requests
import schemathesis

NUMBERS = itertools.count()


@schemathesis.auth(refresh_interval=None)
class NewUser:
    def get(self, case, context):
        answer = requests.post(
            os.environ["VESTIBULE_API"] + "/sign-up/email",
            json={
                "name": "Ada",
                "email": f"user{next(NUMBERS)}@example.com",
                "password": "correct horse battery staple",
            },
            timeout=10,
        )
        answer.raise_for_status()
        return answer.json()["token"]

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"
