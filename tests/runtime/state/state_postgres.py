"""Where the real server of the tests listens."""

import os


def postgres_url() -> str:
    return f"postgresql://{os.environ.get('PGUSER', 'root')}@127.0.0.1/test"
