"""Real processes: workers that observe and a control that collects are killed with SIGKILL, over and over."""

from __future__ import annotations

import json
import subprocess
import sys

# Forks its processes: each would take a second to start otherwise. What is true is kept apart from the panes: threads
# count what they have begun and completed, control appends what it has stored to a file, by one write for each pane.
KILL_BOTH = """
import collections
import json
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time

import numpy as np

from runtime.shm.panes_layout import create_arena, create_pane_control
from runtime.shm.panes_reader import PaneReader
from runtime.shm.panes_slot import SlotEnded
from runtime.shm.panes_writer import PaneWriter
from runtime.shm.segment import Segment

KILLS, SEED = map(int, sys.argv[1:])
WORKERS, THREADS, MODELS, ROWS = 2, 2, 3, 3
arenas = [create_arena("arena", 8 << 20) for _ in range(WORKERS)]
page = create_pane_control("pane control", WORKERS)
truth_segment = Segment.create("truth", (KILLS + WORKERS + 1) * THREADS * MODELS * 2 * 8)
truth = np.frombuffer(truth_segment.buffer, np.int64).reshape(-1, THREADS, MODELS, 2)  # begun, completed
store = tempfile.TemporaryFile(buffering=0)
STORED = struct.Struct("<QQ2q2q")  # id and serial; life and model; observations of each thread
random.seed(SEED)


def counters(memory):
    return np.frombuffer(memory, np.int64)


def observe(slots, life, thread):
    words = memoryview(truth_segment.buffer).cast("q")
    while True:
        for model in range(MODELS):
            at = ((life * THREADS + thread) * MODELS + model) * 2
            slot = slots[model]
            try:
                into = slot.enter()
            except SlotEnded:
                continue
            words[at] += 1
            into[thread] += ROWS
            into[512 + thread] += ROWS
            slot.leave(ROWS, 1)
            words[at + 1] += 1


def work(worker, life, ready):
    random.seed(life)
    writer = PaneWriter(arenas[worker], page, worker)
    slots = [writer.slot(f"m{model}", life, 1, "", b"", 8192, counters) for model in range(MODELS)]
    for thread in range(THREADS):
        threading.Thread(target=observe, args=(slots, life, thread), daemon=True).start()
    os.write(ready, b"x")
    while True:
        time.sleep(0.001)
        writer.tick()
        model = random.randrange(MODELS)
        again = writer.slot(f"m{model}", life, 2, "", b"", 8192, counters)
        if again is not None:
            before, slots[model] = slots[model], again
            before.end()


def collect(reader, stored, **options):
    for pane in reader.closed(**options):
        if pane.key not in stored:
            values = np.frombuffer(pane.read(), np.int64)
            assert (values[:512] == values[512:]).all(), "half of an observation"
            assert values.sum() == 2 * pane.rows
            seen = (values[:THREADS] // ROWS).tolist()
            store.write(STORED.pack(*pane.key, pane.slot.version, int(pane.slot.model[1:]), *seen))
            stored.add(pane.key)
        reader.acknowledge(pane)


def rows_stored():
    data = os.pread(store.fileno(), os.fstat(store.fileno()).st_size, 0)
    return list(STORED.iter_unpack(data))


def control(ready):
    reader = PaneReader(arenas, page)
    stored = {row[:2] for row in rows_stored()}
    os.write(ready, b"x")
    while True:
        reader.raise_epoch(reader.epoch + 1)
        collect(reader, stored)
        time.sleep(random.choice((0, 0.001)))


def spawn(run, *arguments):
    ready, told = os.pipe()
    process = os.fork()
    if not process:
        try:
            run(*arguments, told)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(told)
    return process, ready


def kill(process, ready):
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    os.close(ready)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it had ended by itself"


lives = 0
running = {}
for name in (*range(WORKERS), "control"):
    running[name] = spawn(control) if name == "control" else spawn(work, name, lives)
    lives += name != "control"
worker_kills = 0
try:
    for _ in range(KILLS):
        victim = random.choice((*range(WORKERS), "control"))
        if random.random() < 0.8:
            os.read(running[victim][1], 1)
        time.sleep(random.random() * 0.02)
        kill(*running.pop(victim))
        if victim == "control":
            running[victim] = spawn(control)
        else:
            running[victim] = spawn(work, victim, lives)
            lives += 1
            worker_kills += 1
    for name in list(running):
        kill(*running.pop(name))
finally:
    for process, _ in running.values():
        os.kill(process, signal.SIGKILL)
reader = PaneReader(arenas, page)
stored = {row[:2] for row in rows_stored()}
collect(reader, stored, also_open=True)
torn = reader.half_written()
before = reader.figures()
for worker in range(WORKERS):
    PaneWriter(arenas[worker], page, worker).tick()
after = reader.figures()
assert torn == tuple(
    sum(getattr(new, name) - getattr(old, name) for old, new in zip(before, after))
    for name in ("discarded_panes", "discarded_rows")
)
assert reader.closed() == [] and reader.slots() == []
rows = rows_stored()
assert len({row[:2] for row in rows}) == len(rows), "a pane was stored twice"
seen = np.zeros(truth.shape[:3], np.int64)
for _, _, life, model, *observations in rows:
    seen[life, :, model] += observations
begun, completed = truth[..., 0], truth[..., 1]
assert (seen <= begun).all(), "an observation is in two panes"
discarded = sum(each.discarded_rows for each in after)
print(json.dumps({
    "begun": int(begun.sum()), "completed": int(completed.sum()), "seen": int(seen.sum()), "panes": len(rows),
    "discarded": discarded // ROWS, "discarded_panes": sum(each.discarded_panes for each in after),
    "most_discarded_panes": (worker_kills + WORKERS) * THREADS, "worker_kills": worker_kills, "lives": lives,
    "lives_seen": int((seen.sum((1, 2)) > 0).sum()), "refused": sum(each.refused_slots for each in after),
    "resident": max(each.resident_bytes for each in after),
}))
"""


def killed(kills: int, seed: int) -> dict[str, int]:
    command = [sys.executable, "-c", KILL_BOTH, str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_every_observation_is_in_one_stored_pane_or_in_a_half_written_one_that_is_counted() -> None:
    found = killed(kills=90, seed=1)
    assert found["lives_seen"] > found["lives"] // 3, "most workers came to observe before they were killed"
    assert found["panes"] > found["lives_seen"]
    assert found["completed"] <= found["seen"] + found["discarded"] <= found["begun"]
    assert found["discarded_panes"] <= found["most_discarded_panes"]
    assert found["resident"] <= 300_000, "all but header and slots is free"
