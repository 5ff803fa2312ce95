"""One recorder per thread, and recordings that are closed in any order."""

import gc
import threading
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from wic_layers import WIC, WellPosed, record_wic, shift_loss
from wic_layers.blocks import Chain, Squeeze
from wic_layers.errors import WICArgumentError
from wic_layers.layer.losses import is_recording
from wic_layers.models import HCFlow

X = torch.linspace(-1, 1, 2 * 8 * 12).view(2, 8, 3, 4)


def model():
    return Chain(WIC(8, 8), WIC(8, 3))


def elsewhere(function):
    """What a function returns in a thread of its own; raises what it raises."""
    results = []

    def run():
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=60)
    ((value, error),) = results
    if error is not None:
        raise error
    return value


class Background:
    """A thread that runs functions one by one, and stays the same thread."""

    def __init__(self):
        self.work, self.done = [], []
        self.ready, self.finished = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self):
        while True:
            self.ready.acquire()
            self.done.append(self.work.pop()())
            self.finished.release()

    def __call__(self, function):
        self.work.append(function)
        self.ready.release()
        assert self.finished.acquire(timeout=60)
        return self.done.pop()


def test_recordings_of_two_threads_that_overlap():
    net, other = model(), Background()
    first, second = record_wic(net), record_wic(net)
    mine = first.__enter__()
    theirs = other(second.__enter__)
    net(X)
    other(lambda: net(X[:1]))
    first.__exit__(None, None, None)
    assert not is_recording()
    assert other(is_recording)
    other(lambda: net(X[:1]))
    other(lambda: second.__exit__(None, None, None))
    assert not is_recording()
    assert not other(is_recording)
    assert [len(record.extra) for record in mine] == [2]
    assert [len(record.extra) for record in theirs] == [1, 1]
    output = weakref.ref(net(X))
    gc.collect()
    assert output() is None


def test_one_recording_object_in_two_threads():
    net, other = model(), Background()
    recording = record_wic(net)
    mine, theirs = recording.__enter__(), other(recording.__enter__)
    net(X)
    recording.__exit__(None, None, None)
    other(lambda: net(X[:1]))
    other(lambda: recording.__exit__(None, None, None))
    assert [len(record.extra) for record in mine] == [2]
    assert [len(record.extra) for record in theirs] == [1]
    assert not is_recording()
    assert not other(is_recording)


def preview(net):
    with torch.no_grad():
        return net(X)


def test_a_preview_in_another_thread_is_not_recorded():
    net = model()
    with record_wic(net) as records:
        y = net(X)
        assert torch.equal(elsewhere(lambda: preview(net)), y)
        assert not elsewhere(is_recording)
    (record,) = records
    assert record.extra.requires_grad
    shift_loss(records).backward()


def test_a_split_does_not_work_for_the_recording_of_another_thread():
    net, flowed = HCFlow(scale=2, steps=1, growth=4, conditional_steps=1, width=4, depth=1), []
    net[-1].flow.register_forward_hook(lambda *_: flowed.append(threading.get_ident()))
    x = torch.rand(1, 3, 4, 4)
    with record_wic(net):
        net(x)
        elsewhere(lambda: net(x))
    assert flowed == [threading.get_ident()]


def test_compiled_code_records_in_its_own_thread():
    torch._dynamo.reset()
    net, other = model(), Background()
    counter = CompileCounterWithBackend("eager")
    forward = torch.compile(net, fullgraph=True, backend=counter)
    for _ in range(5):
        with record_wic(net) as mine:
            forward(X)
            other(lambda: forward(X))
            theirs = record_wic(net)
            records = other(theirs.__enter__)
            other(lambda: forward(-X))
            forward(X)
            other(partial(theirs.__exit__, None, None, None))
            other(lambda: forward(X))
        forward(X)
        assert len(mine) == 2
        torch.testing.assert_close(mine[0].output, net(X))
        assert len(records) == 1
        torch.testing.assert_close(records[0].output, net(-X))
    assert counter.frame_count <= 2


def test_recordings_closed_out_of_order():
    net = model()
    outer, inner, last = record_wic(net), record_wic(net), record_wic(net)
    first = outer.__enter__()
    net(X[:1])
    second = inner.__enter__()
    net(X)
    third = last.__enter__()
    net(X[:0])
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    assert is_recording()
    net(X[:0])
    last.__exit__(None, None, None)
    assert not is_recording()
    sizes = [[len(record.extra) for record in each] for each in (first, second, third)]
    assert sizes == [[1], [2], [0, 0]]


def recorded_steps(net):
    with record_wic(net) as records:
        while True:
            yield records
            net(X)


@pytest.mark.parametrize("where", ["here", "in another thread"])
def test_a_generator_that_is_dropped_closes_its_recording(where):
    net = model()
    steps = recorded_steps(net)
    records = next(steps)
    next(steps)
    with record_wic(net) as others:
        net(X)
        if where == "here":
            steps.close()
        else:
            elsewhere(steps.close)
        assert is_recording()
        net(X)
    assert not is_recording()
    assert not elsewhere(is_recording)
    assert len(records) == 1
    assert len(others) == 2


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: Chain(Squeeze(1), _Inside(net))])
def test_data_parallel_is_refused(wrap):
    net = wrap(WellPosed(Chain(WIC(8, 8)), 8, 3))
    with (
        pytest.raises(WICArgumentError, match=r"DataParallel.*Use DistributedDataParallel"),
        record_wic(net),
    ):
        pass
    assert not is_recording()


class _Inside(nn.Module):
    """A block around nn.DataParallel."""

    def __init__(self, net):
        super().__init__()
        self.net = nn.DataParallel(net)

    def forward(self, x):
        return self.net(x)

    def inverse(self, y):
        return self.net.module.inverse(y)


def test_replicas_in_threads_are_named_where_nothing_was_recorded():
    net = model()
    with record_wic(net) as records:
        elsewhere(lambda: net(X))
    with pytest.raises(WICArgumentError, match=r"same thread .*nn\.DataParallel"):
        shift_loss(records)
