import pytest
import torch


@pytest.fixture(autouse=True)
def _on_one_core():
    """Seconds of work are counted on one core, so that whatever else the machine does is not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
