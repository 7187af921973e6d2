"""`clipwarden flower`: Flower on the system's queues, for operators. It shows and does not steer.

Analyses are cancelled at the gateway, where their rows are; taking a message away would only have it sent again.
"""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from celery import Celery

from clipwarden.shared.errors import ConfigError
from clipwarden.shared.logs import configure_logging, logger
from clipwarden.shared.queue import celery_config
from clipwarden.shared.settings import PREFIX, Settings, load_settings

COLUMNS = "name,args,state,runtime,worker,received,started,retries,uuid"
FORGOTTEN_AFTER_S = 3600
"""How long workers that are gone are shown."""
MOST_TASKS = 20_000
AN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

log = logger(__name__)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden flower", description=__doc__)
    parser.parse_args(argv)
    settings = load_settings()
    settings.need("redis_url", "flower_password")
    configure_logging("flower", settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(settings)
    return 0


def only_id(task: Any) -> Any:
    """The task as it is shown: its argument is the id that it is about, and nothing else."""
    found = AN_ID.search(str(task.args))
    task.args = found[0] if found else ""
    task.kwargs = ""
    return task


def serve(settings: Settings) -> None:
    """Run until told to stop. Raises ConfigError if the port cannot be had."""
    from flower.app import Flower
    from flower.options import default_options
    from flower.urls import settings as pages

    chosen: dict[str, Any] = {
        "address": settings.flower_host,
        "port": settings.flower_port,
        "basic_auth": [f"{settings.flower_user}:{settings.flower_password}"],
        "read_only": True,
        "tasks_columns": COLUMNS,
        "format_task": only_id,
        "natural_time": False,
        "max_tasks": MOST_TASKS,
        "purge_offline_workers": FORGOTTEN_AFTER_S,
    }
    for name, value in chosen.items():
        setattr(default_options, name, value)
    app = Celery("clipwarden", set_as_current=False)
    app.conf.update(celery_config(settings))
    flower = Flower(capp=app, options=default_options, **pages)
    try:
        port = flower.start_http_server()
    except OSError as error:
        raise ConfigError(f"{PREFIX}FLOWER_PORT: Flower cannot bind to {settings.flower_port} ({error})") from error
    log.info("flower serves", host=settings.flower_host, port=port)
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        flower.stop()
