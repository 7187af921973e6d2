"""Every task that may be sent has a worker that knows it, in the pool of its queue."""

from clipwarden.shared.queue import ROUTES, Queue, Task
from clipwarden.workers import notifier, tasks


def test_every_task_is_registered_where_its_queue_is_consumed():
    assert set(ROUTES) == set(Task)
    for task, queue in ROUTES.items():
        app = notifier.app if queue is Queue.NOTIFY else tasks.app
        assert task.value in app.tasks
